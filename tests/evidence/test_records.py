"""submit and records verify over a whole history, with runs that cost nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.checks import check
from harness.cli import campaigns
from harness.errors import UserError
from harness.evidence import record_checks
from harness.evidence.record_checks import MAX_FILE_BYTES
from harness.evidence.records import history, load_record
from harness.frozen import FrozenVersion
from leaderboard import site
from tests.evidence.board import Board
from tests.evidence.fake import HOLDOUT_GAP
from tests.toy_submission import SCRIPT


def test_records_follow_one_another(chain: Board) -> None:
    first, second = history(chain.where)
    assert (first.name, second.name) == ("001-adamw", "002-my-muon")
    one, two = load_record(first), load_record(second)
    assert (one.kind, one.parent, one.ratio, one.runs) == ("baseline", None, None, 12)
    assert (two.kind, two.parent) == ("race", one.id)
    assert [record.holdout_gap for record in (one, two)] == [pytest.approx(HOLDOUT_GAP)] * 2
    assert two.ratio is not None and two.ratio.low > 1.01 and 1.2 < two.ratio.ratio < 1.3
    assert {path.name for path in second.iterdir()} == {
        "record.json", "submission", "plan.json", "runs.jsonl", "bundles.jsonl.gz", "verdict.json", "notes.md",
    }  # fmt: skip
    assert (second / "runs.jsonl").stat().st_size < MAX_FILE_BYTES
    notes = (second / "notes.md").read_text()
    assert "| holdout | +0.0125 nats per token against validation, in one run; decides nothing |" in notes
    assert "# speed 0.8" in notes and "toy/cpu-1thread/001-adamw" in notes
    done = chain.invoke("records", "verify", "--json")
    assert done.exit_code == 0 and json.loads(done.stdout)["ok"]
    assert len(json.loads(done.stdout)["records"]) == 4


def test_a_record_of_a_task_that_counts_steps_has_them_as_its_score(board: Board) -> None:
    board.steps = 100.0
    board.submit(board.submission("adamw", 1.0))
    board.submit(board.submission("fewer", 0.8))
    record = load_record(history(board.where)[1])
    verdict = json.loads((history(board.where)[1] / "verdict.json").read_text())
    assert verdict["tokens"] is verdict["speed"] is None  # the tokens are those of the steps
    assert record.steps == pytest.approx(80.0) and record.ratio is not None and 1.2 < record.ratio.ratio < 1.3
    assert "| steps | 80.00, the score of this task |" in (history(board.where)[1] / "notes.md").read_text()
    row = site.read(board.where.records).store.record("toy/cpu-1thread/002")
    assert (row["score"], row["score_unit"]) == (pytest.approx(80.0), "steps")
    assert board.problems() == []


def test_an_attempt_that_is_no_record_is_kept_and_final(chain: Board) -> None:
    slow = chain.submission("slow", 1.2)
    said = chain.submit(slow)
    assert said["verdict"] == "slower" and said["record"] is None
    assert (Path(said["folder"]) / "verdict.json").is_file()
    assert Path(said["folder"]).parent.name == "attempts"
    with pytest.raises(UserError, match="has been decided: slower"):
        chain.submit(slow)
    assert len(history(chain.where)) == 2 and chain.problems() == []


def test_a_futile_attempt_goes_on_when_it_is_submitted_again(chain: Board) -> None:
    same = chain.submission("same", 0.8, script=SCRIPT + "\n# the same, in other words\n")
    said = [chain.submit(same) for _ in range(2)]
    assert {found["folder"] for found in said} == {said[0]["folder"]}
    assert said[1]["pairs"] > said[0]["pairs"]
    for _ in range(5):
        try:
            said.append(chain.submit(same))
        except UserError as error:
            assert "has been decided: valid, not proven faster" in error.message
            break
    assert said[-1]["pairs"] == 16
    assert chain.problems() == []


def test_a_futile_attempt_goes_on_when_it_is_resumed(chain: Board) -> None:
    said = chain.submit(chain.submission("same", 0.8, script=SCRIPT + "\n# the same, in other words\n"))
    done = chain.invoke("resume", Path(said["folder"]).name, "--json")
    assert done.exit_code == 0, done.exception
    assert json.loads(done.stdout)["pairs"] > said["pairs"]
    assert chain.problems() == []


def test_the_reigning_record_and_an_unknown_parent_are_refused(chain: Board) -> None:
    with pytest.raises(UserError, match="it is the reigning record toy/cpu-1thread/002-my-muon"):
        chain.submit(chain.folder / "my Muon!")
    orphan = chain.submission("orphan", 0.5, authors='parent = "toy/cpu-1thread/009"\nauthors')
    with pytest.raises(UserError, match="toy/cpu-1thread/009: no such record"):
        chain.submit(orphan)


def test_a_submission_that_breaks_a_rule_is_not_raced(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = check.Result(check.BY_ID["trains"], [check.Finding("nothing is trained")])
    monkeypatch.setattr(check.Checker, "results", lambda self: iter([broken]))
    with pytest.raises(UserError, match="trains: nothing is trained"):
        board.submit(board.submission("adamw", 1.0))
    assert board.runner.started == []


def test_a_first_submission_that_misses_the_target_is_no_record(board: Board) -> None:
    board.loss = 3.95
    said = board.submit(board.submission("adamw", 1.0))
    assert (said["verdict"], said["record"]) == ("misses target", None)
    assert history(board.where) == []


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    table = json.loads(path.read_text())
    change(table)
    path.write_text(json.dumps(table))


def append(path: Path, text: str) -> None:
    path.chmod(0o644)
    path.write_text(path.read_text() + text)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda f: edit(f / "record.json", lambda t: t.update(val_loss=3.0)), "record.json: val_loss: 3.0 where"),
        (lambda f: edit(f / "record.json", lambda t: t.update(parent=None)), "record.json: parent: None where"),
        (lambda f: edit(f / "record.json", lambda t: t["ratio"].update(low=2.0)), "record.json: ratio"),
        (lambda f: edit(f / "record.json", lambda t: t.update(schema_version=9)), "schema_version: 9 where"),
        (lambda f: edit(f / "record.json", lambda t: t.update(colour="red")), "record.json: colour"),
        (lambda f: (f / "bundles.jsonl.gz").unlink(), "bundles.jsonl.gz: No such file"),
        (lambda f: edit(f / "verdict.json", lambda t: t.update(verdict="slower")), "verdict.json: verdict"),
        (lambda f: edit(f / "verdict.json", lambda t: t["equal_loss"].update(low=9)), "verdict.json: equal_loss"),
        (lambda f: (f / "verdict.json").unlink(), "verdict.json: missing"),
        (lambda f: append(f / "runs.jsonl", "{}\n"), "runs.jsonl: line 9: number: Field required"),
        (lambda f: (f / "runs.jsonl").write_text(""), "verdict.json: there, though"),
        (lambda f: append(f / "submission" / "train.py", "# x\n"), "submission/: its digest"),
        (lambda f: (f / "notes.md").write_text("# Mine\n"), "notes.md: the figures"),
        (lambda f: shutil.rmtree(f.parent / "attempts"), "plan.json: not that of attempts/"),
        (lambda f: f.rename(f.with_name("007-late")), "number 002 is due here"),
        (
            lambda f: shutil.rmtree(f.parent / "001-adamw"),
            "the reference is not the submission of the record that was due",
        ),
    ],
)
def test_whatever_is_changed_in_a_record_is_found(chain: Board, damage: Callable[[Path], object], said: str) -> None:
    damage(history(chain.where)[1])
    assert any(said in problem for problem in chain.problems()), chain.problems()
    done = chain.invoke("records", "verify")
    assert done.exit_code == 1
    assert "DIFFERS" in done.stdout


def test_a_record_of_a_core_that_frozen_toml_does_not_list_is_found(
    chain: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A core that was edited and pinned again where the record was made."""
    monkeypatch.setattr(record_checks, "frozen_versions", lambda: [FrozenVersion(1, 1, "0" * 64, "The first version.")])
    said = "plan.json: core_digest: not that of a version in harness/frozen.toml: the core was edited"
    assert chain.problems() == [said] * 2


def test_notes_are_for_people_but_for_the_figures(chain: Board) -> None:
    notes = history(chain.where)[1] / "notes.md"
    notes.write_text(notes.read_text().replace("For the authors: why", "Muon, with my own constants:"))
    assert chain.problems() == []


def test_a_record_of_an_older_schema_is_brought_up_to_date(chain: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = history(chain.where)[1]
    now = load_record(folder)

    def age(table: dict[str, Any]) -> None:
        table["schema_version"] = 0
        table["name"] = table.pop("title")

    def upgrade(table: dict[str, Any]) -> dict[str, Any]:
        title = table.pop("name")
        return {**table, "title": title, "schema_version": 1}

    edit(folder / "record.json", age)
    monkeypatch.setattr("harness.evidence.records.UPGRADES", {0: upgrade})
    assert load_record(folder) == now


def test_a_record_that_was_overtaken_meanwhile_is_not_filed(chain: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    slower, faster = chain.submission("slower", 0.6), chain.submission("faster", 0.5)
    with monkeypatch.context() as later:
        later.setattr(campaigns, "file_record", _refuse)
        with pytest.raises(UserError, match="not now"):
            chain.submit(slower)
    chain.submit(faster)
    waiting = sorted((chain.where.records / "toy" / "cpu-1thread" / "attempts").iterdir())[-2]
    done = chain.invoke("resume", waiting.name)
    assert isinstance(done.exception, UserError)
    assert "no longer the reigning record" in done.exception.message


def _refuse(*_: object) -> Path:
    raise UserError("not now", "later")


def test_a_filing_that_was_cut_short_is_made_good(chain: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    fast = chain.submission("fast", 0.6)
    with monkeypatch.context() as later:
        later.setattr(campaigns, "file_record", _refuse)
        with pytest.raises(UserError, match="not now"):
            chain.submit(fast)
    runs = len(chain.runner.started)
    assert Path(chain.submit(fast)["record"]).name == "003-fast"
    assert len(chain.runner.started) == runs
    assert chain.problems() == []
