"""bundles.jsonl.gz of a campaign: what its runs.jsonl leaves out, so that it can be looked at when runs/ is gone.

A line for each run that has a bundle: `run`, the text of its run.json, of which runs.jsonl holds the digest (packages,
machine, load, audit, flags); and `log`, at most 100 rows of its log, evenly spaced, the last one among them.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError, field_validator

from harness.bundle import MAX_RUN_JSON_BYTES, write_atomically
from harness.core.files import parse_json, read_file
from harness.core.task import Strict
from harness.errors import UserError, describe_validation
from harness.evidence.folder import RESTORE, RUNS, Campaign

BUNDLES = "bundles.jsonl.gz"
ROWS = 100
MAX_PACKED_BYTES = 4 << 20
MAX_BYTES = 64 << 20  # unpacked: 32 runs and their repetitions take 2 MB
MAX_LOG_BYTES = 256 << 20
SAME_FIELDS = ("run_id", "seed", "val_loss", "seconds", "cpu_seconds", "lost_seconds", "tokens", "steps", "trust")


class KeptBundle(Strict):
    """A run's run.json, as it was, and a part of its log."""

    run: str
    log: list[dict[str, float | None]]

    @field_validator("run")
    @classmethod
    def _is_an_object(cls, text: str) -> str:
        if not isinstance(parse_json(text.encode()), dict):
            raise ValueError("not a JSON object")
        return text

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.run.encode()).hexdigest()


def keep_bundles(campaign: Campaign[Any], runs_dir: Path) -> None:
    """Adds the runs of the campaign's lines that are not kept yet; one whose folder is gone stays out. UserError."""
    path = campaign.folder / BUNDLES
    kept = {bundle.digest: bundle for bundle in read_bundles(path)} if path.exists() else {}
    found = []
    for line in campaign.lines:
        if line.run_digest in kept:
            found.append(kept[line.run_digest])
        elif line.run_digest is not None and (runs_dir / line.run_id / "run.json").exists():
            found.append(_bundle(runs_dir / line.run_id))
    if len(found) > len(kept):
        text = "".join(json.dumps(bundle.model_dump()) + "\n" for bundle in found)
        write_atomically(path, gzip.compress(text.encode(), mtime=0))


def read_bundles(path: Path) -> list[KeptBundle]:
    """The bundles of a campaign, in the order of its lines. Raises UserError."""
    packed = read_file(path, MAX_PACKED_BYTES, RESTORE, follow_link=False)
    unpacking = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        content = unpacking.decompress(packed, MAX_BYTES)
    except zlib.error as error:
        raise UserError(f"{path}: {error}", RESTORE) from None
    if not unpacking.eof or unpacking.unused_data:
        raise UserError(f"{path}: cut short, or more than {MAX_BYTES:,} bytes", RESTORE)
    found = []
    for number, line in enumerate(content.splitlines(), start=1):
        try:
            parse_json(line)
            found.append(KeptBundle.model_validate_json(line, strict=True))
        except ValidationError as error:
            raise describe_validation(error, f"{path}: line {number}", RESTORE) from None
        except ValueError as error:
            raise UserError(f"{path}: line {number}: {error}", RESTORE) from None
    return found


def bundle_problems(campaign: Campaign[Any]) -> list[str]:
    """Runs of a campaign whose run.json is not kept, is another, or says otherwise than their line."""
    due = {line.run_digest: line for line in campaign.lines if line.run_digest is not None}
    path = campaign.folder / BUNDLES
    try:
        kept = {bundle.digest: bundle for bundle in read_bundles(path)} if due or path.exists() else {}
    except UserError as error:
        return [error.message]
    said = []
    for digest, line in due.items():
        if digest not in kept:
            said.append(f"{BUNDLES}: run {line.run_id}: its run.json is not kept")
            continue
        run = json.loads(kept[digest].run)
        for name in SAME_FIELDS:
            if run.get(name) != getattr(line, name):
                said.append(f"{RUNS}: run {line.run_id}: {name}: its run.json says {run.get(name)!r}")
    if kept.keys() - due.keys():
        said.append(f"{BUNDLES}: holds a run that the campaign does not have")
    return said


def _bundle(folder: Path) -> KeptBundle:
    run = read_file(folder / "run.json", MAX_RUN_JSON_BYTES, "restore the run's folder", follow_link=False)
    log = folder / "log.jsonl"
    text = read_file(log, MAX_LOG_BYTES, "restore the run's folder", follow_link=False) if log.exists() else b""
    return KeptBundle(run=run.decode(), log=thinned([json.loads(row) for row in text.splitlines()]))


def thinned(rows: Sequence[dict[str, float | None]], count: int = ROWS) -> list[dict[str, float | None]]:
    """At most `count` of the rows, evenly spaced, the last one among them."""
    return [rows[(place + 1) * len(rows) // count - 1] for place in range(count)] if len(rows) > count else list(rows)
