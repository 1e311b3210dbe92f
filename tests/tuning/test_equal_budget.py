"""A submission's best of K trials beside AdamW's best of K, on made-up trials."""

from __future__ import annotations

import itertools
import statistics
from pathlib import Path

import pytest

from harness.submission import load_submission
from harness.tuning.equal_budget import equal_budget, sentence
from harness.tuning.report import Report
from harness.tuning.trials import JUDGED, Job, Trial
from harness.tuning.tune import Tuning
from tests.tuning.test_report import copy_of_baseline

BASELINE_LOSSES = [3.30, 3.26, 3.25, 3.28, None, 3.27, 3.24, 3.29]
HALF = 0.5


def searched(folder: Path, losses: list[float | None], budget: float = 1.0, seed: int = 1) -> Tuning:
    """The tuning of a folder with a search of these losses added to it."""
    tuning = Tuning(load_submission(folder))
    first = len(tuning.table.trials)
    for number, loss in enumerate(losses, first):
        hparams = tuning.design.point({}, budget)
        status = JUDGED if loss is not None else "not-finite"
        tuning.table.add(Trial(Job("search", number, seed, hparams), loss, status, 90.0, f"run-{number}"))
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
    values = sorted(3.30 if loss is None else loss for loss in BASELINE_LOSSES)
    draws = [min(drawn) for drawn in itertools.combinations(values, 3)]
    assert found.expected == pytest.approx(statistics.mean(draws))
    assert (found.low, found.high) == (3.24, 3.28)  # of 56 draws 4 have a higher best, 3 of them 3.29 or more
    assert found.chance == pytest.approx(3 / 8)  # one of eight is as low
    assert found.difference == pytest.approx(3.245 - found.expected)
    text = sentence(found)
    assert "best of 3 trials (1 failed)" in text and "AdamW's best of 3, out of 8" in text


def test_a_rival_may_have_more_trials_than_the_baseline(baselines: Path, rival: Path) -> None:
    found = equal_budget(searched(rival, [3.3] * 100), baselines)
    assert found is not None and found.expected == found.low == found.high == 3.24 and found.chance == 1
    assert "AdamW's best of all its 8: 3.2400 expected" in sentence(found)


def test_the_baseline_s_best_of_fewer_trials_leads_up_to_it(baselines: Path, rival: Path) -> None:
    found = equal_budget(searched(rival, [3.27, 3.26, 3.25, 3.24]), baselines)
    assert found is not None and len(found.baseline_best) == 4
    values = [3.30 if loss is None else loss for loss in BASELINE_LOSSES]
    assert found.baseline_best[0].expected == pytest.approx(statistics.mean(values))
    means = [one.expected for one in found.baseline_best]
    assert means == sorted(means, reverse=True) and means[-1] == found.expected


def finished(tuning: Tuning, losses: dict[int, float | None]) -> Tuning:
    """With runs of the declared point as a finalist, by seed."""
    for seed, loss in losses.items():
        status, number = JUDGED if loss is not None else "not-finite", len(tuning.table.trials)
        job = Job("finalists", number, seed, tuning.design.point({}))
        tuning.table.add(Trial(job, loss, status, 90.0, f"run-{number}"))
    return tuning


def test_declared_points_are_paired_on_seeds_that_no_search_used(baselines: Path, rival: Path) -> None:
    finished(Tuning(load_submission(baselines / "gcide")), {11: 3.25, 12: 3.27, 13: 3.26})
    found = equal_budget(finished(searched(rival, [3.25]), {11: 3.20, 12: 3.24, 13: None, 14: 3.0}), baselines)
    assert found is not None and found.paired is not None
    assert found.paired.seeds == 2 and found.paired.difference == pytest.approx(-0.04)
    assert found.paired.standard_error == pytest.approx(0.01)
    assert "on 2 seeds that no search used: -0.0400 (standard error 0.0100)" in sentence(found)


def test_the_seed_of_the_search_is_no_fresh_one(baselines: Path, rival: Path) -> None:
    found = equal_budget(searched(rival, [3.25]), baselines)
    assert found is not None and found.paired is None
    assert "no seed in common" in sentence(found)


def test_searches_on_different_seeds_are_told(baselines: Path, rival: Path, tmp_path: Path) -> None:
    same = equal_budget(searched(rival, [3.25]), baselines)
    other = equal_budget(searched(copy_of_baseline(tmp_path / "other"), [3.25], seed=2), baselines)
    assert same is not None and "different seeds" not in sentence(same)
    assert other is not None and "ran on different seeds" in sentence(other)


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
