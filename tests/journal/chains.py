"""Sound and forged journals for the tests beside it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from hypothesis import settings

from harness.journal import Journal, verify

SHORT = settings(max_examples=150, deadline=None)


def fill(path: Path, runs: int = 4) -> bytes:
    journal = Journal(path)
    for number in range(runs):
        journal.start(f"run-{number}", task="gcide", seed=number)
        journal.end(f"run-{number}", "judged", f"{number:064x}", val_loss=3.25 + number)
    return path.read_bytes()


def problems_of(folder: Path, content: bytes) -> list[str]:
    path = folder / "tampered.jsonl"
    path.write_bytes(content)
    return [finding.what for finding in verify(path).problems]


def forge(*tables: dict) -> bytes:
    """A chain made again as a whole from these fields, as somebody who knows the format would."""
    lines: list[bytes] = []
    for table in tables:
        defaults = {
            "version": 1,
            "time": "2026-01-01T00:00:00.000+00:00",
            "status": None,
            "bundle_digest": None,
        }
        previous = hashlib.sha256(lines[-1]).hexdigest() if lines else "0" * 64
        chain = {"sequence": len(lines) + 1, "previous": previous, "facts": {}, "recovered_bytes": 0}
        lines.append(seal({**defaults, **chain, **table}))
    return b"".join(line + b"\n" for line in lines)


def seal(table: dict) -> bytes:
    """The line of a table, with a hash that fits it."""
    table = {name: value for name, value in table.items() if name != "hash"}
    digest = hashlib.sha256(json.dumps(table, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    return json.dumps({**table, "hash": digest}, sort_keys=True, separators=(",", ":")).encode()
