"""The verdict of a campaign in words and numbers: verdict.json, computed from plan and lines whenever asked for."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from harness.core.failures import Failure
from harness.core.task import Strict
from harness.errors import UserError
from harness.evidence.course import Ending, RunLine
from harness.evidence.folder import MAX_PLAN_BYTES, PLAN, RESTORE, VERDICT, Campaign
from harness.evidence.json_file import read_object
from harness.evidence.plans import DecidedCampaign, RaceCampaign
from harness.evidence.race import decide_campaign, timed_run
from harness.evidence.repetitions import same_before
from harness.statistics import Interval, Stop, Verdict


class ArmFigures(Strict):
    """What the counted runs of one arm gave: seconds wall-clock, losses in nats per token.

    `flags`: what a person should look at, by id, and in how many of the runs.
    """

    runs: int
    failed: int
    mean_seconds: float | None
    mean_steps: float | None = None  # where the task counts steps: then ratios are of these
    mean_loss: float | None
    loss_spread: float | None
    mean_tokens: float | None
    flags: dict[str, int]


class CampaignVerdict(Strict):
    """verdict.json: the words and numbers of a race or baseline, all of which follow from plan.json and runs.jsonl.

    Ratios are reference over candidate at equal loss, above 1 the candidate is faster; limits are one-sided at 99%
    over all looks. `tokens` and `speed` are its factors: tokens to the target, tokens per second. `raw` is the ratio of
    plain seconds, `plain` the same with its limits, where the plan asks for a candidate that is faster in these too.
    Where the task counts steps, these stand in the place of seconds, and there is no such split: the tokens are those
    of the steps. `repeated`: runs done again because
    they were killed, interrupted or the like; `interrupted`: those that a person interrupted, `interrupted_late`: after
    the clock had stopped, so that their time was known.
    `disturbed`: pairs in which other work slowed even the last repetition.
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
    plain: Interval | None = None
    bootstrap: Interval | None
    bootstrap_disagrees: bool
    target: float
    target_provisional: bool
    margin: float | None
    p_target: float
    arms: dict[str, ArmFigures]
    repeated: int
    interrupted: int
    interrupted_late: int
    repeated_pairs: int
    disturbed: int
    trust: list[str]
    calibration: str
    provisional_calibration: bool
    chain: str = Field(pattern=r"^[0-9a-f]{64}$")  # of the last line


FASTER = "faster, compared with a record that does not reign"


def word_of(campaign: Campaign[Any], verdict: CampaignVerdict) -> str:
    """The verdict for the board: a comparison that passes every test of a record is none."""
    passed = is_comparison(campaign) and verdict.verdict is Verdict.RECORD
    return FASTER if passed else str(verdict.verdict)


def is_comparison(campaign: Campaign[Any]) -> bool:
    """Whether the campaign is an attempt against a record that did not reign, so that it is filed as none."""
    return isinstance(campaign.plan, RaceCampaign) and campaign.plan.comparison


def verdict_of(campaign: Campaign[Any]) -> CampaignVerdict | None:
    """The verdict of a race or baseline as it stands; None while it goes on."""
    plan: DecidedCampaign = campaign.plan
    course = campaign.course
    try:
        decision = decide_campaign(plan, course)
    except ValueError as error:  # of the statistics, for a plan that this harness would not have made
        raise UserError(f"{campaign.folder}/{PLAN}: {error}", RESTORE) from None
    if decision.verdict is None:
        return None
    faster, target = decision.faster, decision.target
    arms = {arm: _figures([block.runs[arm] for block in course.blocks]) for arm in plan.arms}
    split = faster.split if faster and any(arm.mean_steps is None for arm in arms.values()) else None
    interrupted = [line for line in campaign.lines if line.status == Failure.INTERRUPTED]
    return CampaignVerdict(
        campaign=plan.id, task=plan.task, hardware_class=plan.hardware_class,
        verdict=decision.verdict, stop=decision.stop, reason=decision.reason, final=decision.final,
        pairs=decision.pairs, maximum=plan.deciding.sequence.maximum, minimum_ratio=plan.deciding.minimum_ratio,
        equal_loss=faster.interval if faster else None, tokens=split.tokens if split else None,
        speed=split.speed if split else None, raw=math.exp(faster.estimate.log_ratio) if faster else None,
        plain=faster.plain if faster else None, bootstrap=faster.bootstrap if faster else None,
        bootstrap_disagrees=faster.bootstrap_disagrees if faster else False,
        target=plan.target, target_provisional=plan.target_provisional,
        margin=target.margin if target else None, p_target=target.p if target else 1.0,
        arms=arms,
        repeated=sum(line.ending is Ending.REPEAT for line in campaign.lines),
        interrupted=len(interrupted), interrupted_late=sum(line.seconds is not None for line in interrupted),
        repeated_pairs=sum(block.attempts > 1 for block in course.blocks),
        disturbed=sum(block.disturbed for block in course.blocks),
        trust=sorted({line.trust for line in campaign.lines if line.trust}),
        calibration=plan.calibration.source, provisional_calibration=plan.calibration.provisional,
        chain=campaign.chain,
    )  # fmt: skip


def _figures(lines: Sequence[RunLine]) -> ArmFigures:
    timed = [line for line in lines if timed_run(line) is not None]
    losses = _known(line.val_loss for line in timed)
    return ArmFigures(
        runs=len(lines), failed=len(lines) - len(timed),
        mean_seconds=_mean(line.seconds for line in timed), mean_steps=_mean(line.steps for line in timed),
        mean_loss=_mean(losses), loss_spread=statistics.stdev(losses) if len(losses) > 1 else None,
        mean_tokens=_mean(max(line.tokens or 0, 1) for line in timed),
        flags=dict(sorted(Counter(flag for line in lines for flag in line.flags).items())),
    )  # fmt: skip


def _mean(values: Iterable[float | None]) -> float | None:
    known = _known(values)
    return statistics.fmean(known) if known else None


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def keep_verdict(campaign: Campaign[Any]) -> CampaignVerdict | None:
    """Writes verdict.json where the race has come to one."""
    verdict = verdict_of(campaign)
    if verdict is not None:
        campaign.finish(VERDICT, verdict.model_dump(mode="json"))
    return verdict


def pairs_to_go(campaign: Campaign[Any]) -> int:
    """How many pairs the campaign must have before it may stop: one more where it was given up for futility."""
    verdict = verdict_of(campaign)
    return 0 if verdict is None or verdict.final else verdict.pairs + 1


def report(campaign: Campaign[Any], verdict: CampaignVerdict) -> Mapping[str, Any]:
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
        "same_source_before": same_before(campaign),
        "details": verdict.model_dump(mode="json"),
    }


def read_verdict(campaign: Campaign[Any]) -> CampaignVerdict:
    """verdict.json as it was kept. Raises UserError that names file and field."""
    missing = "the campaign has no verdict yet: speedrun resume"
    return read_object(campaign.folder / VERDICT, CampaignVerdict, MAX_PLAN_BYTES, RESTORE, missing)
