"""A submission's best of K trials beside AdamW's best of K, on made-up trials."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.submission import load_submission
from harness.tuning.analysis import expected_best
from harness.tuning.equal_budget import equal_budget, sentence
from harness.tuning.report import Report
from harness.tuning.trials import JUDGED, Job, Trial
from harness.tuning.tune import Tuning
from tests.tuning.test_report import copy_of_baseline

BASELINE_LOSSES = [3.30, 3.26, 3.25, 3.28, None, 3.27, 3.24, 3.29]
HALF = 0.5


def searched(folder: Path, losses: list[float | None], budget: float = 1.0) -> Tuning:
    """The tuning of a folder with a search of these losses added to it."""
    tuning = Tuning(load_submission(folder))
    first = len(tuning.table.trials)
    for number, loss in enumerate(losses, first):
        hparams = tuning.design.point({}, budget)
        status = JUDGED if loss is not None else "not-finite"
        tuning.table.add(Trial(Job("search", number, number, hparams), loss, status, 90.0, f"run-{number}"))
    return tuning


@pytest.fixture
def baselines(tmp_path: Path) -> Path:
    searched(copy_of_baseline(tmp_path / "adamw" / "gcide"), BASELINE_LOSSES)
    return tmp_path / "adamw"


@pytest.fixture
def rival(tmp_path: Path) -> Path:
    """The baseline's source under another name, without trials."""
    return copy_of_baseline(tmp_path / "rival")


def test_as_many_draws_as_the_rival_had_trials_are_compared(baselines: Path, rival: Path) -> None:
    found = equal_budget(searched(rival, [3.27, None, 3.245]), baselines)
    assert found is not None
    assert (found.trials, found.failed, found.best, found.baseline_trials) == (3, 1, 3.245, 8)
    assert found.expected == pytest.approx(expected_best(BASELINE_LOSSES).expected[2])
    assert (found.low, found.high) == (3.24, 3.29)  # of three draws 94.7% are at most 3.28
    assert found.chance == pytest.approx(1 - (7 / 8) ** 3)  # one of eight is as low
    assert found.difference == pytest.approx(3.245 - found.expected)
    text = sentence(found)
    assert "best of 3 trials (1 failed)" in text and "AdamW's best of 3, out of 8" in text


def test_a_rival_may_have_more_trials_than_the_baseline(baselines: Path, rival: Path) -> None:
    found = equal_budget(searched(rival, [3.3] * 100), baselines)
    assert found is not None and found.expected == pytest.approx(3.24, abs=1e-3) and found.chance == pytest.approx(1)


def test_only_trials_of_as_many_tokens_count(baselines: Path, rival: Path) -> None:
    assert equal_budget(searched(rival, [3.0, 3.1], budget=HALF), baselines) is None
    found = equal_budget(searched(rival, [3.25]), baselines)
    assert found is not None and (found.trials, found.best, found.chance) == (1, 3.25, 2 / 8)


def test_there_is_nothing_to_compare_without_trials_on_both_sides(baselines: Path, rival: Path, tmp_path: Path) -> None:
    assert equal_budget(Tuning(load_submission(rival)), baselines) is None
    assert equal_budget(searched(rival, [None]), baselines) is None
    bare = copy_of_baseline(tmp_path / "bare" / "gcide")
    assert equal_budget(searched(rival, [3.2]), bare.parent) is None
    assert equal_budget(searched(rival, [3.2]), tmp_path / "nothing") is None


def test_a_baseline_is_not_compared_with_itself(baselines: Path) -> None:
    assert equal_budget(Tuning(load_submission(baselines / "gcide")), baselines) is None


def test_the_report_of_a_rival_gives_the_comparison(
    rival: Path, monkeypatch: pytest.MonkeyPatch, baselines: Path
) -> None:
    monkeypatch.setattr("harness.tuning.equal_budget.BASELINES", baselines.parent)
    text = Report(searched(rival, [3.2])).text()
    assert "## Beside AdamW at an equal budget" in text and "AdamW's best of 1" in text
    assert "Beside AdamW" not in Report(Tuning(load_submission(baselines / "gcide"))).text()
