"""The verdict: what a race says after the pairs so far. Pure, so that a record's verdict can be computed again.

`record` claims three things, each at one-sided error 0.01 over all looks: the candidate reaches the target; it is
faster than the reference at equal loss by more than the minimum ratio; and it is faster in plain time, as whoever
trains longer may buy the second where s is too small for the losses that the two have. (Whoever trains shorter buys
both where s is too large: a few percent, as far as the margin below the target reaches.) All must hold at the same
look, so the chance of a false record is at most 0.01 (intersection-union test: Berger, Technometrics 24, 1982). The
error of the first is larger where losses are skewed and spread more than the calibrated ones: see `reaches_target`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from harness.statistics.ratio import (
    Interval,
    Pair,
    RatioEstimate,
    Slope,
    Split,
    bootstrap_interval,
    complete_pairs,
    estimate_ratio,
    plain_ratio,
    split_ratio,
)
from harness.statistics.sequential import SequentialPlan, sequential_plan
from harness.statistics.student import one_sided_p, require_not_negative, require_positive
from harness.statistics.target import FAILURES_ALLOWED, TargetTest, reaches_target

# What the lower limit of a record's ratio must exceed; smaller gains would fill the chain with noise.
CPU_MINIMUM_RATIO = 1.01
GPU_MINIMUM_RATIO = 1.002
# Of the calibrated spread; chosen in benchmarks/results/statistics_simulation.md for arms no noisier than that.
SPREAD_FLOOR = 0.7
# Nats per token. The judge adds up the batches in an order drawn anew for each run, so that the same weights have
# losses that differ by some 1e-15; two runs that differ in one weight are many orders of magnitude further apart.
SAME_LOSS = 1e-9


class Verdict(StrEnum):
    """The words of the board. For `invalid` the reason stands beside it."""

    RECORD = "record"
    NOT_PROVEN = "valid, not proven faster"
    SLOWER = "slower"
    MISSES_TARGET = "misses target"
    INVALID = "invalid"


class Stop(StrEnum):
    """Why a race stops."""

    PROVEN = "proven"
    FUTILITY = "futility"
    MAXIMUM = "maximum"
    FAILED_RUNS = "failed runs"


@dataclass(frozen=True)
class RacePlan:
    """What decides a race, fixed before its first run.

    minimum_ratio: what the lower limit of the ratio must exceed. loss_spread (nats per token) and log_ratio_spread (log
    units): the calibrated standard deviations between runs and between pairs; the spreads of a race are taken for no
    less than 0.7 of them. 0 where nothing is calibrated. time_ratio_spread: that between pairs whose two losses are the
    same (within `same_loss`, nats per token), of the clock alone; None where it is not known. plain_time: whether a
    record must be faster in plain time too; plans of before 2026-12-02 may not ask for it.
    """

    minimum_ratio: float
    sequence: SequentialPlan = field(default_factory=sequential_plan)
    loss_spread: float = 0.0
    log_ratio_spread: float = 0.0
    time_ratio_spread: float | None = None
    same_loss: float = SAME_LOSS
    plain_time: bool = False

    def __post_init__(self) -> None:
        require_positive("minimum_ratio", self.minimum_ratio)
        require_not_negative("loss_spread", self.loss_spread)
        require_not_negative("log_ratio_spread", self.log_ratio_spread)
        require_not_negative("time_ratio_spread", self.time_ratio_spread or 0.0)
        require_not_negative("same_loss", self.same_loss)

    def spread_floor(self, pairs: Sequence[Pair]) -> float:
        """The least spread of the pairs' log-ratios to believe, in log units.

        Both runs of a pair share a seed, so a change of the system alone leaves every loss as it was, and only the
        clock is noisy. Where a single pair differs in its losses, the whole calibrated spread counts.
        """
        differences = [abs(reference.loss - candidate.loss) for reference, candidate in complete_pairs(pairs)]
        same = all(difference <= self.same_loss for difference in differences)
        spread = self.time_ratio_spread if same and self.time_ratio_spread is not None else self.log_ratio_spread
        return SPREAD_FLOOR * spread


@dataclass(frozen=True)
class Faster:
    """How fast the candidate is at equal loss.

    interval: limits one-sided at the nominal level, so that either holds at 99% over all looks. plain: the same of the
    ratio of plain times, None where the plan does not ask for it. proven: low limit above the minimum ratio, and that
    of plain times above 1. slower: high limit below 1. hopeless: past the futility bound of this look, or slower in
    plain time. bootstrap: the check, None below 6 complete pairs; bootstrap_disagrees: `proven`, but the bootstrap
    would not say so.
    """

    estimate: RatioEstimate
    interval: Interval
    plain: Interval | None
    proven: bool
    slower: bool
    hopeless: bool
    bootstrap: Interval | None
    bootstrap_disagrees: bool
    split: Split


@dataclass(frozen=True)
class Decision:
    """What the pairs so far say.

    verdict: None while the race goes on. stop: why it ended. reason: for failed runs, in words. pairs: done so far.
    next_look: pairs at the next look, None at the maximum. looks_left: looks after the present number of pairs.
    final: the test has ended; a futility stop is not final, its test may be continued. target and faster:
    the numbers, also between looks, for display; None before there are two complete pairs.
    """

    verdict: Verdict | None
    stop: Stop | None
    reason: str
    pairs: int
    next_look: int | None
    looks_left: int
    final: bool
    target: TargetTest | None
    faster: Faster | None


def decide(plan: RacePlan, pairs: Sequence[Pair], target: float, slope: Slope) -> Decision:
    """The state of a race after `pairs`, in the order they were run; `target` in nats per token.

    Stops at a look when: both claims are proven (`record`); the target is out of reach (`misses target`); the
    candidate is proven slower (`slower`), whether or not it reaches the target; or faster is out of reach and the
    target is reached (`valid, not proven faster`). Stops at once when a second run of an arm failed: the candidate
    then `misses target`, a race against a reference that fails is `invalid`. At the maximum every question is
    settled. Only the present look counts: a claim shown earlier and lost since is not kept. Raises ValueError when
    there are more pairs than the maximum, or s may be zero.
    """
    return _decide(plan, pairs, target, slope, _settle)


def decide_difference(plan: RacePlan, pairs: Sequence[Pair], target: float, slope: Slope) -> Decision:
    """As `decide`, but the question is whether the arms differ, in either direction: what an ablation asks.

    Stops at a look when the interval of the ratio does not hold 1 (`proven`), at the maximum, and at once when a second
    run of an arm failed. The target stops nothing: the ratio is at equal loss. The verdict is then what the pairs
    say about the candidate as a submission. Each direction has the one-sided error 0.01 over all looks.
    """
    return _decide(plan, pairs, target, slope, _settle_difference)


_Settled = tuple[Verdict | None, Stop | None, str]  # verdict, why it stops, the reason in words


def _decide(
    plan: RacePlan,
    pairs: Sequence[Pair],
    target: float,
    slope: Slope,
    settle: Callable[[RacePlan, Sequence[Pair], TargetTest | None, Faster | None], _Settled],
) -> Decision:
    sequence = plan.sequence
    if len(pairs) > sequence.maximum:
        raise ValueError(f"pairs: the plan ends at {sequence.maximum}, not {len(pairs)}")
    reached = None
    if pairs:
        losses = [None if pair.candidate is None else pair.candidate.loss for pair in pairs]
        reached = reaches_target(sequence, losses, target, SPREAD_FLOOR * plan.loss_spread)
    faster = _faster(plan, pairs, slope) if len(complete_pairs(pairs)) >= 2 else None
    verdict, stop, reason = settle(plan, pairs, reached, faster)
    return Decision(
        verdict=verdict, stop=stop, reason=reason, pairs=len(pairs), next_look=sequence.next_look(len(pairs)),
        looks_left=sum(look > len(pairs) for look in sequence.looks),
        final=verdict is not None and stop is not Stop.FUTILITY, target=reached, faster=faster,
    )  # fmt: skip


def _faster(plan: RacePlan, pairs: Sequence[Pair], slope: Slope) -> Faster:
    """Interval, check and split of the pairs so far."""
    sequence = plan.sequence
    estimate = estimate_ratio(pairs, slope, plan.spread_floor(pairs))
    interval = estimate.interval(slope, sequence.level)
    bootstrap = bootstrap_interval(pairs, slope, sequence.level)
    clock_floor = SPREAD_FLOOR * (plan.time_ratio_spread or 0.0)
    plain = plain_ratio(pairs, sequence.level, clock_floor) if plan.plain_time else None
    proven = interval.low > plan.minimum_ratio and (plain is None or plain.low > 1)
    excess = estimate.log_at_equal_loss(slope) - math.log(plan.minimum_ratio)
    nominal_p = one_sided_p(excess, estimate.standard_error, estimate.degrees_of_freedom)
    return Faster(
        estimate=estimate, interval=interval, plain=plain, proven=proven, slower=interval.high < 1,
        hopeless=nominal_p > sequence.futility_level(len(pairs)) or (plain is not None and plain.high < 1),
        bootstrap=bootstrap,
        bootstrap_disagrees=proven and bootstrap is not None and bootstrap.low <= plan.minimum_ratio,
        split=split_ratio(pairs, slope, sequence.level),
    )  # fmt: skip


def _settle(plan: RacePlan, pairs: Sequence[Pair], target: TargetTest | None, faster: Faster | None) -> _Settled:
    """Of a race; (None, None, "") while it goes on."""
    failed = _failed(pairs)
    if failed is not None:
        return failed
    if len(pairs) not in plan.sequence.looks or target is None or faster is None:
        return None, None, ""
    last = len(pairs) == plan.sequence.maximum
    if target.reached and faster.proven:
        return Verdict.RECORD, Stop.PROVEN, ""
    if not target.reached and (last or target.hopeless):
        return Verdict.MISSES_TARGET, Stop.MAXIMUM if last else Stop.FUTILITY, ""
    if faster.slower:
        return Verdict.SLOWER, Stop.PROVEN, ""
    if last or (target.reached and faster.hopeless):
        return Verdict.NOT_PROVEN, Stop.MAXIMUM if last else Stop.FUTILITY, _why_not_proven(plan, faster)
    return None, None, ""


def _why_not_proven(plan: RacePlan, faster: Faster) -> str:
    """In words, where only plain time is in the way."""
    if faster.plain is None or faster.plain.low > 1 or faster.interval.low <= plan.minimum_ratio:
        return ""
    return f"faster at equal loss, in plain time {faster.plain.ratio:.3f} times as fast: fewer steps may show it"


def _settle_difference(
    plan: RacePlan, pairs: Sequence[Pair], target: TargetTest | None, faster: Faster | None
) -> _Settled:
    """Of an ablation; (None, None, "") while it goes on."""
    failed = _failed(pairs)
    if failed is not None:
        return failed
    if len(pairs) not in plan.sequence.looks or target is None or faster is None:
        return None, None, ""
    differs = faster.slower or faster.interval.low > 1
    if not differs and len(pairs) < plan.sequence.maximum:
        return None, None, ""
    stop = Stop.PROVEN if differs else Stop.MAXIMUM
    if not target.reached:
        return Verdict.MISSES_TARGET, stop, ""
    if faster.slower:
        return Verdict.SLOWER, stop, ""
    return Verdict.RECORD if faster.proven else Verdict.NOT_PROVEN, stop, ""


def _failed(pairs: Sequence[Pair]) -> _Settled | None:
    """How a series ends in which a second run of an arm failed; None while none did."""
    failed = {
        "candidate": sum(pair.candidate is None for pair in pairs),
        "reference": sum(pair.reference is None for pair in pairs),
    }
    for arm, verdict in (("candidate", Verdict.MISSES_TARGET), ("reference", Verdict.INVALID)):
        if failed[arm] > FAILURES_ALLOWED:
            reason = f"{failed[arm]} of {len(pairs)} runs of the {arm} diverged or timed out"
            return verdict, Stop.FAILED_RUNS, reason
    return None
