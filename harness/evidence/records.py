"""Records as data: what a record folder holds and how it is read.

A record folder, records/TASK/CLASS/NNN-SLUG/, holds record.json, the submission, the attempt it rests on (plan.json,
runs.jsonl and verdict.json, copied from attempts/ID/), notes.md for people, and verifications/ by whoever reran it.
record.json says nothing that does not follow from the rest, so that `speedrun records verify` can compute it again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from harness.core.files import parse_json, read_file
from harness.core.task import TASK_NAME, Strict, load_task
from harness.errors import UserError, describe_validation
from harness.evidence.folder import read_campaign
from harness.evidence.plans import Digest, Text
from harness.evidence.sides import Where
from harness.statistics import Interval, RatioEstimate, Slope
from harness.submission import Submission, load_submission

SCHEMA_VERSION = 1
RECORD, NOTES, SUBMISSION, ATTEMPTS, VERIFICATIONS = (
    "record.json", "notes.md", "submission", "attempts", "verifications",
)  # fmt: skip
MAX_RECORD_BYTES = 256 * 1024
FOLDER_NAME = r"[0-9]{3}-[a-z0-9-]{1,60}"
RECORD_ID = rf"^[a-z0-9-]+/[A-Za-z0-9-]+/{FOLDER_NAME}$"
RESTORE = "restore the record from git"
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
    steps: float | None = None  # where the task counts steps: the score
    tokens: float
    p_target: float
    holdout_gap: float | None
    ratio: Interval | None
    estimate: RatioEstimate | None
    slope: Slope
    chain: Digest  # of the last line of runs.jsonl


def short_id(record: str) -> str:
    """gcide/cpu-1thread/002 of gcide/cpu-1thread/002-without-muon: a slug may hold hyphens."""
    return record[: record.rindex("/") + 4]


def history(where: Where) -> list[Path]:
    """The record folders of a task and class, oldest first. Raises UserError for one whose name is not NNN-SLUG."""
    board = where.records / where.task / where.hardware
    folders = sorted(path.parent for path in board.glob(f"[0-9]*/{RECORD}"))
    for folder in folders:
        if not re.fullmatch(FOLDER_NAME, folder.name):
            raise UserError(f"{folder}: no name of a record's folder", "name it as 004-my-method, or move it away")
    return folders


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


def submission_of_record(folder: Path) -> Submission:
    """The submission of a record, under the task that its plan names."""
    plan = read_campaign(folder).plan
    return load_submission(folder / SUBMISSION, load_task(plan.task_source))
