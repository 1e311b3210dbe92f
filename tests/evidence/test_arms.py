"""What words name: folders, names, the baseline, records; errors that say what exists."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.core.task import load_task
from harness.errors import UserError
from harness.evidence.arms import sides_of_race, submission_folder
from harness.evidence.records import reigning
from harness.evidence.sides import Side, Where
from harness.paths import BASELINES, SUBMISSIONS
from harness.submission import load_submission
from tests.conftest import Toy
from tests.evidence.board import Board
from tests.toy_submission import write_submission

HERE = Where("gcide", "cpu-1thread")


@pytest.fixture
def records(tmp_path: Path) -> Path:
    """Three records of gcide, two of them with one number."""
    for name in ("001-adamw", "002-muon", "002-lion", "010-muon"):
        folder = tmp_path / "records" / "gcide" / "cpu-1thread" / name
        write_submission(folder / "submission")
        (folder / "record.json").write_text(json.dumps({}))
    return tmp_path / "records"


def test_words_name_folders(records: Path, tmp_path: Path) -> None:
    where = Where("gcide", "cpu-1thread", records)
    own = write_submission(tmp_path / "own")
    class_folder = records / "gcide" / "cpu-1thread"
    assert submission_folder("baseline", where) == BASELINES / "adamw" / "gcide"
    assert submission_folder("gcide/cpu-1thread/001", where) == class_folder / "001-adamw" / "submission"
    assert submission_folder("gcide/cpu-1thread/001-adamw", where) == class_folder / "001-adamw" / "submission"
    assert submission_folder(str(class_folder / "002-lion"), where) == class_folder / "002-lion" / "submission"
    assert submission_folder(str(own), where) == own
    assert submission_folder("_template", where) == SUBMISSIONS / "_template"


def test_best_is_the_reigning(chain: Board) -> None:
    folder = chain.where.records / "toy" / "cpu-1thread" / "002-my-muon"
    assert reigning(chain.where) == folder
    assert submission_folder("best", chain.where) == folder / "submission"


@pytest.mark.parametrize(
    ("word", "said", "exists"),
    [
        ("nothing", "nothing: no such submission", "_template"),
        ("gcide/cpu-1thread/009", "gcide/cpu-1thread/009: no such record", "001-adamw, 002-lion, 002-muon, 010-muon"),
        ("gcide/cpu-1thread/002", "several records have this number", "002-lion"),
        ("gcide/1xH100/001", "no such record", "none yet"),
        ("\x1b[2J", "no such submission", "baseline"),
    ],
)
def test_errors_name_the_word_and_what_exists(records: Path, word: str, said: str, exists: str) -> None:
    with pytest.raises(UserError) as raised:
        submission_folder(word, Where("gcide", "cpu-1thread", records))
    assert said in raised.value.message
    assert exists in raised.value.remedy


def test_a_task_without_records_or_baseline_says_so() -> None:
    with pytest.raises(UserError, match="there is no record yet for gcide on 1xH999"):
        submission_folder("best", Where("gcide", "1xH999"))
    with pytest.raises(UserError, match="the task chess has no baseline") as raised:
        submission_folder("baseline", Where("chess", "cpu-1thread"))
    assert "gcide" in raised.value.remedy


def test_a_side_knows_its_names(toy: Toy, tmp_path: Path) -> None:
    submission = load_submission(write_submission(tmp_path / "own"), toy.task)
    assert Side("own", submission, ("momentum",), ("lr=3",)).name == "own"
    with pytest.raises(UserError, match="methods.muon"):
        Side("own", submission, ("muon",))
    with pytest.raises(UserError, match="--set lr"):
        Side("own", submission, (), ("lr=fast",))


def test_changes_belong_to_their_side(toy: Toy, tmp_path: Path) -> None:
    own = str(write_submission(tmp_path / "own"))
    candidate, reference = sides_of_race(
        (own, own), toy.task, HERE, (["momentum"], []), ([], ["lr=2", "steps=4"])
    )  # fmt: skip
    assert (candidate.dropped, candidate.settings) == (("momentum",), ())
    assert (reference.dropped, reference.settings) == ((), ("lr=2", "steps=4"))


def test_a_relative_word_means_the_task_of_the_other_arm(tmp_path: Path) -> None:
    candidate, reference = sides_of_race(("_template", "baseline"), None, HERE)
    assert reference.submission.task.name == candidate.submission.task.name == "gcide"
    with pytest.raises(UserError, match="no record yet for gcide"):
        sides_of_race(("_template", "best"), None, Where("other", "cpu-1thread", tmp_path))


def test_arms_of_two_tasks_do_not_race(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = write_submission(tmp_path / "own")
    monkeypatch.setattr("harness.submission.load_task", lambda name: toy.task if name == "toy" else load_task(name))
    with pytest.raises(UserError, match="is for the task toy, _template for gcide"):
        sides_of_race((str(own), "_template"), None, HERE)
