"""Attempts: what may not begin, what is gone on with, what is passed over, and how often a source was tried before."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest

from harness.campaign import Request
from harness.core.sandbox import SandboxProbe
from harness.core.task import load_task
from harness.errors import UserError
from harness.evidence import attempts, filing, series
from harness.evidence.attempts import attempt_of, attempts_folder
from harness.evidence.records import history
from harness.submission import load_submission
from tests.evidence.board import Board
from tests.evidence.fake import MACHINE, NOW, FakeRunner, Given
from tests.toy_submission import SCRIPT

SAME = SCRIPT + "\n# the same, in other words\n"


def kept_attempts(board: Board) -> list[Path]:
    return sorted(attempts_folder(board.where).glob("*"))


def test_a_core_that_is_not_pinned_is_said_before_anything_runs(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "measurement_version", lambda: None)
    with pytest.raises(UserError, match="differs from the one that harness/frozen.toml pins"):
        board.submit(board.submission("adamw", 1.0))
    assert kept_attempts(board) == [] and board.runner.started == []


def test_a_machine_that_cannot_isolate_is_said_before_anything_runs(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "probe", lambda: SandboxProbe("partial"))
    with pytest.raises(UserError, match="trust partial, and a record needs isolated runs") as raised:
        board.submit(board.submission("adamw", 1.0))
    assert "speedrun doctor" in raised.value.remedy
    assert kept_attempts(board) == [] and board.runner.started == []


def test_an_attempt_whose_runs_were_not_isolated_is_begun_anew(chain: Board) -> None:
    same, usual = chain.submission("same", 0.8, SAME), chain.outcome
    chain.runner = FakeRunner(lambda request: replace(usual(request), trust="partial"))
    first = chain.submit(same)["folder"]
    chain.runner = FakeRunner(usual)
    done = chain.invoke("submit", same, "--task", chain.toy.task.path)
    assert f"does not count here: {first}: partial runs" in " ".join(done.output.split())
    assert len(kept_attempts(chain)) == 4 and chain.problems() == []


def test_an_attempt_under_a_core_that_was_not_pinned_is_begun_anew(
    chain: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    same = chain.submission("same", 0.8, SAME)
    with monkeypatch.context() as before:
        before.setattr(series, "measurement_version", lambda: None)
        first = chain.submit(same)["folder"]
    assert chain.submit(same)["folder"] != first


@pytest.mark.parametrize("finished", [0, 1])
def test_a_futile_attempt_that_was_gone_on_with_and_interrupted_is_resumed(chain: Board, finished: int) -> None:
    """Ctrl-C in the first or second run of the next pair: it is finished before the verdict counts again."""
    same, usual = chain.submission("same", 0.8, SAME), chain.outcome
    given_up = chain.submit(same)
    last = 2 * given_up["pairs"] + finished

    def once(request: Request) -> Given:
        return Given("interrupted") if request.facts["number"] == last else usual(request)

    chain.runner = FakeRunner(once)
    assert chain.invoke("submit", same, "--task", chain.toy.task.path).exit_code == 130
    assert not (Path(given_up["folder"]) / "verdict.json").exists()
    assert chain.problems() == []
    said = chain.invoke("resume", "--json")
    assert said.exit_code == 0
    assert len(chain.runner.judged) > finished and chain.problems() == []


def test_a_missing_verdict_that_would_be_final_is_a_problem(chain: Board) -> None:
    said = chain.submit(chain.submission("slow", 1.2))
    (Path(said["folder"]) / "verdict.json").unlink()
    assert chain.problems() == ["verdict.json: missing, though the campaign has come to slower"]


@pytest.mark.parametrize("name", ["machine", "core", "task", "data"])
def test_an_attempt_under_other_conditions_is_passed_over_by_name(
    chain: Board, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    candidate = load_submission(chain.submission("same", 0.8, SAME), chain.toy.task)
    first = attempt_of(candidate, "same", chain.where, MACHINE, NOW)
    assert first.passed_over == []
    if name == "core":
        monkeypatch.setattr(attempts, "core_digest", lambda: "0" * 64)
    if name == "data":
        monkeypatch.setattr(attempts, "data_digest", lambda task: "0" * 64)
    if name == "task":
        path = chain.folder / "toy.toml"
        path.write_text(chain.toy.task.path.read_text().replace("A Markov chain", "Another chain"))
        candidate = replace(candidate, task=load_task(str(path)))
    machine = replace(MACHINE, kernel="another", cpu="another") if name == "machine" else MACHINE
    again = attempt_of(candidate, "same", chain.where, machine, NOW)
    assert again.passed_over == [f"{first.campaign.folder}: another {name}"]


def test_a_new_comment_does_not_hide_that_a_source_was_tried_before(chain: Board) -> None:
    (first, second) = kept_attempts(chain)
    said = chain.submit(chain.submission("same", 1.2, SAME))
    assert said["same_source_before"] == [first.name, second.name]
    notes = [(folder / "notes.md").read_text() for folder in history(chain.where)]
    assert "No earlier attempts had the same parsed source" in notes[0]
    assert "1 earlier attempt had the same parsed source" in notes[1]


@pytest.mark.parametrize(
    ("script", "changes"),
    [(SCRIPT + "\nLAST = 1\n", {}), (SCRIPT, {"default = 30": "default = 31"})],
    ids=["a statement", "a hyperparameter"],
)
def test_what_does_something_else_is_another_source(chain: Board, script: str, changes: dict[str, str]) -> None:
    other = chain.submission("other", 1.2, script, **changes)
    assert chain.submit(other)["same_source_before"] == []


def test_what_the_disk_has_no_room_for_is_filed_later(chain: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    fast = chain.submission("fast", 0.6)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as later:
        later.setattr(filing.shutil, "copyfile", full)
        with pytest.raises(UserError, match="No space left") as raised:
            chain.submit(fast)
    assert any(f"speedrun resume {attempt.name}" in raised.value.remedy for attempt in kept_attempts(chain))
    assert Path(chain.submit(fast)["record"]).name == "003-fast"


def test_a_first_record_is_announced_with_the_look_that_can_make_it_one(board: Board) -> None:
    done = board.invoke("submit", board.submission("adamw", 1.0), "--task", board.toy.task.path)
    assert "2 min to that at 12, the first that can show the target, at most 3 min" in " ".join(done.output.split())


def test_interruptions_are_shown_apart_and_those_after_the_clock_too(board: Board) -> None:
    usual, late = board.outcome, {2: False, 5: True}

    def sometimes(request: Request) -> Given:
        number = request.facts["number"]
        return replace(usual(request), reason="interrupted", timed=late[number]) if number in late else usual(request)

    board.runner = FakeRunner(sometimes)
    assert board.invoke("submit", board.submission("adamw", 1.0), "--task", board.toy.task.path).exit_code == 130
    assert board.invoke("resume").exit_code == 130
    said = " ".join(board.invoke("resume").output.split())
    assert "2 runs interrupted by hand, 1 of them after the clock had stopped" in said
    assert board.problems() == []
