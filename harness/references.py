"""The reference runs of a baseline that are kept in the repository: tuning/reference_runs.jsonl."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from harness.core.files import read_file
from harness.errors import describe_validation

MAX_REFERENCES_BYTES = 1 << 20
REFERENCE_FILE = Path("tuning") / "reference_runs.jsonl"

Number = Annotated[float, Field(gt=0, lt=1e9)]


@dataclass(frozen=True)
class Reference:
    """One reference run kept in the repository."""

    val_loss: Number
    seconds: Number
    cpu_seconds: float
    tokens: int
    seed: int
    run_id: str
    machine: str
    machine_digest: str
    submission_digest: str
    measurement_version: int  # of the core that took the seconds


_REFERENCE = TypeAdapter(Reference)


def load_references(folder: Path) -> list[Reference]:
    """The reference runs of a baseline folder; empty where it has none. Raises UserError."""
    path = folder / REFERENCE_FILE
    if not path.exists():
        return []
    content = read_file(path, MAX_REFERENCES_BYTES, "restore it from git")
    try:
        return [_REFERENCE.validate_json(line, strict=True) for line in content.splitlines()]
    except ValidationError as error:
        raise describe_validation(error, path, "restore it from git") from None
