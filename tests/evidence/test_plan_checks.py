"""What those who race may not choose, though plan and runs would agree with one another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.evidence.plan_checks import plan_problems
from harness.evidence.plans import BaselineCampaign, RaceCampaign
from harness.evidence.race import plan_baseline, plan_repetition
from harness.evidence.sides import Side
from harness.paths import BASELINES
from harness.submission import load_submission
from tests.conftest import Toy
from tests.evidence.fake import MACHINE, NOW, calibration, new_race, sides


@pytest.fixture
def plan(toy: Toy, tmp_path: Path) -> RaceCampaign:
    return new_race(toy, tmp_path)[0].plan


def test_plans_as_they_are_made_are_in_order(toy: Toy, plan: RaceCampaign, tmp_path: Path) -> None:
    side = sides(toy, tmp_path / "more")[1]
    baseline = plan_baseline(side, "cpu-1thread", calibration(), MACHINE, NOW)
    repetition = plan_repetition(side, "cpu-1thread", 3, calibration(), MACHINE, NOW)
    assert plan_problems(plan, repetition=False) == plan_problems(baseline, repetition=False) == []
    assert plan_problems(plan, repetition=True) == plan_problems(repetition, repetition=True) == []
    older = plan.model_copy(update={"deciding": replace(plan.deciding, time_ratio_spread=None)})
    assert plan_problems(older, repetition=False) == []


def deciding(**changes: Any) -> Callable[[RaceCampaign], dict[str, Any]]:
    return lambda plan: {"deciding": replace(plan.deciding, **changes)}


def reordered(plan: RaceCampaign) -> dict[str, Any]:
    """Always A B."""
    first, second, third, fourth, *others = plan.schedule
    return {"schedule": [first, second, fourth, third, *others]}


def one_seed_twice(plan: RaceCampaign) -> dict[str, Any]:
    seed = plan.schedule[0].seed
    return {
        "schedule": [run.model_copy(update={"seed": seed if run.block == 1 else run.seed}) for run in plan.schedule]
    }


def a_seed_for_each_arm(plan: RaceCampaign) -> dict[str, Any]:
    first, *others = plan.schedule
    return {"schedule": [first.model_copy(update={"seed": first.seed + 1}), *others]}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (deciding(minimum_ratio=0.99), "deciding: minimum_ratio"),
        (deciding(loss_spread=0.0), "deciding: loss_spread"),
        (deciding(log_ratio_spread=0.0), "deciding: log_ratio_spread"),
        (deciding(time_ratio_spread=0.0), "deciding: time_ratio_spread"),
        (lambda plan: {"deciding": replace(plan.deciding, sequence=replace(plan.deciding.sequence, level=0.2))},
         "deciding: sequence"),
        (reordered, "the order A B B A"),
        (one_seed_twice, "one seed, which no other has"),
        (a_seed_for_each_arm, "one seed, which no other has"),
    ],
)  # fmt: skip
def test_what_no_race_has_is_found(
    plan: RaceCampaign, changed: Callable[[RaceCampaign], dict[str, Any]], said: str
) -> None:
    other = plan.model_copy(update=changed(plan))
    other.__dict__.pop("blocks", None)  # they follow from the schedule, and were copied
    (problem,) = plan_problems(other, repetition=False)
    assert said in problem


def test_a_first_record_takes_its_ten_runs(toy: Toy, tmp_path: Path) -> None:
    baseline = plan_baseline(sides(toy, tmp_path)[1], "cpu-1thread", calibration(), MACHINE, NOW)
    lenient = baseline.model_copy(update={"least_runs": 1})
    assert plan_problems(lenient, repetition=False) == ["least_runs: must be 10"]


def test_a_repetition_is_no_attempt(toy: Toy, tmp_path: Path) -> None:
    repetition = plan_repetition(sides(toy, tmp_path)[1], "cpu-1thread", 3, calibration(), MACHINE, NOW)
    assert isinstance(repetition, BaselineCampaign)
    (problem,) = plan_problems(repetition, repetition=False)
    assert "maximum: must be one of" in problem


def test_the_target_is_that_of_the_task() -> None:
    side = Side("baseline", load_submission(BASELINES / "adamw" / "gcide"))
    plan = plan_baseline(side, "cpu-1thread", calibration(task="gcide"), MACHINE, NOW)
    assert plan_problems(plan, repetition=False) == []
    easier = plan.model_copy(update={"target": plan.target + 0.1})
    assert plan_problems(easier, repetition=False) == ["task_digest, target: not those of the task gcide"]
