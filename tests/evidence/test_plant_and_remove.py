"""Plant and remove: a useless, costly method is found harmful and is gone from the next record; the useful one stays.

Everything is real but the seconds of the raced runs, which are scripted: counting by traced runs, cutting the source,
the dry runs that show that the cut source trains as before.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from harness.evidence.ablations import check_ablations
from harness.evidence.records import history, load_record
from harness.submission import load_submission
from tests.evidence.board import Board
from tests.evidence.loaded import file_loaded, loaded_script


def said(board: Board, *arguments: object) -> dict[str, Any]:
    done = board.invoke(*arguments, "--json")
    assert done.exit_code == 0, done.exception
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.slow
def test_plant_and_remove(board: Board) -> None:
    file_loaded(board)
    first = {found["dropped"][0]: found for found in said(board, "ablate", "toy/cpu-1thread/001")["ablations"]}
    assert {name: found["word"] for name, found in first.items()} == {"momentum": "needed", "ballast": "harmful"}
    # the call, and the four statements of the function; its docstring is none that is executed
    assert first["ballast"]["lines"] == 5
    assert first["ballast"]["saved_per_line"] < 0
    assert first["momentum"]["lines"] == 0  # its toggle is half a line
    assert first["momentum"]["saved_per_line"] is None

    into = ("--into", board.folder / "made")
    assert said(board, "revert", "toy/cpu-1thread/001", "--drop", "ballast", *into)["verdict"] == "record"
    second = history(board.where)[1]
    assert load_record(second).methods_dropped == ["ballast"]
    script = load_submission(second / "submission", board.toy.task).files["train.py"].decode()
    assert script == loaded_script_without_ballast()

    (left,) = said(board, "ablate", "toy/cpu-1thread/002")["ablations"]
    assert (left["dropped"], left["word"]) == (["momentum"], "needed")
    assert said(board, "revert", "best", "--drop", "momentum", "--task", "toy", *into)["verdict"] == "slower"
    assert len(history(board.where)) == 2
    assert board.problems() == [] and not any(checked.problems for checked in check_ablations(board.where))
    assert board.invoke("records", "verify").exit_code == 0


def loaded_script_without_ballast() -> str:
    """What a person would have left of the script."""
    script = loaded_script()
    function, call = script.index("def carry("), script.index('        if run.uses("ballast")')
    without = script[:function] + script[script.index("def main(") : call]
    return without + script[script.index("        optimizer.step()") :]
