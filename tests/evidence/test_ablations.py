"""ablate: races of a record without its methods against itself, what they cost, and what is kept of both."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.checks import statements
from harness.checks.statements import Difference
from harness.errors import UserError
from harness.evidence.ablations import ablations_of, check_ablations
from harness.evidence.records import history
from tests.evidence.board import Board
from tests.evidence.fake import FakeRunner, Given
from tests.evidence.loaded import FakeCounter, file_loaded

RECORD = "toy/cpu-1thread/001"


@pytest.fixture
def record(board: Board, monkeypatch: pytest.MonkeyPatch) -> Board:
    """A board with one record of two methods."""
    monkeypatch.setattr(statements, "Counter", FakeCounter)
    file_loaded(board)
    return board


def ablate(board: Board, *arguments: object) -> dict[str, Any]:
    done = board.invoke("ablate", RECORD, *arguments, "--json")
    if isinstance(done.exception, UserError):
        raise done.exception
    assert done.exit_code == 0, done.exception
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def problems(board: Board) -> list[str]:
    return [problem for checked in check_ablations(board.where) for problem in checked.problems]


def test_every_method_is_dropped_and_judged(record: Board) -> None:
    said = ablate(record)
    assert said["record"] == "toy/cpu-1thread/001-loaded"
    assert [(found["dropped"], found["word"]) for found in said["ablations"]] == [
        (["momentum"], "needed"), (["ballast"], "harmful"),
    ]  # fmt: skip
    momentum, ballast = said["ablations"]
    assert momentum["ratio"]["ratio"] == pytest.approx(1.25, abs=0.01)
    assert momentum["ratio"]["low"] > 1 > ballast["ratio"]["high"]
    assert momentum["saved"]["seconds"] == pytest.approx(2.5, abs=0.1)
    assert momentum["saved_per_line"] == pytest.approx(momentum["saved"]["seconds"] / 3)
    assert ballast["saved"]["high"] < 0
    assert (momentum["lines"], momentum["shared_lines"]) == (3, 1)
    assert momentum["step_seconds"] == pytest.approx(momentum["seconds"] / 30)
    kept = {tuple(found.dropped): found.model_dump(mode="json") for found in ablations_of(history(record.where)[0])}
    assert kept == {("momentum",): momentum, ("ballast",): ballast}
    assert problems(record) == [] and record.problems() == []
    assert record.invoke("records", "verify").exit_code == 0


def test_what_is_finished_is_not_raced_again_unless_asked(record: Board) -> None:
    first = ablate(record, "--method", "ballast")
    runs = len(record.runner.started)
    assert ablate(record, "--method", "ballast") == first
    assert len(record.runner.started) == runs
    second = ablate(record, "--method", "ballast", "--again")
    assert second["ablations"][0]["campaign"] != first["ablations"][0]["campaign"]
    assert len(ablations_of(history(record.where)[0])) == 2


def test_what_is_raced_again_is_gone_on_with(record: Board) -> None:
    ablate(record, "--method", "ballast")
    usual = record.runner.outcome
    record.runner = FakeRunner(lambda request: Given("interrupted") if request.facts["number"] == 3 else usual(request))
    assert record.invoke("ablate", RECORD, "--method", "ballast", "--again").exit_code == 130
    record.runner = FakeRunner(usual)
    ablate(record, "--method", "ballast", "--again")
    assert len(ablations_of(history(record.where)[0])) == 2


def test_several_methods_are_dropped_together(record: Board) -> None:
    (found,) = ablate(record, "--drop", "ballast,momentum", "--pairs", 6)["ablations"]
    assert found["dropped"] == ["momentum", "ballast"]
    assert (found["word"], found["pairs"]) == ("unproven", 6)  # what one saves the other costs
    assert found["ratio"]["low"] < 1 < found["ratio"]["high"]


def test_an_interrupted_ablation_is_gone_on_with(record: Board) -> None:
    usual = record.runner.outcome
    interrupted = FakeRunner(lambda request: Given("interrupted") if request.facts["number"] == 3 else usual(request))
    record.runner = interrupted
    assert record.invoke("ablate", RECORD, "--method", "momentum").exit_code == 130
    assert problems(record) == []
    record.runner = FakeRunner(usual)
    done = record.invoke("resume", "--json")
    assert done.exit_code == 0, done.exception
    assert json.loads(done.stdout)["ablation"]["word"] == "needed"
    assert ablate(record, "--method", "momentum")["ablations"][0]["word"] == "needed"
    assert len(ablations_of(history(record.where)[0])) == 1


def test_a_record_that_fails_without_a_method_needs_it(record: Board) -> None:
    usual = record.runner.outcome
    record.runner = FakeRunner(lambda request: Given("not-finite") if request.dropped else usual(request))
    (found,) = ablate(record, "--method", "momentum")["ablations"]
    assert (found["word"], found["ratio"], found["saved_per_line"]) == ("needed", None, None)
    assert "2 of 2 runs of the candidate" in found["reason"]
    assert problems(record) == []


def test_a_person_reads_a_row_a_method(record: Board) -> None:
    done = record.invoke("ablate", RECORD)
    assert done.exit_code == 0, done.exception
    rows = [line.split()[:2] for line in done.stdout.splitlines()]
    assert ["momentum", "needed"] in rows and ["ballast", "harmful"] in rows
    assert "+20 MiB" in done.stdout and "3 (1)" in done.stdout


def test_what_cannot_be_dropped_by_itself_is_left_out(record: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    count = FakeCounter.difference

    def difference(self: FakeCounter, dropped: list[str]) -> Difference:
        if "momentum" in dropped:
            raise UserError("its short run without momentum failed: crash: no optimizer is left")
        return count(self, dropped)

    monkeypatch.setattr(FakeCounter, "difference", difference)
    assert [found["dropped"] for found in ablate(record)["ablations"]] == [["ballast"]]
    with pytest.raises(UserError, match="no optimizer is left"):
        ablate(record, "--method", "momentum")


def _edit(file: str, change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        table = json.loads((folder / file).read_text())
        change(table)
        (folder / file).write_text(json.dumps(table))

    return edit


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_edit("ablation.json", lambda t: t.update(word="needed")), "ablation.json: word: "),
        (_edit("ablation.json", lambda t: t["ratio"].update(low=9.0)), "ablation.json: ratio: "),
        (_edit("ablation.json", lambda t: t.update(colour="red")), "ablation.json: colour"),
        (_edit("cost.json", lambda t: t["statements"].update({"train.py": [2]})), "ablation.json: lines: 3 where"),
        (_edit("cost.json", lambda t: t["statements"]["train.py"].append(1)), "cost.json: train.py: line 1 is no"),
        (_edit("cost.json", lambda t: t["shared"].update(t["statements"])), "cost.json: statements are counted twice"),
        (_edit("cost.json", lambda t: t.update(dropped=["momentum"])), "of another submission or other methods"),
        (_edit("cost.json", lambda t: t.update(executed="many")), "cost.json: executed"),
        (_edit("verdict.json", lambda t: t.update(pairs=6)), "verdict.json: pairs"),
        (lambda folder: (folder / "ablation.json").unlink(), "ablation.json: No such file"),
        (lambda folder: (folder / "cost.json").write_text("{"), "cost.json: Expecting property name"),
    ],
)
def test_whatever_is_changed_in_an_ablation_is_found(
    record: Board, damage: Callable[[Path], object], said: str
) -> None:
    found = ablate(record, "--method", "ballast")
    damage(history(record.where)[0] / "ablations" / found["ablations"][0]["campaign"])
    assert any(said in problem for problem in problems(record)), problems(record)
    assert record.invoke("records", "verify").exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--method", "muon"), "no [methods.muon]"),
        (("--drop", "ballast,muon"), "no [methods.muon]"),
        (("--pairs", "5"), "a race is looked at after"),
    ],
)
def test_what_the_user_can_fix(record: Board, arguments: tuple[str, ...], said: str) -> None:
    done = record.invoke("ablate", RECORD, *arguments)
    assert isinstance(done.exception, UserError)
    assert said in done.exception.message


def test_usage_and_what_is_no_record(record: Board) -> None:
    assert isinstance(record.invoke("ablate", "baseline").exception, UserError)
    assert record.invoke("ablate", RECORD, "--method", "ballast", "--drop", "ballast").exit_code == 2
    assert record.invoke("ablate", RECORD, "--method", "ballast,momentum").exit_code == 2
