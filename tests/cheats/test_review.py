"""Cheats that no single run betrays: flags for a person, beside other runs and the baseline's loss against tokens."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from harness import campaign, review
from harness.bundle import RunRecord
from harness.campaign import Request, run_once
from harness.checks.cheats import cheats
from harness.core import referee as referee_module
from harness.core.task import hardware_class
from harness.submission import load_submission
from tests.cheats.conftest import FAKE_LOSS, FOLDER
from tests.conftest import Toy

# A baseline that knows next to nothing after 2,000 tokens and what the honest table does after 20,000.
BAND = [(2_000, math.log(64) - 0.1), (20_000, 1.6)]


class Reviewed:
    """Runs cheats as `speedrun run` does, all in one runs folder, and gives the flags of the last one."""

    def __init__(self, toy: Toy, folder: Path) -> None:
        self._toy = toy
        self._folder = folder

    def run(self, name: str, **options: Any) -> RunRecord:
        submission = load_submission(FOLDER / name, self._toy.task)
        request = Request(submission, hardware_class("cpu-1thread"), self._toy.data_dir, self._folder, **options)
        record = run_once(request).record
        assert record.state == "JUDGED", record.message
        return record

    def flags(self, name: str, **options: Any) -> list[str]:
        return [flag["id"] for flag in self.run(name, **options).review]


@pytest.fixture
def reviewed(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reviewed:
    monkeypatch.setattr(campaign, "read_band", lambda task: BAND)
    monkeypatch.setattr(review, "OFF_CLOCK_SECONDS", 0.1)  # a cheat of seconds would make the suite slow
    return Reviewed(toy, tmp_path / "runs")


@pytest.fixture
def unjudged(monkeypatch: pytest.MonkeyPatch) -> None:
    """For what shows in the log alone."""
    judgement = {"val_loss": FAKE_LOSS + math.log(64), "bits_per_byte": 1.0}
    monkeypatch.setattr(referee_module, "ask_judge", lambda *_: judgement)


@pytest.mark.usefixtures("unjudged")
def test_one_run_under_two_seeds_is_flagged(reviewed: Reviewed) -> None:
    assert reviewed.flags("repeats_one_run", seed=1) == []
    assert reviewed.flags("repeats_one_run", seed=2) == [cheats()["repeats_one_run"].ends]


@pytest.mark.usefixtures("unjudged")
def test_a_method_that_changes_nothing_is_flagged_when_it_is_dropped(reviewed: Reviewed) -> None:
    name = "claims_a_method_that_does_nothing"
    assert reviewed.flags(name, seed=1) == []
    assert reviewed.flags(name, seed=1, dropped=["smoothing"]) == [cheats()[name].ends]


def test_tokens_that_were_not_counted_are_flagged(reviewed: Reviewed) -> None:
    assert reviewed.flags("hides_its_tokens") == [cheats()["hides_its_tokens"].ends]


def test_training_off_the_clock_that_both_hosts_do_alike_is_flagged(reviewed: Reviewed) -> None:
    """The audit cannot see it: no answer depends on anything but the past and the weights."""
    record = reviewed.run("hides_the_corpus_in_its_weights")
    assert record.val_loss is not None and record.val_loss < math.log(64) - 1
    assert cheats()["hides_the_corpus_in_its_weights"].ends in [flag["id"] for flag in record.review]


def test_what_was_known_before_the_run_is_flagged_and_judged(reviewed: Reviewed) -> None:
    record = reviewed.run("knows_the_task_by_heart")
    assert record.tokens == 0
    assert record.val_loss is not None and record.val_loss < math.log(64) - 1
    assert [flag["id"] for flag in record.review] == ["beyond-its-tokens"]
    assert cheats()["knows_the_task_by_heart"].status == "recorded"


def test_an_honest_run_is_not_flagged(reviewed: Reviewed) -> None:
    assert reviewed.flags("honest_bigram") == []
