"""A run's bundle: run.json (versioned schema), log.jsonl, the output, the source that ran."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from harness.errors import UserError, describe_validation

SCHEMA_VERSION = 1
MAX_RUN_JSON_BYTES = 4 << 20


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
    times: dict[str, float]
    suspended_seconds: float
    judgement: dict[str, Any] | None
    holdout: dict[str, Any] | None = None  # the judgement on the holdout split, where it was asked for
    weights_bytes: int | None
    log_rows: int
    log_rows_dropped: int
    output_truncated: bool
    digests: dict[str, str | None]
    measurement_version: int | None  # None: the core differs from the one that frozen.toml pins
    machine: dict[str, Any]
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
    write_atomically(folder / "run.json", record.model_dump_json(indent=2) + "\n")


def log_text(rows: list[dict[str, Any]]) -> str:
    """The content of log.jsonl."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def changed_bundles(runs_dir: Path, digests: dict[str, str]) -> list[str]:
    """Runs whose run.json, log or output is not what the journal closed them with; `digests` maps run to sha256."""
    changed = []
    for run_id, digest in digests.items():
        folder = runs_dir / run_id
        try:
            content = (folder / "run.json").read_bytes()
        except OSError:
            continue  # removed or moved away: bundles may be, the journal keeps their digest
        kept = json.loads(content).get("digests", {}) if hashlib.sha256(content).hexdigest() == digest else None
        if kept is None:
            changed.append(f"{run_id}: run.json was changed after the run")
            continue
        for name, file in (("log", "log.jsonl"), ("output", "output.txt")):
            path = folder / file
            if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() != kept.get(name):
                changed.append(f"{run_id}: {file} was changed after the run")
    return changed


def read_record(path: Path) -> RunRecord:
    """Reads a run.json. Raises UserError that names the file and the field."""
    try:
        if path.stat().st_size > MAX_RUN_JSON_BYTES:
            raise UserError(f"{path}: larger than {MAX_RUN_JSON_BYTES:,} bytes", "it is not a run.json")
        return RunRecord.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}", "give a run folder that holds a run.json") from None
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


def write_atomically(path: Path, text: str) -> None:
    """Writes a file whole or leaves what was there. Raises UserError when the disk refuses."""
    temporary = path.with_name(path.name + ".partial")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(f"{path}: {error.strerror}", "free space or choose another --runs-dir") from None
