"""revert: a record without a method, or with one it had lost, raced for the next record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from harness.checks import statements
from harness.cli.main import app
from harness.core.task import hardware_class
from harness.dropping import source_without
from harness.errors import UserError
from harness.evidence import reverts
from harness.evidence.records import history, load_record
from harness.paths import SUBMISSIONS
from harness.submission import load_submission
from leaderboard import export, frames, site, store
from tests.conftest import Toy
from tests.evidence.board import Board
from tests.evidence.fake import FakeRunner, Given
from tests.evidence.loaded import FakeCounter, file_loaded
from tests.toy_submission import MANIFEST, SCRIPT, write_submission
from tests.tuning.fake_workers import FakeWorkers
from tests.tuning.test_retune import scripted

FIRST, SECOND = "toy/cpu-1thread/001", "toy/cpu-1thread/002"


@pytest.fixture
def loaded(board: Board, monkeypatch: pytest.MonkeyPatch) -> Board:
    """A board with one record of two methods; nothing is run, neither to count nor to compare."""
    monkeypatch.setattr(statements, "Counter", FakeCounter)
    monkeypatch.setattr(reverts, "same_training", lambda *_: "")
    monkeypatch.setattr(reverts, "newly_asked", lambda *_: [])
    file_loaded(board)
    return board


def revert(board: Board, *arguments: object) -> dict[str, Any]:
    done = board.invoke("revert", *arguments, "--into", board.folder / "made", "--json")
    if isinstance(done.exception, UserError):
        raise done.exception
    assert done.exit_code == 0, done.exception
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def test_a_harmful_method_goes_and_its_code_with_it(loaded: Board) -> None:
    said = revert(loaded, FIRST, "--drop", "ballast")
    assert (said["verdict"], said["ratio"]) == ("record", pytest.approx(1.25, abs=0.01))
    _, second = history(loaded.where)
    record = load_record(second)
    assert (record.methods_added, record.methods_dropped, list(record.methods)) == ([], ["ballast"], ["momentum"])
    assert record.title == "loaded without ballast"
    source = (second / "submission" / "train.py").read_text()
    assert "carry" not in source and "ballast" not in source and 'run.uses("momentum")' in source
    manifest = (second / "submission" / "submission.toml").read_text()
    assert "stones" not in manifest and 'parent = "toy/cpu-1thread/001-loaded"' in manifest
    notes = (second / "notes.md").read_text()
    assert "- dropped `ballast`: Carries stones. (systems; nobody)" in notes
    assert "- hyperparameter `stones`: 3 before, not there now" in notes
    assert "the record without `ballast` takes 1/1.2" in notes
    assert "$ speedrun verify toy/cpu-1thread/002-loaded-without-ballast" in notes
    assert loaded.problems() == []


def test_the_notes_list_what_else_was_raced_against_the_parent(loaded: Board) -> None:
    lost = revert(loaded, FIRST, "--drop", "momentum")
    revert(loaded, FIRST, "--drop", "ballast")
    notes = (history(loaded.where)[1] / "notes.md").read_text()
    assert "Other attempts against `toy/cpu-1thread/001-loaded`:" in notes
    assert "- loaded without momentum: slower, 0." in notes
    assert f"(`attempts/{Path(lost['folder']).name}`)" in notes


def test_a_useful_method_stays_and_the_attempt_is_kept(loaded: Board) -> None:
    said = revert(loaded, FIRST, "--drop", "momentum")
    assert (said["verdict"], said["record"]) == ("slower", None)
    assert Path(said["folder"]).parent.name == "attempts"
    assert len(history(loaded.where)) == 1
    with pytest.raises(UserError, match="has been decided: slower"):
        revert(loaded, FIRST, "--drop", "momentum")
    assert loaded.problems() == []


def test_a_method_that_was_lost_can_be_taken_in_again(loaded: Board) -> None:
    revert(loaded, FIRST, "--drop", "ballast")
    said = revert(loaded, SECOND, "--add", "ballast", "--from", FIRST)
    assert said["verdict"] == "slower"
    made = loaded.folder / "made" / "loaded-without-ballast-with-ballast"
    assert "carry(model" in (made / "train.py").read_text()
    assert 'parent = "toy/cpu-1thread/002-loaded-without-ballast"' in (made / "submission.toml").read_text()


def test_what_is_left_is_retuned_once(loaded: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    workers, usual = FakeWorkers(monkeypatch, scripted), loaded.runner.outcome
    loaded.runner = FakeRunner(lambda request: Given("interrupted") if request.facts["number"] == 2 else usual(request))
    words = ("revert", FIRST, "--drop", "ballast", "--trials", 16, "--tune", "lr", "--into", loaded.folder / "made")
    assert loaded.invoke(*words).exit_code == 130
    trials = len(workers.orders)
    assert trials > 16
    loaded.runner = FakeRunner(usual)
    done = loaded.invoke(*words)
    assert done.exit_code == 0, done.exception
    assert len(workers.orders) == trials
    assert "ballast: dropped by the new record" in done.stdout
    other = loaded.invoke(*words[:4], "--trials", 17, *words[6:])
    assert isinstance(other.exception, UserError) and "is retuned with --trials 16 --tune lr" in other.exception.message
    second = history(loaded.where)[1]
    notes = (second / "notes.md").read_text()
    assert "- hyperparameter `steps`: 30 before, " in notes and "- hyperparameter `lr`: 50.0 before, " in notes
    assert not (second / "submission" / "tuning").exists()
    assert loaded.problems() == []


def test_a_candidate_that_trains_otherwise_is_not_raced(loaded: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reverts, "same_training", lambda *_: "a few steps end at other weights")
    runs = len(loaded.runner.started)
    with pytest.raises(UserError, match="does not train as with --drop: a few steps"):
        revert(loaded, FIRST, "--drop", "ballast")
    assert len(loaded.runner.started) == runs
    assert not (loaded.folder / "made" / "loaded-without-ballast").exists()


def test_a_candidate_that_somebody_edited_is_not_taken_for_the_revert(loaded: Board) -> None:
    revert(loaded, FIRST, "--drop", "ballast")
    script = loaded.folder / "made" / "loaded-without-ballast" / "train.py"
    script.write_text(script.read_text().replace("std=0.01", "std=0.02"))
    with pytest.raises(UserError, match="its source was changed"):
        revert(loaded, FIRST, "--drop", "ballast")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((FIRST, "--drop", "muon"), "no [methods.muon]"),
        ((FIRST, "--drop", "ballast, muon"), "no [methods.muon]"),
        ((FIRST, "--add", "momentum", "--from", FIRST), "has momentum already"),
        (("toy/cpu-1thread/007", "--drop", "momentum"), "no such record"),
        ((FIRST, "--drop", "ballast", "--trials", "3"), "--trials 3: too few"),
        ((FIRST, "--drop", "ballast", "--trials", "16", "--tune", "steps"), "steps cannot be varied"),
    ],
)
def test_what_the_user_can_fix(loaded: Board, arguments: tuple[str, ...], said: str) -> None:
    with pytest.raises(UserError) as raised:
        revert(loaded, *arguments)
    assert said in raised.value.message


def test_a_toggle_that_is_an_argument_is_named() -> None:
    template = load_submission(SUBMISSIONS / "_template")
    left = reverts.constants_left(template.files, source_without(template, ["smear"]))
    (place,) = [
        number
        for number, line in enumerate(template.files["train.py"].decode().splitlines(), start=1)
        if 'run.uses("smear")' in line
    ]
    assert left == [f"train.py, line {place}"]
    muon = load_submission(SUBMISSIONS / "fineweb-muon")
    assert reverts.constants_left(muon.files, source_without(muon, ["muon"])) == []


def test_a_short_parent_is_of_the_lineage_whatever_the_slug(loaded: Board) -> None:
    revert(loaded, FIRST, "--drop", "ballast")  # its slug: loaded-without-ballast
    manifest = {'authors = ["tests"]': f'authors = ["tests"]\nparent = "{SECOND}"'}
    source = load_submission(loaded.submission("descendant", 1.0, **manifest), loaded.toy.task)
    reverts.require_lineage(source, ["momentum"], loaded.where)


def test_what_only_the_candidate_asks_for_is_found_by_a_dry_run(toy: Toy, tmp_path: Path) -> None:
    parent = load_submission(write_submission(tmp_path / "parent"), toy.task)
    script = SCRIPT.replace('lr=run.hparam("lr")', 'lr=run.hparam("lr"), weight_decay=run.hparam("decay")')
    manifest = MANIFEST + "\n[hparams.decay]\ndefault = 0.1\nlow = 0.0\nhigh = 1.0\n"
    candidate = load_submission(write_submission(tmp_path / "candidate", script, manifest), toy.task)
    assert reverts.newly_asked(candidate, parent, hardware_class("cpu-1thread")) == ["decay"]


def test_a_foreign_submission_lends_no_method(loaded: Board) -> None:
    revert(loaded, FIRST, "--drop", "ballast")
    foreign = loaded.submission("foreign", 1.0)
    with pytest.raises(UserError, match="names none as its parent"):
        revert(loaded, SECOND, "--add", "ballast", "--from", foreign)


@pytest.mark.parametrize(
    "arguments",
    [(FIRST,), (FIRST, "--drop", "a", "--add", "b"), (FIRST, "--add", "b"), (FIRST, "--drop", "a", "--tune", "lr")],
)
def test_usage(loaded: Board, arguments: tuple[str, ...]) -> None:
    assert loaded.invoke("revert", *arguments).exit_code == 2


def test_the_board_reads_ablations_and_reverts(loaded: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    assert loaded.invoke("ablate", FIRST).exit_code == 0
    revert(loaded, FIRST, "--drop", "momentum")
    revert(loaded, FIRST, "--drop", "ballast")
    written = loaded.folder / "leaderboard.json"
    written.write_text(export.dumped(export.contents(frames.every(loaded.where.records))))
    monkeypatch.setattr(store.load, "__defaults__", (written,))
    place = ("--task", "toy")

    def shown(*arguments: str) -> Any:
        done = CliRunner().invoke(app, ["methods", *arguments, *place])
        assert done.exit_code == 0, done.exception
        return done.stdout

    table = json.loads(shown("ballast", "--json"))
    (ballast,) = table["methods"]
    assert (ballast["summary"], ballast["source"], ballast["kind"]) == ("Carries stones.", "nobody", "systems")
    assert (ballast["introduced"]["record"], ballast["dropped"]["record"]) == (1, 2)
    assert [row["word"] for row in table["ablations"]] == ["harmful"]
    assert [row["verdict"] for row in table["attempts_without_it"]] == ["record"]
    page = shown("momentum")
    assert "Heavy-ball momentum. (Polyak, 1964)" in page
    assert "in toy/cpu-1thread/001: needed, 1.2" in page and "3 lines" in page
    assert "loaded without momentum: slower, 0." in page
    picture = loaded.folder / "costs.svg"
    costs = shown("--costs", "--svg", str(picture))
    assert "needed" in costs and "harmful" in costs
    drawn = ElementTree.parse(picture).getroot()
    assert drawn.tag.endswith("svg") and len(list(drawn.iter("{http://www.w3.org/2000/svg}circle"))) == 2
    ablations = frames.ablations(loaded.where.records)
    ablations.index = ablations.methods.map(" ".join)
    assert ablations.lines.to_dict() == {"ballast": 3, "momentum": 3}
    assert ablations.ratio_low.momentum > 1 > ablations.ratio_high.ballast
    site.build(loaded.folder / "site", site.read(loaded.where.records))
    assert "harmful" in (loaded.folder / "site" / "toy-cpu-1thread" / "methods" / "ballast.html").read_text()
