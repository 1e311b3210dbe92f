"""Ablations: what a record is without some of its methods, raced, and what these methods cost.

ablations/ID/ in the record's folder is the campaign itself with cost.json, measured before the first run, and
ablation.json at its end, which follows from the two, so that anybody can compute it again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from harness.bundle import write_atomically
from harness.campaign import data_digest
from harness.checks.statements import BUDGET, Difference, Statements, first_lines, python_files
from harness.core.task import Strict
from harness.errors import UserError
from harness.evidence.calibration import calibration_for
from harness.evidence.folder import PLAN, VERDICT, Campaign, create_campaign, read_campaign
from harness.evidence.json_file import read_object
from harness.evidence.plans import CANDIDATE, REFERENCE, AblationCampaign, Arm, Digest, Text
from harness.evidence.race import plan_race
from harness.evidence.record_checks import Checked, differences, verdict_problems
from harness.evidence.records import MAX_RECORD_BYTES, RESTORE, history, load_record, submission_of_record
from harness.evidence.sides import Side, Where
from harness.evidence.verdict import CampaignVerdict, verdict_of
from harness.frozen import core_digest
from harness.machine import Machine
from harness.statistics import Interval, Stop, Verdict
from harness.submission import Submission

ABLATIONS, ABLATION, COST = "ablations", "ablation.json", "cost.json"
LEAST_RATIO = 1e-300  # the inverse must still be a number

Lines = dict[Text, list[int]]


class Word(StrEnum):
    """What an ablation says about the methods it drops."""

    NEEDED = "needed"  # the record is slower without them, at equal loss
    UNPROVEN = "unproven"  # the interval holds 1: no difference was shown
    HARMFUL = "harmful"  # the record is faster without them


class Cost(Strict):
    """cost.json: what the methods cost, from short traced runs of the record with and without them.

    `statements`: by file, the first lines of the statements that are executed with the methods on and not with them
    off; `shared`: those that another method, dropped by itself, takes away too. `executed`: statements that the whole
    record executes. Peak memory in bytes: of the process, or allocated on the GPU.
    """

    schema_version: Literal[1] = 1
    submission: Digest
    dropped: list[Text] = Field(min_length=1)
    measured: Text  # UTC date, ISO 8601
    statements: Lines
    shared: Lines
    executed: int = Field(gt=0)
    peak_memory: int = Field(gt=0)
    peak_memory_without: int = Field(gt=0)


class Saved(Strict):
    """Seconds with their limits, one-sided 99% each; below zero they are lost."""

    seconds: float
    low: float
    high: float


class Ablation(Strict):
    """ablation.json. Ratios are the record's: time without the methods over time with them, at equal loss.

    Above 1 the record is faster with them; limits are one-sided at 99% over all looks. `tokens` and `speed` are its
    factors: tokens to the target, tokens per second. `seconds`: mean wall-clock seconds of the record in this race;
    `saved`: what the methods save of a run of this length. Seconds a step where the submission declares `steps`.
    `lines`: statements that only these methods need; `shared_lines`: those that others need too. `reason` says in words
    why there is no ratio, or why it decides nothing. `verdict`: what the record without them would be as a submission.
    """

    schema_version: Literal[1] = 1
    record: Text
    dropped: list[Text]
    word: Word
    reason: Text
    campaign: Text
    date: Text
    machine: Text
    machine_digest: Digest
    verdict: Verdict
    stop: Stop | None
    pairs: int
    ratio: Interval | None
    tokens: Interval | None
    speed: Interval | None
    loss: float | None
    loss_without: float | None
    seconds: float | None
    saved: Saved | None
    step_seconds: float | None
    step_seconds_without: float | None
    lines: int
    shared_lines: int
    saved_per_line: float | None  # seconds; None where no statement is theirs alone
    peak_memory: int
    peak_memory_without: int
    chain: Digest


def droppable(submission: Submission) -> list[str]:
    """The methods that are on by default: those that an ablation can drop."""
    return [name for name, method in submission.manifest.methods.items() if method.default]


def require_droppable(submission: Submission, names: Iterable[str]) -> list[str]:
    """The names, each once, in the order of submission.toml. Raises UserError for one that is not there, or is off."""
    wanted, on = set(names), droppable(submission)
    submission.methods(sorted(wanted))
    for name in sorted(wanted - set(on)):
        raise UserError(f"{submission.folder}: the method {name} is off by default", f"on are: {', '.join(on)}")
    return [name for name in on if name in wanted]


def ablation_under_way(folder: Path, dropped: Sequence[str], machine: Machine) -> Campaign[Any] | None:
    """The latest ablation of a record that drops these methods, under the present conditions; None without one."""
    for path in sorted(folder.glob(f"{ABLATIONS}/*/{PLAN}"), reverse=True):
        campaign = read_campaign(path.parent)
        plan = campaign.plan
        now = (core_digest(), campaign.task.digest, data_digest(campaign.task), machine.digest)
        then = (plan.core_digest, plan.task_digest, plan.data_digest, plan.machine_digest)
        same = isinstance(plan, AblationCampaign) and set(plan.arms[CANDIDATE].dropped) == set(dropped)
        if same and now == then:
            return campaign
    return None


def new_ablation(
    folder: Path, dropped: Sequence[str], cost: Cost, where: Where, pairs: int, machine: Machine, now: datetime
) -> Campaign[AblationCampaign]:
    """A race of a record without some methods against itself, planned and kept in its folder with their cost."""
    submission = submission_of_record(folder)
    side = Side(load_record(folder).id, submission)
    without = replace(side, dropped=tuple(dropped))
    race = plan_race((without, side), where.hardware, pairs, calibration_for(where), machine, now)
    fields = {name: getattr(race, name) for name in AblationCampaign.model_fields}
    plan = AblationCampaign(**fields | {"kind": "ablation", "id": race.id.replace("-race-", "-ablation-")})
    submissions = {CANDIDATE: submission, REFERENCE: submission}
    return create_campaign(folder / ABLATIONS, plan, submissions, {COST: _text(cost)})


def cost_of(submission: Submission, dropped: Sequence[str], found: Difference, now: datetime) -> Cost:
    """What was measured of some methods, as it is kept."""
    return Cost(
        submission=submission.digest, dropped=list(dropped), measured=f"{now:%Y-%m-%d}",
        statements=_by_file(found.own), shared=_by_file(found.shared), executed=found.executed,
        peak_memory=found.peak_memory, peak_memory_without=found.peak_memory_without,
    )  # fmt: skip


def ablation_of(campaign: Campaign[Any]) -> Ablation:
    """What a finished ablation says. Raises UserError where it has no verdict, or its files do not belong together."""
    plan, verdict = campaign.plan, verdict_of(campaign)
    record = load_record(campaign.folder.parent.parent)
    if verdict is None:
        raise UserError(f"{campaign.folder}: has no verdict yet", f"speedrun resume {plan.id}")
    if not isinstance(plan, AblationCampaign) or plan.arms[REFERENCE].digest != record.submission:
        raise UserError(f"{campaign.folder}/{PLAN}: it is no ablation of {record.id}", RESTORE)
    without, whole, cost = plan.arms[CANDIDATE], plan.arms[REFERENCE], read_cost(campaign.folder)
    if (cost.submission, cost.dropped) != (record.submission, without.dropped):
        raise UserError(f"{campaign.folder}/{COST}: it is of another submission or other methods", RESTORE)
    word, reason = _word(verdict)
    figures, figures_without = verdict.arms[REFERENCE], verdict.arms[CANDIDATE]
    ratio, lines = _inverse(verdict.equal_loss), _count(cost.statements)
    saved = _saved(ratio, figures.mean_seconds) if figures.mean_steps is None else None  # it is a ratio of steps then
    return Ablation(
        record=record.id, dropped=without.dropped, word=word, reason=reason, campaign=plan.id, date=plan.started[:10],
        machine=plan.machine, machine_digest=plan.machine_digest, verdict=verdict.verdict, stop=verdict.stop,
        pairs=verdict.pairs, ratio=ratio, tokens=_inverse(verdict.tokens), speed=_inverse(verdict.speed),
        loss=figures.mean_loss, loss_without=figures_without.mean_loss, seconds=figures.mean_seconds, saved=saved,
        step_seconds=_step_seconds(whole, figures.mean_seconds),
        step_seconds_without=_step_seconds(without, figures_without.mean_seconds),
        lines=lines, shared_lines=_count(cost.shared),
        saved_per_line=saved.seconds / lines if saved is not None and lines else None,
        peak_memory=cost.peak_memory, peak_memory_without=cost.peak_memory_without, chain=campaign.chain,
    )  # fmt: skip


def _word(verdict: CampaignVerdict) -> tuple[Word, str]:
    """The word for what the race says, and in words what it rests on where that is no ratio."""
    if verdict.stop is Stop.FAILED_RUNS:
        return (Word.NEEDED if verdict.verdict is Verdict.MISSES_TARGET else Word.UNPROVEN), verdict.reason
    ratio = verdict.equal_loss
    if ratio is None or ratio.low <= 1 <= ratio.high:
        return Word.UNPROVEN, ""
    return (Word.HARMFUL if ratio.low > 1 else Word.NEEDED), ""


def _inverse(found: Interval | None) -> Interval | None:
    """The race's ratio is that of the record without the methods; here it is that of having them."""
    if found is None:
        return None
    ratio, low, high = (1 / max(value, LEAST_RATIO) for value in (found.ratio, found.high, found.low))
    return Interval(ratio, low, high)


def _saved(ratio: Interval | None, seconds: float | None) -> Saved | None:
    if ratio is None or seconds is None:
        return None
    saved, low, high = (seconds * (value - 1) for value in (ratio.ratio, ratio.low, ratio.high))
    return Saved(seconds=saved, low=low, high=high)


def _step_seconds(arm: Arm, seconds: float | None) -> float | None:
    steps = arm.hparams.get(BUDGET)
    return seconds / steps if seconds is not None and isinstance(steps, int) and steps > 0 else None


def keep_ablation(campaign: Campaign[Any]) -> Ablation:
    """Writes ablation.json into the campaign's folder."""
    found = ablation_of(campaign)
    write_atomically(campaign.folder / ABLATION, _text(found))
    return found


def read_ablation(folder: Path) -> Ablation:
    """ablation.json of a campaign's folder. Raises UserError that names file and field."""
    return read_object(folder / ABLATION, Ablation, MAX_RECORD_BYTES, RESTORE)


def read_cost(folder: Path) -> Cost:
    """cost.json of a campaign's folder. Raises UserError that names file and field."""
    return read_object(folder / COST, Cost, MAX_RECORD_BYTES, RESTORE)


def ablations_of(folder: Path) -> list[Ablation]:
    """The finished ablations of a record, oldest first. Raises UserError."""
    return [read_ablation(path.parent) for path in sorted(folder.glob(f"{ABLATIONS}/*/{ABLATION}"))]


def check_ablations(where: Where) -> list[Checked]:
    """Computes every finished ablation of a task and class again; the lines it counts must be statements."""
    checked = []
    plans = [path for record in history(where) for path in sorted(record.glob(f"{ABLATIONS}/*/{PLAN}"))]
    for folder in [path.parent for path in plans]:
        try:
            campaign = read_campaign(folder)
            problems = verdict_problems(campaign) + _cost_problems(campaign)
            if not problems and (folder / VERDICT).exists():
                problems = differences(ABLATION, read_ablation(folder), ablation_of(campaign))
        except UserError as error:
            problems = [error.message]
        checked.append(Checked(folder.relative_to(where.records).as_posix(), problems))
    return checked


def _cost_problems(campaign: Campaign[Any]) -> list[str]:
    """Lines that are no statements of the record, counted twice, or more than were executed."""
    cost, files = read_cost(campaign.folder), python_files(submission_of_record(campaign.folder.parent.parent).files)
    known = {(name, line) for name, source in files.items() for line in first_lines(source).values()}
    counted = [(name, line) for lines in (cost.statements, cost.shared) for name in lines for line in lines[name]]
    problems = [f"{COST}: {name}: line {line} is no statement" for name, line in counted if (name, line) not in known]
    if len(set(counted)) < len(counted) or len(counted) > cost.executed:
        problems.append(f"{COST}: statements are counted twice, or were not executed")
    return problems


def _by_file(statements: Statements) -> Lines:
    names = sorted({name for name, _ in statements})
    return {name: sorted(line for file, line in statements if file == name) for name in names}


def _count(lines: Lines) -> int:
    return sum(map(len, lines.values()))


def _text(found: Strict) -> str:
    return json.dumps(found.model_dump(mode="json"), indent=2, allow_nan=False) + "\n"
