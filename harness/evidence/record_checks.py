"""`speedrun records verify`: every record and attempt computed again from its plan, runs and source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.core.files import read_file
from harness.core.task import Strict
from harness.errors import UserError
from harness.evidence.bundles import BUNDLES, bundle_problems
from harness.evidence.comparing import same
from harness.evidence.filing import as_baseline, make_record, parent_of
from harness.evidence.folder import PLAN, RUNS, VERDICT, Campaign, read_campaign
from harness.evidence.notes import figures
from harness.evidence.plan_checks import plan_problems
from harness.evidence.plans import CANDIDATE, REFERENCE, BaselineCampaign, CampaignPlan, DecidedCampaign
from harness.evidence.records import (
    ATTEMPTS,
    NOTES,
    RECORD,
    RESTORE,
    SUBMISSION,
    VERIFICATIONS,
    Record,
    due_parent,
    history,
    load_record,
    submission_of_record,
)
from harness.evidence.sides import Where
from harness.evidence.verdict import read_verdict, verdict_of
from harness.frozen import frozen_versions

MAX_FILE_BYTES = 200 * 1000  # of what a record adds to a repository


@dataclass(frozen=True)
class Checked:
    """A record or attempt and everything in it that does not agree with the rest."""

    name: str
    problems: list[str]


def check_records(where: Where) -> list[Checked]:
    """Computes every record and attempt of a task and class again, from its plan, runs and source."""
    checked: list[Checked] = []
    before: list[Record] = []
    for number, folder in enumerate(history(where), start=1):
        problems = [] if folder.name.startswith(f"{number:03d}-") else [f"number {number:03d} is due here"]
        try:
            problems += _record_problems(folder, where, before)
            before.append(load_record(folder))
        except UserError as error:
            problems.append(error.message)
        checked.append(Checked(f"{where.task}/{where.hardware}/{folder.name}", problems))
    for plan in sorted((where.records / where.task / where.hardware / ATTEMPTS).glob(f"*/{PLAN}")):
        try:
            problems = verdict_problems(read_campaign(plan.parent))
        except UserError as error:
            problems = [error.message]
        checked.append(Checked(f"{where.task}/{where.hardware}/{ATTEMPTS}/{plan.parent.name}", problems))
    return checked


def _record_problems(folder: Path, where: Where, before: Sequence[Record]) -> list[str]:
    campaign = read_campaign(folder)
    due_before = due_parent(before, as_baseline(campaign))
    parent = parent_of(where.records / due_before.id if due_before else None)
    record, submission = load_record(folder), submission_of_record(folder)
    problems = verdict_problems(campaign)
    plan = campaign.plan
    if submission.digest != plan.arms[CANDIDATE].digest:
        problems.append(f"{SUBMISSION}/: its digest is not that of plan.json")
    raced = plan.arms[REFERENCE].digest if REFERENCE in plan.arms else None
    if isinstance(plan, BaselineCampaign) != (parent is None) or (parent and raced != parent.record.submission):
        problems.append(f"{PLAN}: the reference is not the submission of the record that was due")
    problems += core_problems(plan)
    try:
        due = make_record(campaign, submission, f"{where.task}/{where.hardware}/{folder.name}", parent, record.filed)
    except UserError as error:
        return [*problems, error.message]
    for name in Record.model_fields:
        kept, computed = getattr(record, name), getattr(due, name)
        if not same(kept, computed):
            problems.append(f"{RECORD}: {name}: {kept!r} where the runs give {computed!r}")
    if figures(record).encode() not in (_content(folder / NOTES) or b""):
        problems.append(f"{NOTES}: the figures between the markers are not those of {RECORD}")
    attempt = folder.parent / ATTEMPTS / record.attempt
    for file in (PLAN, RUNS, BUNDLES, VERDICT):
        if (content := _content(folder / file)) is None or _content(attempt / file) != content:
            problems.append(f"{file}: not that of {ATTEMPTS}/{record.attempt}")
    return problems


def core_problems(plan: CampaignPlan) -> list[str]:
    """Whether a campaign was measured by a core that frozen.toml lists."""
    pinned = {(one.measurement_version, one.core_digest) for one in frozen_versions()}
    edited = (plan.measurement_version, plan.core_digest) not in pinned
    return [f"{PLAN}: core_digest: not that of a version in harness/frozen.toml: the core was edited"] if edited else []


def _content(path: Path) -> bytes | None:
    """A file of a record; None where there is none, or it is larger than a record's files may be."""
    try:
        return read_file(path, MAX_FILE_BYTES, RESTORE, follow_link=False)
    except UserError:
        return None


def verdict_problems(campaign: Campaign[Any]) -> list[str]:
    """What in an attempt does not follow from its plan and lines; an unfinished one has no verdict yet."""
    if not isinstance(campaign.plan, DecidedCampaign):
        return [f"{PLAN}: kind: a {campaign.plan.kind} is no attempt"]
    repetition = campaign.folder.parent.name == VERIFICATIONS
    problems = [f"{PLAN}: {problem}" for problem in plan_problems(campaign.plan, repetition)]
    problems += bundle_problems(campaign)
    due = verdict_of(campaign)
    if not (campaign.folder / VERDICT).exists():
        missing = due is not None and due.final  # after futility it may be gone on with, to a new verdict
        said = [f"{VERDICT}: missing, though the campaign has come to {due.verdict}"] if due and missing else []
        return problems + said
    if due is None:
        return [*problems, f"{VERDICT}: there, though the campaign has not come to a verdict"]
    return problems + differences(VERDICT, read_verdict(campaign), due)


def differences(file: str, kept: Strict, due: Strict) -> list[str]:
    """The fields of a kept file that are not what was computed again, which is of the same class."""
    values = [(name, getattr(kept, name), getattr(due, name)) for name in type(due).model_fields]
    differ = [(name, a, b) for name, a, b in values if not same({name: a}, {name: b})]
    return [f"{file}: {name}: {a!r} where the runs give {b!r}" for name, a, b in differ]
