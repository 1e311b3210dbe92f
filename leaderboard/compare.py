"""What differs between two records. Source and hyperparameters where both are our own; imported ones have none."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.paths import RECORDS
from leaderboard.store import Row, Store

if TYPE_CHECKING:
    from harness.submission import Submission

FACTS = (
    "date", "score", "speedup", "steps", "loss_mean", "loss_std", "runs", "p_value",
    "code_lines", "gpus", "machine", "torch", "source",
)  # fmt: skip


def difference(known: Store, a: Row, b: Row, folder: Path = RECORDS) -> dict[str, Any]:
    """Methods that only one of them has, hyperparameters and facts that differ as [a, b], and a unified diff.

    `source` is None unless both records' submissions are kept. Raises UserError where a kept one cannot be read.
    """
    methods = [known.standing_methods(record) for record in (a, b)]
    first, second = (submission_of(record, folder) for record in (a, b))
    kept = first is not None and second is not None
    return {
        "first": a["record"],
        "second": b["record"],
        "methods": {
            "first": [name for name in methods[0] if name not in methods[1]],
            "second": [name for name in methods[1] if name not in methods[0]],
        },
        "hparams": _changed(_defaults(first), _defaults(second)) if kept else {},
        "facts": _changed({name: a[name] for name in FACTS}, {name: b[name] for name in FACTS}),
        "source": source_diff(first, second) if kept else None,
        "references": list(dict.fromkeys([a["reference"], b["reference"]])),
    }


def submission_of(record: Row, folder: Path = RECORDS) -> Submission | None:
    """The submission kept with an own record, or None. Raises UserError where it cannot be read."""
    if record["reference"] is None or not (folder / record["reference"] / "submission").is_dir():
        return None
    from harness.evidence.records import submission_of_record

    return submission_of_record(folder / record["reference"])


def source_diff(a: Submission | None, b: Submission | None) -> list[str]:
    """A unified diff over every file of two submissions, one string a line."""
    before, after = _texts(a), _texts(b)
    lines: list[str] = []
    for name in sorted({*before, *after}):
        old, new = before.get(name, []), after.get(name, [])
        lines += difflib.unified_diff(old, new, f"a/{name}", f"b/{name}", lineterm="")
    return lines


def _texts(submission: Submission | None) -> dict[str, list[str]]:
    files = submission.files if submission else {}
    return {name: content.decode(errors="replace").splitlines() for name, content in files.items()}


def _defaults(submission: Submission | None) -> dict[str, Any]:
    return {name: h.default for name, h in submission.manifest.hparams.items()} if submission else {}


def _changed(a: dict[str, Any], b: dict[str, Any]) -> dict[str, list[Any]]:
    names = dict.fromkeys([*a, *b])
    return {name: [a.get(name), b.get(name)] for name in names if a.get(name) != b.get(name)}
