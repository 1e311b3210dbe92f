"""Records as data: what a record folder holds, how one is made from a finished attempt, how it is read and checked.

A record folder, records/TASK/CLASS/NNN-SLUG/, holds record.json, the submission, the attempt it rests on (plan.json,
runs.jsonl and verdict.json, copied from attempts/ID/), notes.md for people, and verifications/ by whoever reran it.
record.json says nothing that does not follow from the rest, so that `speedrun records verify` can compute it again.
"""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from harness.bundle import write_atomically
from harness.core.files import parse_json, read_file
from harness.core.task import TASK_NAME, Strict, load_task
from harness.errors import UserError, describe_validation
from harness.evidence.arms import Where
from harness.evidence.folder import PLAN, RUNS, VERDICT, Campaign, read_campaign
from harness.evidence.notes import Before, Tried, figures, new_notes, one_line
from harness.evidence.plans import (
    CANDIDATE,
    REFERENCE,
    Arm,
    BaselineCampaign,
    DecidedCampaign,
    Digest,
    RaceCampaign,
    Text,
)
from harness.evidence.race import decide_campaign
from harness.evidence.verdict import read_verdict, verdict_of
from harness.journal_file import sync_folder
from harness.statistics import Interval, RatioEstimate, Slope, Verdict
from harness.submission import Submission, load_submission

SCHEMA_VERSION = 1
RECORD, NOTES, SUBMISSION, ATTEMPTS, VERIFICATIONS = (
    "record.json", "notes.md", "submission", "attempts", "verifications",
)  # fmt: skip
MAX_RECORD_BYTES = 256 * 1024
MAX_FILE_BYTES = 200 * 1000  # of what a record adds to a repository
RECORD_ID = r"^[a-z0-9-]+/[A-Za-z0-9-]+/[0-9]{3}-[a-z0-9-]{1,60}$"
RESTORE = "restore the record from git"
ROUNDING = 1e-6
# From an older schema version to the next one: what a table of that version becomes.
UPGRADES: Mapping[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}


class RecordMethod(Strict):
    """A method of the record's submission."""

    kind: Text
    summary: Text
    source: Text


class Record(Strict):
    """record.json. Seconds are wall-clock, losses nats per token, both means over the counted runs.

    `kind`: `baseline` for the first record, and for what was raced against the baseline before it, to take its place;
    such a record is the baseline from then on, but reigns only where no other record does. `parent`: the record it was
    raced against. `ratio`: parent over record at equal loss, limits at 99% one-sided;
    `estimate` and `slope` are its parts, for products along the chain. None for the first record, of kind `baseline`.
    `holdout_gap`: loss on the holdout split minus loss on validation of the one run that was judged on both; it decides
    nothing, and is None where that run failed or the task has no holdout.
    """

    schema_version: Literal[1] = 1
    id: str = Field(pattern=RECORD_ID)
    kind: Literal["baseline", "race"]
    task: str = Field(pattern=TASK_NAME)
    hardware_class: Text
    title: Text
    authors: list[Text]
    parent: str | None = Field(pattern=RECORD_ID)
    filed: Text  # UTC date, ISO 8601
    attempt: Text
    submission: Digest
    methods: dict[str, RecordMethod]
    methods_added: list[Text]
    methods_dropped: list[Text]
    core_digest: Digest
    measurement_version: int
    task_digest: Digest
    data_digest: Digest
    machine: Text
    machine_digest: Digest
    target: float
    target_provisional: bool
    runs: int
    val_loss: float
    loss_spread: float
    seconds: float
    tokens: float
    p_target: float
    holdout_gap: float | None
    ratio: Interval | None
    estimate: RatioEstimate | None
    slope: Slope
    chain: Digest  # of the last line of runs.jsonl


def history(where: Where) -> list[Path]:
    """The record folders of a task and class, oldest first."""
    return sorted(path.parent for path in (where.records / where.task / where.hardware).glob(f"[0-9]*/{RECORD}"))


def due_parent(before: Sequence[Record], as_baseline: bool) -> Record | None:
    """What the next record is raced against: the latest baseline, or the reigning record; None for the first.

    The latest record reigns; a later baseline takes the place of baselines alone.
    """
    baselines = [record for record in before if record.kind == "baseline"]
    raced = [record for record in before if record.kind == "race"]
    return (baselines if as_baseline or not raced else raced)[-1] if before else None


def reigning(where: Where, as_baseline: bool = False) -> Path | None:
    """The folder of the reigning record of a task and class, or of the present baseline; None where there is none."""
    record = due_parent([load_record(folder) for folder in history(where)], as_baseline)
    return where.records / record.id if record else None


def lineage(folder: Path) -> list[Path]:
    """The record folders from the first record to this one, each raced against the one before. Raises UserError."""
    chain, board = [folder], folder.parent
    while (parent := load_record(chain[0]).parent) is not None:
        before = board / parent.rpartition("/")[2]
        if before.name >= chain[0].name:
            raise UserError(f"{chain[0] / RECORD}: parent: {parent} came no earlier", RESTORE)
        chain.insert(0, before)
    return chain


def load_record(folder: Path) -> Record:
    """Reads record.json of any known version. Raises UserError that names file and field."""
    path = folder / RECORD
    content = read_file(path, MAX_RECORD_BYTES, "give the folder of a record", follow_link=False)
    try:
        table = parse_json(content)
        if not isinstance(table, dict):
            raise ValueError("not a JSON object")
        while (version := table.get("schema_version")) != SCHEMA_VERSION:
            if not isinstance(version, int) or version not in UPGRADES:
                raise ValueError(f"schema_version: {version!r} where this harness knows {SCHEMA_VERSION}")
            table = UPGRADES[version](table)
        return Record.model_validate_json(json.dumps(table), strict=True)
    except ValidationError as error:
        raise describe_validation(error, path, RESTORE) from None
    except ValueError as error:
        raise UserError(f"{path}: {error}", "update the harness, or restore the record from git") from None


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
    if plan.measurement_version is None:
        what = "the core that measured it differs from the one that harness/frozen.toml pins"
        raise UserError(f"{campaign.folder}: {what}", "submit again with an unchanged core")
    if verdict.trust != ["isolated"]:
        what = f"{campaign.folder}: trust {', '.join(verdict.trust)}, and a record needs isolated runs"
        raise UserError(what, "`speedrun doctor` says what is missing; submit again on such a machine")
    own, before = submission.manifest.methods, parent.submission.manifest.methods if parent else {}
    figures, decision = verdict.arms[CANDIDATE], decide_campaign(plan, campaign.course)
    return Record.model_validate(
        {
            "id": record_id, "kind": "baseline" if parent is None or _as_baseline(campaign) else "race",
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
            "seconds": figures.mean_seconds, "tokens": figures.mean_tokens, "p_target": verdict.p_target,
            "holdout_gap": _holdout_gap(campaign),
            "ratio": verdict.equal_loss, "estimate": decision.faster.estimate if decision.faster else None,
            "slope": plan.calibration.slope, "chain": campaign.chain,
        }
    )  # fmt: skip


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
    before, as_baseline = history(where), _as_baseline(campaign)
    parent = _parent(reigning(where, as_baseline))
    reference = campaign.plan.arms.get(REFERENCE)
    if (reference.digest if reference else None) != (parent.record.submission if parent else None):
        was = "baseline" if as_baseline else "reigning record"
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
        for file in (PLAN, RUNS, VERDICT):
            shutil.copyfile(campaign.folder / file, partial / file)
        write_atomically(partial / NOTES, new_notes(record, submission.hparams([]), notes_before, tried))
        write_atomically(partial / RECORD, json.dumps(record.model_dump(mode="json"), indent=2, allow_nan=False) + "\n")
        partial.rename(folder)
        sync_folder(folder.parent)
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}", "make room on the disk, then: speedrun resume") from None
    return folder


def _as_baseline(campaign: Campaign[Any]) -> bool:
    return isinstance(campaign.plan, RaceCampaign) and campaign.plan.as_baseline


def _parent(folder: Path | None) -> Parent | None:
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
            found.append(Tried(title, verdict.verdict, verdict.equal_loss, f"{ATTEMPTS}/{path.parent.name}"))
    return found


def _digest(arm: Arm | None) -> str | None:
    return arm.digest if arm else None


def submission_of_record(folder: Path) -> Submission:
    """The submission of a record, under the task that its plan names."""
    plan = read_campaign(folder).plan
    return load_submission(folder / SUBMISSION, load_task(plan.task_source))


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
    due_before = due_parent(before, _as_baseline(campaign))
    parent = _parent(where.records / due_before.id if due_before else None)
    record, submission = load_record(folder), submission_of_record(folder)
    problems = verdict_problems(campaign)
    plan = campaign.plan
    if submission.digest != plan.arms[CANDIDATE].digest:
        problems.append(f"{SUBMISSION}/: its digest is not that of plan.json")
    raced = plan.arms[REFERENCE].digest if REFERENCE in plan.arms else None
    if isinstance(plan, BaselineCampaign) != (parent is None) or (parent and raced != parent.record.submission):
        problems.append(f"{PLAN}: the reference is not the submission of the record that was due")
    try:
        due = make_record(campaign, submission, f"{where.task}/{where.hardware}/{folder.name}", parent, record.filed)
    except UserError as error:
        return [*problems, error.message]
    for name in Record.model_fields:
        kept, computed = getattr(record, name), getattr(due, name)
        if not _same(kept, computed):
            problems.append(f"{RECORD}: {name}: {kept!r} where the runs give {computed!r}")
    if figures(record).encode() not in (_content(folder / NOTES) or b""):
        problems.append(f"{NOTES}: the figures between the markers are not those of {RECORD}")
    attempt = folder.parent / ATTEMPTS / record.attempt
    for file in (PLAN, RUNS, VERDICT):
        if (content := _content(folder / file)) is None or _content(attempt / file) != content:
            problems.append(f"{file}: not that of {ATTEMPTS}/{record.attempt}")
    return problems


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
    due = verdict_of(campaign)
    if not (campaign.folder / VERDICT).exists():
        return [] if due is None else [f"{VERDICT}: missing, though the campaign has come to {due.verdict}"]
    if due is None:
        return [f"{VERDICT}: there, though the campaign has not come to a verdict"]
    return differences(VERDICT, read_verdict(campaign), due)


def differences(file: str, kept: Strict, due: Strict) -> list[str]:
    """The fields of a kept file that are not what was computed again, which is of the same class."""
    values = [(name, getattr(kept, name), getattr(due, name)) for name in type(due).model_fields]
    return [f"{file}: {name}: {a!r} where the runs give {b!r}" for name, a, b in values if not _same(a, b)]


def _same(kept: Any, due: Any) -> bool:
    """Whether a kept value is what was computed again; other machines round the last digits differently."""
    if isinstance(kept, float) and isinstance(due, float):
        return math.isclose(kept, due, rel_tol=ROUNDING)
    if is_dataclass(kept) and is_dataclass(due):
        return _same(asdict(kept), asdict(due))  # type: ignore[arg-type]
    if isinstance(kept, Strict) and isinstance(due, Strict):
        return _same(kept.model_dump(), due.model_dump())
    if isinstance(kept, dict) and isinstance(due, dict):
        return kept.keys() == due.keys() and all(_same(kept[name], due[name]) for name in kept)
    return bool(kept == due)
