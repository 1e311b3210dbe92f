"""A run's bundle: run.json (versioned schema), log.jsonl, the output, the source that ran.

Bundles are also read that others made: see harness/core/files.py for what is refused. run.json and log.jsonl are
ASCII, so that no name in them can steer a terminal that shows the file.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from harness.core.files import open_regular, parse_json, read_file
from harness.errors import UserError, describe_validation

SCHEMA_VERSION = 1
MAX_RUN_JSON_BYTES = 4 << 20
MAX_BUNDLE_FILE_BYTES = 1 << 30  # far above what any task lets a run print or log


class RunRecord(BaseModel):
    """run.json. Seconds are wall-clock unless the name says CPU; losses are nats per token."""

    model_config = ConfigDict(extra="forbid")

    schema_version: int = SCHEMA_VERSION
    run_id: str
    started: str  # UTC, ISO 8601
    state: str
    reason: str | None
    message: str
    task: str
    hardware_class: str
    submission: str
    title: str
    seed: int
    seed_drawn: bool = True  # by the referee; evidence needs that
    methods: dict[str, bool]
    hparams: dict[str, Any]
    consulted: list[str]
    trust: str
    rung: str  # how that level is reached: harness/core/sandbox.py
    target: float
    target_provisional: bool
    val_loss: float | None
    bits_per_byte: float | None
    seconds: float | None
    cpu_seconds: float | None
    setup_cpu_seconds: float | None
    export_seconds: float | None
    tokens: int | None
    tokens_counted_by: str | None
    steps: float | None = None  # tokens in steps of the task's size: its score, where it has one
    times: dict[str, float]
    suspended_seconds: float
    lost_seconds: float | None  # what others had of the run's CPUs; stolen: a hypervisor; see harness/core/clock.py
    stolen_seconds: float | None
    cpus: list[int]  # those of the run
    judgement: dict[str, Any] | None
    holdout: dict[str, Any] | None = None  # the judgement on the holdout split, where it was asked for
    holdout_failure: str = ""  # why it came to none
    weights_bytes: int | None
    log_rows: int
    log_rows_dropped: int
    output_truncated: bool
    still_computing: list[dict[str, Any]] = []  # at the seal: pid, name, CPU seconds while it was watched
    digests: dict[str, str | None]
    measurement_version: int | None  # None: the core differs from the one that frozen.toml pins
    machine: dict[str, Any]
    load: dict[str, Any]  # what else the machine did just before the run
    packages: dict[str, str]
    commit: str | None
    review: list[dict[str, str]] = []  # what a person should look at: harness/review.py
    warnings: list[dict[str, str]]

    @property
    def reached_target(self) -> bool:
        return self.val_loss is not None and self.val_loss <= self.target


def write_bundle(folder: Path, record: RunRecord, rows: list[dict[str, Any]]) -> None:
    """Writes log.jsonl and then run.json, each whole or not at all. Raises UserError."""
    write_atomically(folder / "log.jsonl", log_text(rows))
    write_atomically(folder / "run.json", json.dumps(record.model_dump(mode="json"), indent=2, allow_nan=False) + "\n")


def log_text(rows: list[dict[str, Any]]) -> str:
    """The content of log.jsonl."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def changed_bundles(runs_dir: Path, digests: dict[str, str]) -> list[str]:
    """Runs whose run.json, log or output is not what the journal closed them with; `digests` maps run to sha256."""
    changed = []
    for run_id, digest in digests.items():
        if run_id in ("", ".", "..") or "/" in run_id or "\0" in run_id:
            changed.append(f"{run_id!r}: not the name of a folder of the runs folder")
        elif os.path.lexists(runs_dir / run_id / "run.json"):  # bundles may be removed, the journal keeps their digest
            changed += [f"{run_id}: {what}" for what in _changes(runs_dir / run_id, digest)]
    return changed


def _changes(folder: Path, digest: str) -> list[str]:
    """What in a bundle was changed after its run, whose run.json had this sha256."""
    try:
        content = read_file(folder / "run.json", MAX_RUN_JSON_BYTES, "", follow_link=False)
        kept = parse_json(content)["digests"] if hashlib.sha256(content).hexdigest() == digest else None
        log, output = (kept["log"], kept["output"]) if kept is not None else (None, None)
    except UserError as error:
        return [f"run.json cannot be what the run wrote ({error.message})"]
    except (ValueError, TypeError, KeyError):
        return ["run.json has the digest that the journal gives, but no harness wrote it"]
    if kept is None:
        return ["run.json was changed after the run"]
    files = (("log.jsonl", log), ("output.txt", output))
    return [f"{file} was changed after the run" for file, expected in files if _sha256(folder / file) != expected]


def _sha256(path: Path) -> str | None:
    """The sha256 of a plain file of a bundle; None where there is none, or a link, a pipe, or one far too large."""
    try:
        descriptor = open_regular(path, follow_link=False)
        with os.fdopen(descriptor, "rb") as file:
            too_large = os.fstat(descriptor).st_size > MAX_BUNDLE_FILE_BYTES
            return None if too_large else hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def read_record(path: Path) -> RunRecord:
    """Reads a run.json. Raises UserError that names the file and the field."""
    try:
        return RunRecord.model_validate(read_table(path), strict=True)
    except ValidationError as error:
        raise describe_validation(error, path, "it was not written by this version of the harness") from None


def finished_runs(runs_dir: Path, task: str) -> Iterator[RunRecord]:
    """The records of a task's runs in a folder, newest first; what cannot be read is left out."""
    for path in sorted(runs_dir.glob(f"*-{task}-*/run.json"), reverse=True):
        try:
            record = read_record(path)
        except UserError:
            continue
        if record.task == task:
            yield record


def read_table(path: Path) -> dict[str, Any]:
    """The JSON object in a run.json or record.json, whatever its fields. Raises UserError."""
    content = read_file(path, MAX_RUN_JSON_BYTES, "give a run folder that holds a run.json", follow_link=False)
    try:
        table = parse_json(content)
    except ValueError as error:
        raise UserError(f"{path}: {error}", "it was not written by the harness") from None
    if not isinstance(table, dict):
        raise UserError(f"{path}: not a JSON object", "it was not written by the harness")
    return table


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a file whole or leaves what was there. Raises UserError when the disk refuses."""
    temporary = path.with_name(path.name + ".partial")
    try:
        with temporary.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(f"{path}: {error.strerror}", "free space or choose another --runs-dir") from None
