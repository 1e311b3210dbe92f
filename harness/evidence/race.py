"""A race: planned before its first run, decided by its plan and its lines alone."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from secrets import randbelow
from typing import Any, Literal

from pydantic import Field

from harness.campaign import SEED_LIMIT
from harness.core.task import Strict, hardware_class
from harness.errors import UserError
from harness.evidence.arms import Side
from harness.evidence.course import Block, Course, Ending, RunLine
from harness.evidence.folder import VERDICT, Campaign
from harness.evidence.plans import CANDIDATE, REFERENCE, Calibration, RaceCampaign, ScheduledRun
from harness.evidence.series import arm_of, conditions
from harness.machine import Machine
from harness.statistics import (
    CPU_MINIMUM_RATIO,
    GPU_MINIMUM_RATIO,
    LOOKS,
    Decision,
    Interval,
    Pair,
    RacePlan,
    Slope,
    Stop,
    TimedRun,
    Verdict,
    decide,
    sequential_plan,
)


def plan_race(
    sides: tuple[Side, Side], hardware: str, pairs: int, calibration: Calibration, machine: Machine, now: datetime
) -> RaceCampaign:
    """Every pair up to the maximum with its seeds, in the order A B B A, and all that decides the race.

    `sides` are candidate and reference. Every run has a seed of its own: a loss is one draw of what the arm gives, not
    of what one order of data gives.
    Raises UserError for a number of pairs that is no look, and for a calibration in which s may be zero.
    """
    if pairs not in LOOKS:
        raise UserError(f"--pairs {pairs}: a race is looked at after {', '.join(map(str, LOOKS))} pairs", "use one")
    candidate, reference = sides
    task, on_cpu = candidate.submission.task, hardware_class(hardware).device == "cpu"
    deciding = RacePlan(
        CPU_MINIMUM_RATIO if on_cpu else GPU_MINIMUM_RATIO, sequential_plan(pairs),
        calibration.loss_spread, calibration.log_ratio_spread,
    )  # fmt: skip
    try:
        calibration.slope.limits(deciding.sequence.level)
    except ValueError as error:
        raise UserError(f"calibration from {calibration.source}: {error}", "run: speedrun calibrate") from None
    orders = [(CANDIDATE, REFERENCE) if pair % 2 == 0 else (REFERENCE, CANDIDATE) for pair in range(pairs)]
    return RaceCampaign(
        **conditions(task, hardware, machine, now, "race"),
        arms={CANDIDATE: arm_of(candidate), REFERENCE: arm_of(reference)},
        schedule=[
            ScheduledRun(block=pair, arm=arm, seed=randbelow(SEED_LIMIT))
            for pair, order in enumerate(orders)
            for arm in order
        ],
        target=task.target.val_loss,
        target_provisional=task.target.provisional,
        deciding=deciding,
        calibration=calibration,
    )


def decide_race(plan: RaceCampaign, course: Course) -> Decision:
    """What the pairs so far say. A run that broke a rule ends the race at once: `invalid`, with the reason."""
    pairs = [_pair(block) for block in course.blocks]
    decision = decide(plan.deciding, pairs, plan.target, plan.calibration.slope)
    for runs in (*(block.runs for block in course.blocks), course.partial):
        for line in runs.values():
            if line.ending is Ending.INVALID:
                reason = f"{line.arm}: {line.status} in run {line.run_id}"
                return replace(decision, verdict=Verdict.INVALID, stop=Stop.FAILED_RUNS, reason=reason, final=True)
    return decision


def settled_after(plan: RaceCampaign, pairs: int = 0) -> Callable[[Course], bool]:
    """Whether a course has come to its end, for `carry_on`. `pairs`: how many there must be at least.

    A race that stopped for futility may be continued to its next look; there, nothing but the present look counts.
    """
    return lambda course: len(course.blocks) >= pairs and decide_race(plan, course).verdict is not None


def log_ratio_of_pair(block: Block, slope: Slope) -> float | None:
    """The log-ratio at equal loss of one pair; None where a run failed."""
    pair = _pair(block)
    if pair.reference is None or pair.candidate is None:
        return None
    gain = (pair.reference.loss - pair.candidate.loss) / slope.nats_per_efold
    return math.log(pair.reference.seconds / pair.candidate.seconds) + gain


def _pair(block: Block) -> Pair:
    return Pair(_timed(block.runs[REFERENCE]), _timed(block.runs[CANDIDATE]))


def _timed(line: RunLine) -> TimedRun | None:
    if line.ending is not Ending.COUNTS or line.seconds is None or line.val_loss is None:
        return None
    # A run may finish without a step; its speed is then about nothing, and its loss says so.
    return TimedRun(line.seconds, line.val_loss, max(line.tokens or 0, 1))


class ArmFigures(Strict):
    """What the counted runs of one arm gave: seconds wall-clock, losses in nats per token."""

    runs: int
    failed: int
    mean_seconds: float | None
    mean_loss: float | None
    loss_spread: float | None
    mean_tokens: float | None


class RaceVerdict(Strict):
    """verdict.json: the words and numbers of a race, all of which follow from plan.json and runs.jsonl.

    Ratios are reference over candidate at equal loss, above 1 the candidate is faster; limits are one-sided at 99%
    over all looks. `tokens` and `speed` are its factors: tokens to the target, tokens per second. `raw` is the ratio of
    plain seconds. `repeated`: runs done again because they were killed, interrupted or the like; `disturbed`: pairs in
    which other work slowed even the last repetition.
    """

    schema_version: Literal[1] = 1
    campaign: str
    task: str
    hardware_class: str
    verdict: Verdict
    stop: Stop | None
    reason: str
    final: bool
    pairs: int
    maximum: int
    minimum_ratio: float
    equal_loss: Interval | None
    tokens: Interval | None
    speed: Interval | None
    raw: float | None
    bootstrap: Interval | None
    bootstrap_disagrees: bool
    target: float
    target_provisional: bool
    margin: float | None
    p_target: float
    arms: dict[str, ArmFigures]
    repeated: int
    repeated_pairs: int
    disturbed: int
    trust: list[str]
    calibration: str
    provisional_calibration: bool
    chain: str = Field(pattern=r"^[0-9a-f]{64}$")  # of the last line


def verdict_of(campaign: Campaign[RaceCampaign]) -> RaceVerdict | None:
    """The verdict of a race as it stands; None while it goes on."""
    plan = campaign.plan
    course = campaign.course
    decision = decide_race(plan, course)
    if decision.verdict is None:
        return None
    faster, target = decision.faster, decision.target
    return RaceVerdict(
        campaign=plan.id, task=plan.task, hardware_class=plan.hardware_class,
        verdict=decision.verdict, stop=decision.stop, reason=decision.reason, final=decision.final,
        pairs=decision.pairs, maximum=plan.deciding.sequence.maximum, minimum_ratio=plan.deciding.minimum_ratio,
        equal_loss=faster.interval if faster else None, tokens=faster.split.tokens if faster else None,
        speed=faster.split.speed if faster else None, raw=math.exp(faster.estimate.log_ratio) if faster else None,
        bootstrap=faster.bootstrap if faster else None,
        bootstrap_disagrees=faster.bootstrap_disagrees if faster else False,
        target=plan.target, target_provisional=plan.target_provisional,
        margin=target.margin if target else None, p_target=target.p if target else 1.0,
        arms={arm: _figures([block.runs[arm] for block in course.blocks]) for arm in plan.arms},
        repeated=sum(line.ending is Ending.REPEAT for line in campaign.lines),
        repeated_pairs=sum(block.attempts > 1 for block in course.blocks),
        disturbed=sum(block.disturbed for block in course.blocks),
        trust=sorted({line.trust for line in campaign.lines if line.trust}),
        calibration=plan.calibration.source, provisional_calibration=plan.calibration.provisional,
        chain=campaign.chain,
    )  # fmt: skip


def _figures(lines: Sequence[RunLine]) -> ArmFigures:
    timed = [run for run in map(_timed, lines) if run is not None]
    losses = [run.loss for run in timed]
    return ArmFigures(
        runs=len(lines), failed=len(lines) - len(timed),
        mean_seconds=statistics.fmean(run.seconds for run in timed) if timed else None,
        mean_loss=statistics.fmean(losses) if timed else None,
        loss_spread=statistics.stdev(losses) if len(timed) > 1 else None,
        mean_tokens=statistics.fmean(run.tokens for run in timed) if timed else None,
    )  # fmt: skip


def keep_verdict(campaign: Campaign[RaceCampaign]) -> RaceVerdict | None:
    """Writes verdict.json where the race has come to one."""
    verdict = verdict_of(campaign)
    if verdict is not None:
        campaign.finish(VERDICT, verdict.model_dump(mode="json"))
    return verdict


@dataclass(frozen=True)
class TimeLeft:
    """Seconds that the runs to the next look and to the maximum will take, as the runs so far did."""

    next_look: float
    maximum: float


def time_left(plan: RaceCampaign, lines: Sequence[RunLine], pairs: int) -> TimeLeft:
    """From the median of each arm's whole runs so far, of the calibrated run where there is none yet."""
    seconds = sum(_usual_seconds(plan, lines, arm) for arm in plan.arms)
    look = plan.deciding.sequence.next_look(pairs) or pairs
    return TimeLeft((look - pairs) * seconds, (plan.deciding.sequence.maximum - pairs) * seconds)


def _usual_seconds(plan: RaceCampaign, lines: Sequence[RunLine], arm: str) -> float:
    known = [line.total_seconds for line in lines if line.arm == arm and line.total_seconds is not None]
    return statistics.median(known) if known else plan.calibration.total_seconds


def report(campaign: Campaign[RaceCampaign], verdict: RaceVerdict) -> Mapping[str, Any]:
    """The object of `--json`."""
    ratio = verdict.equal_loss
    return {
        "verdict": verdict.verdict,
        "ratio": ratio.ratio if ratio else None,
        "ratio_low": ratio.low if ratio else None,
        "ratio_high": ratio.high if ratio else None,
        "pairs": verdict.pairs,
        "p_target": verdict.p_target,
        "folder": str(campaign.folder),
        "details": verdict.model_dump(mode="json"),
    }
