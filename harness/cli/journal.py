"""`speedrun journal verify` and `speedrun journal show`."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.cli import output
from harness.cli.options import RUNS_DIR, Json
from harness.errors import UserError
from harness.journal import CANNOT_FIND, Entry, Finding, Journal, Verification
from harness.journal import verify as verify_journal

app = typer.Typer(help="The journal of every run: check its chain, list its runs.", no_args_is_help=True)

JournalPath = Annotated[Path, typer.Argument(metavar="PATH", help="The journal file.")]
PROBLEMS_SHOWN = 20
DEFAULT = RUNS_DIR / "journal.jsonl"


@app.command()
def verify(
    path: JournalPath = DEFAULT,
    expect: Annotated[
        str | None, typer.Option(metavar="HASH", help="A published hash that must be in the chain.")
    ] = None,
    json: Json = False,
) -> None:
    """Check that no line and no run was edited, no line dropped, moved or repeated. Exit code 1 if one was."""
    from harness.bundle import changed_bundles

    if expect is not None and not re.fullmatch(r"[0-9a-f]{64}", expect):
        raise UserError(f"--expect {expect!r}: not a sha256", "give all 64 hexadecimal digits of the hash")
    found = verify_journal(path, expect)
    if found.ok:
        closed = {entry.run: entry.bundle_digest for entry in Journal(path).entries() if entry.bundle_digest}
        found.problems += [Finding(0, what) for what in changed_bundles(path.parent, closed)]
    if json:
        output.as_json({"path": str(path), "ok": found.ok, **asdict(found), "cannot_find": CANNOT_FIND})
    else:
        _print(path, found)
    if not found.ok:
        raise typer.Exit(1)


def _print(path: Path, found: Verification) -> None:
    output.line(f"{path}: {found.lines} lines, {found.runs} runs")
    for run in found.unfinished:
        output.line(f"  unfinished: {run} (still running, or killed: the next run then ends it here)")
    for finding in found.notes:
        output.line(f"  line {finding.line}: {finding.what}")
    for finding in found.problems[:PROBLEMS_SHOWN]:
        output.line(f"  line {finding.line}: {finding.what}" if finding.line else f"  {finding.what}", "red")
    if len(found.problems) > PROBLEMS_SHOWN:
        output.line(f"  and {len(found.problems) - PROBLEMS_SHOWN:,} more: --json lists them", "red")
    verdict = "ok: every line continues the one before"
    output.line(f"problems: {len(found.problems)}" if found.problems else verdict)
    output.line(f"last hash: {found.last_hash}")
    output.line(CANNOT_FIND)


@app.command()
def show(path: JournalPath = DEFAULT, json: Json = False) -> None:
    """List the runs, oldest first."""
    runs = _runs(Journal(path).entries())
    if json:
        output.as_json({"path": str(path), "runs": runs})
    elif runs:
        rows = [(run["run"], run["started"], run["status"], _brief(run["facts"])) for run in runs]
        output.table(("run", "started", "status", "facts"), rows)
    else:
        output.line(f"{path}: no runs yet")


def _runs(entries: list[Entry]) -> list[dict[str, Any]]:
    """One row a run, its start and end put together; facts given at the end stand over those of the start."""
    rows: dict[str, dict[str, Any]] = {}
    for entry in entries:
        row = rows.setdefault(entry.run, {"run": entry.run, "started": None, "ended": None})
        if entry.event == "start":
            row |= {"started": entry.time, "status": "unfinished", "bundle_digest": None}
        else:
            row |= {"ended": entry.time, "status": entry.status, "bundle_digest": entry.bundle_digest}
        row["facts"] = row.get("facts", {}) | entry.facts
    return list(rows.values())


def _brief(facts: dict[str, Any]) -> str:
    """The facts that fit beside a run: single values of up to 40 characters."""
    single = {name: str(value) for name, value in facts.items() if not isinstance(value, dict | list)}
    return " ".join(f"{name}={text}" for name, text in single.items() if len(text) <= 40)
