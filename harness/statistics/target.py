"""Does an arm reach the target: the group-sequential one-sided t-test on its losses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from harness.statistics.sequential import SequentialPlan
from harness.statistics.student import finite_array, mean_and_spread, one_sided_p, require_finite, require_not_negative

# A run that diverges or times out is left out of the mean; the second one fails the arm (MLPerf allows one as well).
FAILURES_ALLOWED = 1


@dataclass(frozen=True)
class TargetTest:
    """The state of the test after some runs. Losses in nats per token.

    runs: all that count, failed ones too. failed: diverged or timed out. mean, spread: of the losses there are.
    margin: target - mean. nominal_p: one-sided p of Student's t. p: corrected for the looks. reached: shown at this
    look. hopeless: past the futility bound of this look. Without two losses mean and the like are None and nothing is
    shown.
    """

    runs: int
    failed: int
    mean: float | None
    spread: float | None
    margin: float | None
    nominal_p: float
    p: float
    reached: bool
    hopeless: bool


def reaches_target(
    plan: SequentialPlan, losses: Sequence[float | None], target: float, spread_floor: float = 0.0
) -> TargetTest:
    """One-sided t-test of H0: mean loss >= `target`, at the nominal level of `plan`.

    `losses` in nats per token, one for every run, None for a run that diverged or timed out; `target` likewise.
    Assumes independent runs (a fresh seed each) whose losses are not strongly skewed to the right. Skewness is what
    breaks a t-test of few runs: a handful of losses that lie close together by luck looks certain. Therefore the
    arm's own spread is used, but taken for no less than `spread_floor` (nats). 0.7 of the task's calibrated standard
    deviation keeps the error below alpha even for exponential losses, where the arm is no noisier than the calibration.
    With more spread symmetric losses keep it, skewed ones do not: at 1.5 times the calibrated spread the error is 2%
    for a skewness of 1 and 4% for exponential losses (benchmarks/results/statistics_simulation.md).

    A second failed run means that the arm cannot reach the target. At a number of runs that is no look the same numbers
    are computed for display; only looks decide (`decide`). Source: Student's t with the bounds of `sequential`.
    Raises ValueError on a loss, target or floor that is not a number, or on no runs.
    """
    require_finite("target", target)
    require_not_negative("spread_floor", spread_floor)
    if not losses:
        raise ValueError("losses: at least one run is needed")
    judged = finite_array("losses", [loss for loss in losses if loss is not None], at_least=0)
    failed = len(losses) - len(judged)
    if len(judged) < 2:
        return TargetTest(len(losses), failed, None, None, None, 1.0, 1.0, False, failed > FAILURES_ALLOWED)
    mean, spread = mean_and_spread(judged)
    error = max(spread, spread_floor) / math.sqrt(len(judged))
    nominal_p = one_sided_p(target - mean, error, len(judged) - 1)
    within = failed <= FAILURES_ALLOWED
    return TargetTest(
        runs=len(losses), failed=failed, mean=mean, spread=spread, margin=target - mean,
        nominal_p=nominal_p, p=plan.corrected_p(nominal_p),
        reached=within and nominal_p <= plan.level,
        hopeless=not within or nominal_p > plan.futility_level(len(losses)),
    )  # fmt: skip
