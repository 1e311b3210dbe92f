"""A comparison: an attempt against a record that does not reign, published and filed as none."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from harness.errors import UserError
from harness.evidence.records import history
from leaderboard import own
from tests.evidence.board import Board

FIRST, SECOND = "toy/cpu-1thread/001", "toy/cpu-1thread/002"


def compare(board: Board, folder: Path, against: str = FIRST, *more: str) -> dict[str, Any]:
    done = board.invoke("submit", folder, "--task", board.toy.task.path, "--against", against, "--json", *more)
    if isinstance(done.exception, UserError):
        raise done.exception
    assert done.exit_code == 0, (done.output, done.exception)
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def row_of_comparison(board: Board) -> dict[str, Any]:
    """Of the one attempt that is no record."""
    (row,) = [row for row in own.attempts(own.read(board.where.records)) if row["record"] is None]
    return row


def test_what_is_faster_than_an_older_record_becomes_no_record(chain: Board) -> None:
    found = compare(chain, chain.submission("optimizer", 0.9))
    assert found["verdict"] == "record" and found["record"] is None
    assert found["ratio"] == pytest.approx(1 / 0.9, abs=0.01)
    assert len(history(chain.where)) == 2
    assert chain.problems() == []


def test_the_board_says_what_it_was_compared_with(chain: Board) -> None:
    compare(chain, chain.submission("optimizer", 0.9))
    assert row_of_comparison(chain)["verdict"] == "faster, compared with a record that does not reign"
    assert row_of_comparison(chain)["reference"] == FIRST


def test_what_is_slower_is_called_so(chain: Board) -> None:
    compare(chain, chain.submission("optimizer", 1.2), os.path.relpath(history(chain.where)[0]))
    assert row_of_comparison(chain)["verdict"] == "slower"


def test_it_is_decided_once_and_apart_from_the_attempt_at_a_record(chain: Board) -> None:
    folder = chain.submission("optimizer", 0.7)
    compare(chain, folder)
    with pytest.raises(UserError, match="this very source has been decided"):
        compare(chain, folder)
    assert chain.submit(folder)["record"] is not None
    assert chain.problems() == []


def test_the_attempt_of_a_record_is_no_comparison(chain: Board) -> None:
    """The attempt that made record 002 raced the same two sources, for the record."""
    chain.submit(chain.submission("third", 0.7))
    compare(chain, chain.folder / "my Muon!")
    assert row_of_comparison(chain)["ratio"] == pytest.approx(1 / 0.8, abs=0.01)


@pytest.mark.parametrize(
    ("against", "said"),
    [
        (SECOND, "it is the reigning record"),
        ("toy/cpu-1thread/009", "no such record"),
        ("baseline", "has no baseline"),
    ],
)
def test_what_cannot_be_compared_with_is_named(chain: Board, against: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        compare(chain, chain.submission("optimizer", 0.9), against)


def test_a_submission_is_no_record_to_compare_with(chain: Board) -> None:
    other = chain.submission("other", 1.0)
    with pytest.raises(UserError, match="no record of toy on cpu-1thread"):
        compare(chain, chain.submission("optimizer", 0.9), str(other))


def test_a_better_baseline_names_its_reference_already(chain: Board) -> None:
    done = chain.invoke("submit", chain.folder / "x", "--as-baseline", "--against", FIRST)
    assert done.exit_code == 2
