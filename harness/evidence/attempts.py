"""Attempts: a submission's campaign against the reigning record, found again where it was begun before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from harness.campaign import data_digest
from harness.core.sandbox import probe
from harness.core.task import hardware_class
from harness.errors import UserError
from harness.evidence.arms import submission_folder
from harness.evidence.calibration import calibration_for
from harness.evidence.course import broke_a_rule
from harness.evidence.filing import ISOLATED, require_fileable
from harness.evidence.folder import PLAN, VERDICT, Campaign, create_campaign, read_campaign
from harness.evidence.plans import CANDIDATE, REFERENCE, RaceCampaign
from harness.evidence.race import plan_baseline, plan_race
from harness.evidence.records import ATTEMPTS, SUBMISSION, history, load_record, reigning
from harness.evidence.series import measurement_version
from harness.evidence.sides import Side, Where
from harness.evidence.verdict import is_comparison, read_verdict
from harness.frozen import core_digest
from harness.machine import Machine
from harness.statistics import LOOKS, Verdict
from harness.submission import Submission, load_submission


@dataclass(frozen=True)
class Attempt:
    """The campaign that decides a submission, and the earlier ones of the same sources that are no part of it.

    `passed_over`: folder and reason of each, for a person. Every one of them had its own chance of a false record.
    """

    campaign: Campaign[Any]
    passed_over: list[str]


def attempts_folder(where: Where) -> Path:
    """Where the attempts at a record of a task and class are kept."""
    return where.records / where.task / where.hardware / ATTEMPTS


def attempt_of(
    candidate: Submission, word: str, where: Where, machine: Machine, now: datetime, as_baseline: bool = False,
    against: str | None = None,
) -> Attempt:  # fmt: skip
    """The campaign that decides a submission: begun before and not final, or a new one, planned and kept.

    Against the reigning record where there is one, or the present baseline; otherwise it is the first of its task and
    class. `against` names another record, and then it is a comparison. Raises UserError where the same submission has
    been decided for good, is the record that it would race, or names a parent that is not there, where a baseline
    brings a new optimizer, where `against` is no record of the task and class or reigns, and where runs of this core on
    this machine could not become a record.
    """
    if candidate.manifest.parent is not None:
        submission_folder(candidate.manifest.parent, where)
    present = reigning(where, as_baseline) if against is None else _not_reigning(against, where)
    reference = load_submission(present / SUBMISSION, candidate.task) if present else None
    if present is not None and reference is not None and reference.digest == candidate.digest:
        role = "the baseline" if as_baseline else "the reigning record" if against is None else "the very record"
        what = f"{candidate.folder}: it is {role} {load_record(present).id}"
        raise UserError(what, "change the submission; `speedrun verify` reruns a record")
    if as_baseline and reference is not None:
        _require_no_new_optimizer(candidate, reference)
    trust = probe().level_for(hardware_class(where.hardware).devices)
    require_fileable(str(candidate.folder), measurement_version(), [trust])
    comparison = against is not None
    before, passed_over = _begun_before(candidate, reference, where, machine, as_baseline, comparison)
    if before is not None:
        return Attempt(before, passed_over)
    calibration = calibration_for(where)
    side, holdout = Side(word, candidate), bool(candidate.task.of_split("holdout"))
    if present is None or reference is None:
        first = plan_baseline(side, where.hardware, calibration, machine, now, judge_holdout=holdout)
        return Attempt(create_campaign(attempts_folder(where), first, {CANDIDATE: candidate}), passed_over)
    sides = (side, Side(load_record(present).id, reference))
    plan = plan_race(sides, where.hardware, LOOKS[-1], calibration, machine, now, holdout, as_baseline, comparison)
    made = create_campaign(attempts_folder(where), plan, {CANDIDATE: candidate, REFERENCE: reference})
    return Attempt(made, passed_over)


def _not_reigning(word: str, where: Where) -> Path:
    """The folder of the record that a word names. Raises UserError where it is none of this board, or reigns."""
    named = submission_folder(word, where).parent.resolve()
    folder = next((folder for folder in history(where) if folder.resolve() == named), None)
    if folder is None:
        what = f"--against {word}: no record of {where.task} on {where.hardware}"
        raise UserError(what, f"name one, such as {where.task}/{where.hardware}/001; `speedrun race` races anything")
    if folder == reigning(where):
        raise UserError(f"--against {word}: it is the reigning record", "submit it without --against")
    return folder


def _require_no_new_optimizer(candidate: Submission, reference: Submission) -> None:
    for name, method in candidate.manifest.methods.items():
        if method.default and method.kind == "optimizer" and name not in reference.manifest.methods:
            what = f"{candidate.folder}/submission.toml: methods.{name}: an optimizer that the baseline does not have"
            raise UserError(what, "submit it without --as-baseline: it is raced against the reigning record")


def _begun_before(
    candidate: Submission, reference: Submission | None, where: Where, machine: Machine, as_baseline: bool,
    comparison: bool,
) -> tuple[Campaign[Any] | None, list[str]]:  # fmt: skip
    """The attempt of the same two sources under the same conditions, and others of them, each with what is another.

    Raises UserError where it is final.
    """
    digests = {CANDIDATE: candidate.digest} | ({REFERENCE: reference.digest} if reference else {})
    present = {
        "machine": machine.digest, "core": core_digest(), "task": candidate.task.digest,
        "data": data_digest(candidate.task),
    }  # fmt: skip
    passed_over: list[str] = []
    for path in sorted(attempts_folder(where).glob(f"*/{PLAN}"), reverse=True):
        campaign = read_campaign(path.parent)
        plan = campaign.plan
        if digests != {name: arm.digest for name, arm in plan.arms.items()}:
            continue
        if isinstance(plan, RaceCampaign) and (plan.as_baseline, plan.comparison) != (as_baseline, comparison):
            continue
        if why := _why_not(campaign, present):
            passed_over.append(f"{campaign.folder}: {', '.join(why)}")
            continue
        if (campaign.folder / VERDICT).exists():
            verdict = read_verdict(campaign)
            # Invalid by the reference's fault alone: that decides nothing about the candidate.
            if verdict.verdict is Verdict.INVALID and not broke_a_rule(campaign.lines, CANDIDATE):
                passed_over.append(f"{campaign.folder}: the reference failed: {verdict.reason}")
                continue
            # A verdict `record` that is not filed yet is gone on with: its filing was cut short.
            if verdict.final and (verdict.verdict is not Verdict.RECORD or is_comparison(campaign)):
                what = f"{candidate.folder}: this very source has been decided: {verdict.verdict}"
                raise UserError(f"{what} ({campaign.folder})", "change the submission, then submit it")
        return campaign, passed_over
    return None, passed_over


def _why_not(campaign: Campaign[Any], present: Mapping[str, str]) -> list[str]:
    """Why an attempt cannot be gone on with: conditions that are others now, and what could never be filed."""
    plan = campaign.plan
    then = (plan.machine_digest, plan.core_digest, plan.task_digest, plan.data_digest)
    why = [f"another {name}" for (name, now), kept in zip(present.items(), then, strict=True) if now != kept]
    if plan.measurement_version is None:
        why.append("a core that was not pinned")
    return why + sorted({f"{line.trust} runs" for line in campaign.lines if line.trust not in (None, ISOLATED)})
