"""Verifications: a record raced again, here, against its parent or the first record, and whether that agrees.

verifications/ID/ in the record's folder is the campaign itself with verification.json at its end, so that anybody can
compute it again; other people's verifications come in as such folders.
"""

from __future__ import annotations

import json
import math
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

from scipy import stats

from harness.bundle import write_atomically
from harness.core.task import Strict
from harness.errors import UserError
from harness.evidence.calibration import calibration_for
from harness.evidence.course import broke_a_rule
from harness.evidence.filing import ISOLATED
from harness.evidence.folder import PLAN, Campaign, create_campaign, read_campaign
from harness.evidence.json_file import read_object
from harness.evidence.plans import CANDIDATE, REFERENCE, Digest, Text
from harness.evidence.race import decide_campaign, plan_race, plan_repetition, timed_run
from harness.evidence.record_checks import Checked, core_problems, differences, verdict_problems
from harness.evidence.records import (
    MAX_RECORD_BYTES,
    RECORD,
    RESTORE,
    VERIFICATIONS,
    Record,
    history,
    lineage,
    load_record,
    submission_of_record,
)
from harness.evidence.sides import Side, Where
from harness.evidence.verdict import CampaignVerdict, verdict_of
from harness.frozen import core_digest
from harness.machine import Machine
from harness.statistics import (
    Interval,
    RatioEstimate,
    Stop,
    TimedRun,
    Verdict,
    chain_product,
    compare_with_direct,
    reaches_target,
)
from harness.statistics.decision import SPREAD_FLOOR

VERIFICATION = "verification.json"
DISAGREES_BELOW = 0.01  # of the p that filed and found ratio, or the mean loss and the target, differ by chance


class Again(StrEnum):
    """What the runs of a verification say about the target. Few runs often leave it open though the record is true."""

    SHOWN = "shown again"
    OPEN = "not shown again"
    MISSED = "missed"  # the mean loss lies above it, by more than chance, or a second run failed


class Verification(Strict):
    """verification.json. Ratios are at equal loss, `against` over the record; limits at 99% one-sided.

    `filed`: what the races of the history say, multiplied along the chain from `against` to the record; `found`:
    what this race says; None for the first record, which has no reference: it is run by itself. `p`: two-sided,
    that these two, for the first record the mean losses filed and found, differ so by chance. `seconds`: those of
    the record's runs as filed and as found, means. `p_target` is that of the verdict, `p_missed` the same test the
    other way round: one-sided, that the mean loss lies so far above the target by chance. `agrees`: no p below
    0.01, the target not missed, and no run of the record that broke a rule; None where nothing was found that could
    be compared, as when the reference fails. `confirms`: this race alone shows the record to be faster; for the
    first record: to reach the target. `trust`: the levels of its runs.
    """

    schema_version: Literal[1] = 1
    record: Text
    against: Text | None
    campaign: Text
    date: Text
    machine: Text
    machine_digest: Digest
    same_machine: bool  # the same kind as that of the record
    verdict: Verdict
    pairs: int
    filed: Interval | None
    found: Interval | None
    losses: tuple[float, float | None]  # means of the record's runs, as filed and as found
    seconds: tuple[float, float | None]
    p: float | None
    p_target: float
    p_missed: float
    target: Again
    agrees: bool | None
    confirms: bool
    trust: list[Text]
    chain: Digest

    @property
    def counts(self) -> bool:
        """Whether the board counts it: it agrees, and so isolated were the record's own runs."""
        return self.agrees is True and self.trust == [ISOLATED]


def plan_verification(
    folder: Path, where: Where, against_first: bool, pairs: int, machine: Machine, now: datetime
) -> Campaign[Any]:
    """A race of a record against its parent, or the first record, planned and kept in the record's folder.

    The first record itself is run `pairs` times.
    """
    submission, calibration = submission_of_record(folder), calibration_for(where)
    side = Side(load_record(folder).id, submission)
    parent, other = folder / VERIFICATIONS, _other(folder, against_first)
    if other is None:
        first = plan_repetition(side, where.hardware, pairs, calibration, machine, now)
        return create_campaign(parent, first, {CANDIDATE: submission})
    reference = submission_of_record(other)
    sides = (side, Side(load_record(other).id, reference))
    plan = plan_race(sides, where.hardware, pairs, calibration, machine, now)
    return create_campaign(parent, plan, {CANDIDATE: submission, REFERENCE: reference})


def _other(folder: Path, against_first: bool) -> Path | None:
    """The record that one is raced against; None for the first."""
    *before, _ = lineage(folder)
    return None if not before else before[0] if against_first else before[-1]


def begun_here(folder: Path, against_first: bool, machine: Machine) -> Campaign[Any] | None:
    """The latest verification of a record on this kind of machine, by this core, against the same record."""
    other = _other(folder, against_first)
    due = machine.digest, core_digest(), submission_of_record(other).digest if other else None
    for path in sorted(folder.glob(f"{VERIFICATIONS}/*/{PLAN}"), reverse=True):
        campaign = read_campaign(path.parent)
        plan, reference = campaign.plan, campaign.plan.arms.get(REFERENCE)
        if (plan.machine_digest, plan.core_digest, reference.digest if reference else None) == due:
            return campaign
    return None


def verification_of(campaign: Campaign[Any], where: Where) -> Verification:
    """What a finished race in verifications/ says about the record in whose folder it is. Raises UserError."""
    plan, folder = campaign.plan, campaign.folder.parent.parent
    verdict, record = verdict_of(campaign), load_record(folder)
    if verdict is None:
        raise UserError(f"{campaign.folder}: has no verdict yet", f"speedrun resume {plan.id}")
    if plan.arms[CANDIDATE].digest != record.submission:
        raise UserError(f"{campaign.folder}/{PLAN}: it raced another submission than that of {record.id}", RESTORE)
    against, filed, p = None, None, None
    if REFERENCE in plan.arms:
        chain = [load_record(path) for path in lineage(folder)]
        start = next((n for n, one in enumerate(chain) if one.submission == plan.arms[REFERENCE].digest), None)
        if start is None or start + 1 >= len(chain):
            raise UserError(f"{campaign.folder}/{PLAN}: its reference is no record before {record.id}", RESTORE)
        against = chain[start].id
        product = chain_product([_estimate_of(one, where) for one in chain[start + 1 :]])
        slope, faster = plan.calibration.slope, decide_campaign(plan, campaign.course).faster
        filed = product.interval(slope, plan.deciding.sequence.level)
        if faster is not None:
            p = compare_with_direct(product, faster.estimate, slope).p
    else:
        p = _p_of_losses(read_campaign(folder), campaign)
    found, figures = verdict.equal_loss, verdict.arms[CANDIDATE]
    p_missed = _p_missed(campaign)
    target = _target_again(verdict, p_missed)
    against_it = target is Again.MISSED or broke_a_rule(campaign.lines, CANDIDATE)
    agrees = False if against_it else None if p is None else p >= DISAGREES_BELOW
    confirms = found is not None and found.low > 1 if against else verdict.verdict is Verdict.RECORD
    return Verification(
        record=record.id, against=against, campaign=plan.id, date=plan.started[:10], machine=plan.machine,
        machine_digest=plan.machine_digest, same_machine=plan.machine_digest == record.machine_digest,
        verdict=verdict.verdict, pairs=verdict.pairs, filed=filed, found=found,
        losses=(record.val_loss, figures.mean_loss), seconds=(record.seconds, figures.mean_seconds),
        p=p, p_target=verdict.p_target, p_missed=p_missed, target=target,
        agrees=agrees, confirms=confirms, trust=verdict.trust, chain=campaign.chain,
    )  # fmt: skip


def _estimate_of(record: Record, where: Where) -> RatioEstimate:
    if record.estimate is None:
        raise UserError(f"{where.records / record.id / RECORD}: estimate: null, where it has a parent", RESTORE)
    return record.estimate


def _p_missed(campaign: Campaign[Any]) -> float:
    """The test of the target with losses and target turned round, at the same looks and with the same floor."""
    plan = campaign.plan
    losses = [None if run is None else -run.loss for run in _candidate_runs(campaign)]
    if not losses:
        return 1.0
    return reaches_target(plan.deciding.sequence, losses, -plan.target, SPREAD_FLOOR * plan.deciding.loss_spread).p


def _target_again(verdict: CampaignVerdict, p_missed: float) -> Again:
    """`misses target` of a race may mean that so few runs did not show it; only the test the other way round denies."""
    failed = verdict.verdict is Verdict.MISSES_TARGET and verdict.stop is Stop.FAILED_RUNS
    if failed or p_missed < DISAGREES_BELOW:
        return Again.MISSED
    return Again.SHOWN if verdict.p_target <= DISAGREES_BELOW else Again.OPEN


def _candidate_runs(campaign: Campaign[Any]) -> list[TimedRun | None]:
    return [timed_run(block.runs[CANDIDATE]) for block in campaign.course.blocks]


def _p_of_losses(filed: Campaign[Any], found: Campaign[Any]) -> float | None:
    """Two-sided p of Welch's t-test on the losses of two series of the same record; None without two runs each."""
    series = [[run.loss for run in _candidate_runs(campaign) if run is not None] for campaign in (filed, found)]
    if min(map(len, series)) < 2:
        return None
    p = float(stats.ttest_ind(*series, equal_var=False).pvalue)
    return p if math.isfinite(p) else float(series[0][0] == series[1][0])  # no spread at all in either


def keep_verification(campaign: Campaign[Any], where: Where) -> Verification:
    """Writes verification.json into the campaign's folder."""
    found = verification_of(campaign, where)
    text = json.dumps(found.model_dump(mode="json"), indent=2, allow_nan=False) + "\n"
    write_atomically(campaign.folder / VERIFICATION, text)
    return found


def read_verification(folder: Path) -> Verification:
    """verification.json of a campaign's folder. Raises UserError that names file and field."""
    return read_object(folder / VERIFICATION, Verification, MAX_RECORD_BYTES, RESTORE)


def check_verifications(where: Where) -> list[Checked]:
    """Computes every finished verification of a task and class again."""
    checked = []
    plans = [path for record in history(where) for path in sorted(record.glob(f"{VERIFICATIONS}/*/{PLAN}"))]
    for folder in [path.parent for path in plans]:
        try:
            campaign = read_campaign(folder)
            problems = [*verdict_problems(campaign), *core_problems(campaign.plan)]
            if not problems and verdict_of(campaign) is not None:
                problems = differences(VERIFICATION, read_verification(folder), verification_of(campaign, where))
        except UserError as error:
            problems = [error.message]
        checked.append(Checked(folder.relative_to(where.records).as_posix(), problems))
    return checked
