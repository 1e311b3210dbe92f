"""Races, ablations and the first record of a task: planned before the first run, decided by plan and lines alone."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from secrets import randbelow
from typing import Any

from harness.campaign import SEED_LIMIT
from harness.core.task import Task, hardware_class
from harness.errors import UserError
from harness.evidence.course import Block, Course, Ending, RunLine
from harness.evidence.plans import (
    CANDIDATE,
    REFERENCE,
    AblationCampaign,
    BaselineCampaign,
    Calibration,
    DecidedCampaign,
    RaceCampaign,
    ScheduledRun,
)
from harness.evidence.series import arm_of, conditions
from harness.evidence.sides import Side
from harness.machine import Machine
from harness.statistics import (
    CPU_MINIMUM_RATIO,
    GPU_MINIMUM_RATIO,
    LOOKS,
    Decision,
    Pair,
    RacePlan,
    SequentialPlan,
    Slope,
    Stop,
    TimedRun,
    Verdict,
    decide,
    fixed_plan,
    reaches_target,
    sequential_plan,
)
from harness.statistics.decision import SPREAD_FLOOR, decide_difference
from harness.statistics.target import FAILURES_ALLOWED

LEAST_STEPS = 1e-6  # of a run that read nothing: a ratio of times needs some


def plan_race(
    sides: tuple[Side, Side], hardware: str, pairs: int, calibration: Calibration, machine: Machine, now: datetime,
    judge_holdout: bool = False, as_baseline: bool = False, comparison: bool = False,
) -> RaceCampaign:  # fmt: skip
    """Every pair up to the maximum with its seeds, in the order A B B A, and all that decides the race.

    `sides` are candidate and reference. Every pair has a seed of its own, which both runs share: what a seed does to
    both alike (an easy order of data, say) drops out of their difference. `judge_holdout`: the candidate's first run is
    judged on the holdout split too, as in every attempt at a record. Raises UserError for a number of pairs that is no
    look, and for a calibration in which s may be zero.
    """
    candidate, reference = sides
    orders = [(CANDIDATE, REFERENCE) if pair % 2 == 0 else (REFERENCE, CANDIDATE) for pair in range(pairs)]
    return RaceCampaign(
        **conditions(candidate.submission.task, hardware, machine, now, "race"),
        **_deciding(candidate.submission.task, hardware, _sequence(pairs), calibration),
        arms={CANDIDATE: arm_of(candidate), REFERENCE: arm_of(reference)},
        schedule=_schedule(orders, judge_holdout),
        as_baseline=as_baseline,
        comparison=comparison,
    )


def plan_baseline(
    side: Side, hardware: str, calibration: Calibration, machine: Machine, now: datetime, judge_holdout: bool = False
) -> BaselineCampaign:
    """Runs of the first record of a task and class, with all that decides whether they reach the target.

    `judge_holdout` as in a race.
    """
    return BaselineCampaign(
        **conditions(side.submission.task, hardware, machine, now, "baseline"),
        **_deciding(side.submission.task, hardware, sequential_plan(), calibration),
        arms={CANDIDATE: arm_of(side)},
        schedule=_schedule([(CANDIDATE,)] * LOOKS[-1], judge_holdout),
    )


def plan_repetition(
    side: Side, hardware: str, runs: int, calibration: Calibration, machine: Machine, now: datetime
) -> BaselineCampaign:
    """So many runs of the first record, looked at once at their end. Raises UserError for fewer than two."""
    if runs < 2:
        raise UserError(f"{runs} run(s) of the first record have no spread", "ask for two or more")
    return BaselineCampaign(
        **conditions(side.submission.task, hardware, machine, now, "baseline"),
        **_deciding(side.submission.task, hardware, fixed_plan(runs), calibration),
        arms={CANDIDATE: arm_of(side)},
        schedule=_schedule([(CANDIDATE,)] * runs, judge_holdout=False),
        least_runs=max(1, runs - FAILURES_ALLOWED),
    )


def _schedule(orders: Sequence[Sequence[str]], judge_holdout: bool) -> list[ScheduledRun]:
    """One run an arm and block, each block with its seed; `judge_holdout` is for the candidate in the first block."""
    asked = (0, CANDIDATE) if judge_holdout else None
    seeds = [randbelow(SEED_LIMIT) for _ in orders]
    return [
        ScheduledRun(block=block, arm=arm, seed=seed, judge_holdout=(block, arm) == asked)
        for block, (arms, seed) in enumerate(zip(orders, seeds, strict=True))
        for arm in arms
    ]


def _sequence(pairs: int) -> SequentialPlan:
    if pairs not in LOOKS:
        raise UserError(f"--pairs {pairs}: a race is looked at after {', '.join(map(str, LOOKS))} pairs", "use one")
    return sequential_plan(pairs)


def _deciding(task: Task, hardware: str, sequence: SequentialPlan, calibration: Calibration) -> dict[str, Any]:
    """The fields of a plan that decide."""
    try:
        calibration.slope.limits(sequence.level)
    except ValueError as error:
        raise UserError(f"calibration from {calibration.source}: {error}", "run: speedrun calibrate") from None
    return {
        "target": task.target.val_loss,
        "target_provisional": task.target.provisional,
        "deciding": rules_of(hardware, sequence, calibration),
        "calibration": calibration,
    }


def rules_of(hardware: str, sequence: SequentialPlan, calibration: Calibration) -> RacePlan:
    """What decides a race of this class: nothing in it is for those who race to choose."""
    minimum = CPU_MINIMUM_RATIO if hardware_class(hardware).device == "cpu" else GPU_MINIMUM_RATIO
    spreads = calibration.loss_spread, calibration.log_ratio_spread, calibration.time_ratio_spread
    return RacePlan(minimum, sequence, *spreads, plain_time=True)


def decide_campaign(plan: DecidedCampaign, course: Course) -> Decision:
    """What the runs so far say. A run that broke a rule ends the campaign at once: `invalid`, with the reason."""
    if isinstance(plan, BaselineCampaign):
        decision = _decide_baseline(plan, course)
    else:
        pairs = [_pair(block) for block in course.blocks]
        asked = decide_difference if isinstance(plan, AblationCampaign) else decide
        decision = asked(plan.deciding, pairs, plan.target, plan.calibration.slope)
    for runs in (*(block.runs for block in course.blocks), course.partial):
        for line in runs.values():
            if line.ending is Ending.INVALID:
                reason = f"{line.arm}: {line.status} in run {line.run_id}"
                return replace(decision, verdict=Verdict.INVALID, stop=Stop.FAILED_RUNS, reason=reason, final=True)
    return decision


def _decide_baseline(plan: BaselineCampaign, course: Course) -> Decision:
    """`record` at a look with enough judged runs that reach the target; looks before it can only give up.

    Looks that accept nothing make the error smaller, so the level of the whole plan holds.
    """
    sequence, runs = plan.deciding.sequence, len(course.blocks)
    losses = [None if timed is None else timed.loss for timed in (timed_run(b.runs[CANDIDATE]) for b in course.blocks)]
    target = None
    if losses:
        target = reaches_target(sequence, losses, plan.target, SPREAD_FLOOR * plan.deciding.loss_spread)
    verdict, stop, reason = None, None, ""
    if target is not None and target.failed > FAILURES_ALLOWED:
        verdict, stop = Verdict.MISSES_TARGET, Stop.FAILED_RUNS
        reason = f"{target.failed} of {runs} runs diverged or timed out"
    elif target is not None and runs in sequence.looks:
        if target.reached and runs - target.failed >= plan.least_runs:
            verdict, stop = Verdict.RECORD, Stop.PROVEN
        elif runs == sequence.maximum or target.hopeless:
            verdict = Verdict.MISSES_TARGET
            stop = Stop.MAXIMUM if runs == sequence.maximum else Stop.FUTILITY
    return Decision(
        verdict=verdict, stop=stop, reason=reason, pairs=runs, next_look=sequence.next_look(runs),
        looks_left=sum(look > runs for look in sequence.looks),
        final=verdict is not None and stop is not Stop.FUTILITY, target=target, faster=None,
    )  # fmt: skip


def settled_after(plan: DecidedCampaign, pairs: int = 0) -> Callable[[Course], bool]:
    """Whether a course has come to its end, for `carry_on`. `pairs`: how many there must be at least.

    A campaign that stopped for futility may be continued to its next look; there, only the present look counts. What
    is final ends it whatever the number of pairs.
    """

    def settled(course: Course) -> bool:
        decision = decide_campaign(plan, course)
        return decision.final or (decision.verdict is not None and len(course.blocks) >= pairs)

    return settled


def log_ratio_of_pair(block: Block, slope: Slope) -> float | None:
    """The log-ratio at equal loss of one pair; None where a run failed, or there is no reference."""
    if REFERENCE not in block.runs:
        return None
    pair = _pair(block)
    if pair.reference is None or pair.candidate is None:
        return None
    gain = (pair.reference.loss - pair.candidate.loss) / slope.nats_per_efold
    return math.log(pair.reference.time / pair.candidate.time) + gain


def _pair(block: Block) -> Pair:
    return Pair(timed_run(block.runs[REFERENCE]), timed_run(block.runs[CANDIDATE]))


def timed_run(line: RunLine) -> TimedRun | None:
    if line.ending is not Ending.COUNTS or line.seconds is None or line.val_loss is None:
        return None
    # A run may finish without a step; its speed is then about nothing, and its loss says so.
    time = line.seconds if line.steps is None else max(line.steps, LEAST_STEPS)
    return TimedRun(time, line.val_loss, max(line.tokens or 0, 1))


@dataclass(frozen=True)
class TimeLeft:
    """Seconds that the runs to the next look and to the maximum will take, as the runs so far did.

    `record`: to the next look at which a record is possible; a first record needs more runs than the first looks have.
    """

    next_look: float
    record: float
    maximum: float


def time_left(plan: DecidedCampaign, lines: Sequence[RunLine], pairs: int) -> TimeLeft:
    """From the median of each arm's whole runs so far, of the calibrated run where there is none yet."""
    seconds = sum(_usual_seconds(plan, lines, arm) for arm in plan.arms)
    looks = plan.deciding.sequence.next_look(pairs), next_record_look(plan, pairs), plan.deciding.sequence.maximum
    return TimeLeft(*(((look or pairs) - pairs) * seconds for look in looks))


def next_record_look(plan: DecidedCampaign, pairs: int) -> int | None:
    """The first look after `pairs` at which a record is possible; None at the maximum."""
    least = plan.least_runs if isinstance(plan, BaselineCampaign) else 0
    return plan.deciding.sequence.next_look(max(pairs, least - 1))


def _usual_seconds(plan: DecidedCampaign, lines: Sequence[RunLine], arm: str) -> float:
    known = [line.total_seconds for line in lines if line.arm == arm and line.total_seconds is not None]
    return statistics.median(known) if known else plan.calibration.total_seconds
