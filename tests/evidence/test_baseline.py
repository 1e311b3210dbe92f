"""The first record of a task and class: at least ten judged runs that reach the target."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.campaign import Request
from harness.evidence.folder import create_campaign, read_campaign
from harness.evidence.plans import CANDIDATE
from harness.evidence.race import plan_baseline, settled_after
from harness.evidence.series import Places, carry_on
from harness.evidence.sides import Side
from harness.evidence.verdict import CampaignVerdict, verdict_of
from harness.statistics import Verdict
from harness.submission import load_submission
from tests.conftest import Toy
from tests.evidence.fake import MACHINE, NOW, FakeRunner, Given, calibration
from tests.toy_submission import write_submission


def verdict(toy: Toy, folder: Path, outcome: Callable[[Request], Given]) -> CampaignVerdict:
    submission = load_submission(write_submission(folder / "bigram"), toy.task)
    plan = plan_baseline(Side("x", submission), "cpu-1thread", calibration(), MACHINE, NOW)
    (folder / "runs").mkdir()
    made = create_campaign(folder / "runs" / "campaigns", plan, {CANDIDATE: submission})
    carry_on(made, Places(toy.data_dir, folder / "runs"), FakeRunner(outcome), settled_after(plan))
    found = verdict_of(read_campaign(made.folder))
    assert found is not None
    return found


def around(mean: float) -> Callable[[Request], Given]:
    return lambda request: Given(None, mean + random.Random(request.seed).gauss(0, 0.005))


def test_a_baseline_well_below_the_target_is_a_record_after_twelve_runs(toy: Toy, tmp_path: Path) -> None:
    found = verdict(toy, tmp_path, around(3.85))
    assert (found.verdict, found.pairs, found.final) == (Verdict.RECORD, 12, True)
    assert found.equal_loss is None and found.arms.keys() == {CANDIDATE}
    assert found.p_target <= 0.01


def test_a_baseline_above_the_target_stops_early(toy: Toy, tmp_path: Path) -> None:
    found = verdict(toy, tmp_path, around(3.95))
    assert (found.verdict, found.pairs, found.final) == (Verdict.MISSES_TARGET, 4, False)


def test_a_baseline_that_fails_twice_misses(toy: Toy, tmp_path: Path) -> None:
    found = verdict(toy, tmp_path, lambda request: Given("timeout"))
    assert (found.verdict, found.pairs) == (Verdict.MISSES_TARGET, 2)


@pytest.mark.parametrize("reason", ["audit-failed", "too-many-cores"])
def test_a_baseline_that_breaks_a_rule_is_invalid(toy: Toy, tmp_path: Path, reason: str) -> None:
    assert verdict(toy, tmp_path, lambda request: Given(reason)).verdict is Verdict.INVALID
