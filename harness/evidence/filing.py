"""A finished attempt becomes a record: its folder is made, whole or not at all."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from harness.bundle import write_atomically
from harness.errors import UserError
from harness.evidence.bundles import BUNDLES
from harness.evidence.folder import PLAN, RUNS, VERDICT, Campaign, read_campaign
from harness.evidence.notes import Before, Tried, new_notes, one_line
from harness.evidence.plans import CANDIDATE, REFERENCE, Arm, RaceCampaign
from harness.evidence.race import decide_campaign
from harness.evidence.records import (
    ATTEMPTS,
    NOTES,
    RECORD,
    SUBMISSION,
    Record,
    RecordMethod,
    history,
    load_record,
    reigning,
    submission_of_record,
)
from harness.evidence.repetitions import same_before
from harness.evidence.sides import Where
from harness.evidence.verdict import is_comparison, read_verdict, verdict_of, word_of
from harness.journal_file import sync_folder
from harness.statistics import Verdict
from harness.submission import Method, Submission

ISOLATED = "isolated"


@dataclass(frozen=True)
class Parent:
    """The record that another one was raced against."""

    record: Record
    submission: Submission


def make_record(
    campaign: Campaign[Any], submission: Submission, record_id: str, parent: Parent | None, filed: str
) -> Record:
    """What a finished attempt with the verdict `record` is as a record. Raises UserError where it cannot be one."""
    plan = campaign.plan
    verdict = verdict_of(campaign)
    if verdict is None or verdict.verdict is not Verdict.RECORD:
        raise UserError(f"{campaign.folder}: its verdict is not {Verdict.RECORD}", "there is nothing to file")
    if is_comparison(campaign):
        raise UserError(f"{campaign.folder}: a comparison is no record", "submit it without --against")
    require_fileable(str(campaign.folder), plan.measurement_version, verdict.trust)
    own, before = _methods_on(submission), _methods_on(parent.submission) if parent else {}
    figures, decision = verdict.arms[CANDIDATE], decide_campaign(plan, campaign.course)
    return Record.model_validate(
        {
            "id": record_id, "kind": "baseline" if parent is None or as_baseline(campaign) else "race",
            "task": plan.task, "hardware_class": plan.hardware_class,
            "title": one_line(submission.manifest.title),
            "authors": [one_line(author) for author in submission.manifest.authors],
            "parent": parent.record.id if parent else None, "filed": filed, "attempt": plan.id,
            "submission": submission.digest,
            "methods": {
                name: RecordMethod(kind=method.kind, summary=method.summary, source=method.source)
                for name, method in own.items()
            },
            "methods_added": sorted(own.keys() - before.keys()),
            "methods_dropped": sorted(before.keys() - own.keys()),
            "core_digest": plan.core_digest, "measurement_version": plan.measurement_version,
            "task_digest": plan.task_digest, "data_digest": plan.data_digest,
            "machine": plan.machine, "machine_digest": plan.machine_digest,
            "target": plan.target, "target_provisional": plan.target_provisional,
            "runs": figures.runs, "val_loss": figures.mean_loss, "loss_spread": figures.loss_spread,
            "seconds": figures.mean_seconds, "steps": figures.mean_steps, "tokens": figures.mean_tokens,
            "p_target": verdict.p_target, "holdout_gap": _holdout_gap(campaign),
            "ratio": verdict.equal_loss, "estimate": decision.faster.estimate if decision.faster else None,
            "slope": plan.calibration.slope, "chain": campaign.chain,
        }
    )  # fmt: skip


def require_fileable(what: str, measurement_version: int | None, trust: Sequence[str]) -> None:
    """Raises UserError where runs of such a core, at such trust levels, cannot become a record."""
    if measurement_version is None:
        text = f"{what}: the core that measures differs from the one that harness/frozen.toml pins"
        raise UserError(text, "submit again with an unchanged core")
    if list(trust) != [ISOLATED]:
        text = f"{what}: trust {', '.join(trust)}, and a record needs isolated runs"
        raise UserError(text, "`speedrun doctor` says what is missing; submit again on such a machine")


def _methods_on(submission: Submission) -> dict[str, Method]:
    """What is off by default takes no part in the record."""
    return {name: method for name, method in submission.manifest.methods.items() if method.default}


def _holdout_gap(campaign: Campaign[Any]) -> float | None:
    """The counted line that was judged on the holdout too: how much more it lost there, nats per token."""
    for block in campaign.course.blocks:
        line = block.runs[CANDIDATE]
        if line.holdout_loss is not None and line.val_loss is not None:
            return line.holdout_loss - line.val_loss
    return None


def file_record(campaign: Campaign[Any], where: Where, name: str, now: datetime) -> Path:
    """Makes the record folder of an attempt, whole or not at all; answers it. Raises UserError.

    The record that the attempt was raced against must still be the reigning one, or the present baseline.
    """
    before, takes_its_place = history(where), as_baseline(campaign)
    parent = parent_of(reigning(where, takes_its_place))
    reference = campaign.plan.arms.get(REFERENCE)
    if (reference.digest if reference else None) != (parent.record.submission if parent else None):
        was = "baseline" if takes_its_place else "reigning record"
        what = f"{campaign.folder}: raced against what is no longer the {was}"
        raise UserError(what, "submit again: it is then raced against the present one")
    number = 1 + (int(before[-1].name[:3]) if before else 0)
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60].strip("-") or "submission"
    folder = where.records / where.task / where.hardware / f"{number:03d}-{slug}"
    submission = campaign.submissions[CANDIDATE]
    record_id = f"{where.task}/{where.hardware}/{folder.name}"
    record = make_record(campaign, submission, record_id, parent, f"{now:%Y-%m-%d}")
    notes_before = Before(parent.record, parent.submission.hparams([])) if parent else None
    tried = other_attempts(campaign, where)
    partial = folder.with_name(f".{folder.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        submission.snapshot(partial / SUBMISSION)
        for file in (PLAN, RUNS, BUNDLES, VERDICT):
            shutil.copyfile(campaign.folder / file, partial / file)
        notes = new_notes(record, submission.hparams([]), notes_before, tried, len(same_before(campaign)))
        write_atomically(partial / NOTES, notes)
        write_atomically(partial / RECORD, json.dumps(record.model_dump(mode="json"), indent=2, allow_nan=False) + "\n")
        partial.rename(folder)
        sync_folder(folder.parent)
    except OSError as error:
        remedy = f"make room on the disk, then: speedrun resume {campaign.plan.id}, or submit it again"
        raise UserError(f"{folder}: {error.strerror}", remedy) from None
    return folder


def as_baseline(campaign: Campaign[Any]) -> bool:
    """Whether the attempt was raced to take the baseline's place."""
    return isinstance(campaign.plan, RaceCampaign) and campaign.plan.as_baseline


def parent_of(folder: Path | None) -> Parent | None:
    """The record of a folder as another one's parent."""
    if folder is None:
        return None
    return Parent(load_record(folder), submission_of_record(folder))


def other_attempts(campaign: Campaign[Any], where: Where) -> list[Tried]:
    """The decided attempts against the same reference, oldest first, without this one and what cannot be read."""
    asked, found = campaign.plan.arms.get(REFERENCE), []
    for path in sorted((where.records / where.task / where.hardware / ATTEMPTS).glob(f"*/{VERDICT}")):
        try:
            other = read_campaign(path.parent)
            verdict = read_verdict(other)
        except UserError:
            continue  # `speedrun records verify` names it; a record is filed all the same
        reference = other.plan.arms.get(REFERENCE)
        if other.plan.id != campaign.plan.id and _digest(reference) == _digest(asked):
            title = one_line(other.plan.arms[CANDIDATE].title)
            found.append(Tried(title, word_of(other, verdict), verdict.equal_loss, f"{ATTEMPTS}/{path.parent.name}"))
    return found


def _digest(arm: Arm | None) -> str | None:
    return arm.digest if arm else None
