"""`speedrun board`: the records of a task and class, and this machine's runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from harness.bundle import read_table
from harness.cli import options, output
from harness.errors import UserError
from harness.paths import RECORDS


def board(
    task: Annotated[str, typer.Option(help="Task to show.")] = options.DEFAULT_TASK,
    hardware: options.HardwareName = options.DEFAULT_CLASS,
    runs: Annotated[int, typer.Option(help="How many of this machine's latest runs to list.")] = 10,
    as_json: options.Json = False,
    runs_dir: options.RunsDir = options.RUNS_DIR,
) -> None:
    """Show the record history and the latest runs on this machine."""
    records = read_records(RECORDS / task / hardware)
    latest = read_runs(runs_dir, task, hardware)[-runs:] if runs > 0 else []
    if as_json:
        output.as_json({"task": task, "class": hardware, "records": records, "runs": latest})
        return
    output.line(f"{task}, {hardware}", style="bold")
    if records:
        output.table(("record", "title", "seconds", "loss"), [_record_row(record) for record in records])
    else:
        output.line("no record yet: the first will be the tuned AdamW baseline, through a race")
    output.line()
    if not latest:
        output.line("no run on this machine yet: make baseline")
        return
    columns = ("run", "seed", "state", "loss", "target", "seconds", "tokens", "trust")
    output.table(columns, [_run_row(run) for run in latest], title="runs on this machine (none is a record)")


def read_records(folder: Path) -> list[dict[str, Any]]:
    """Every record.json of a task and class, in order of number; what is no JSON object is left out with a warning."""
    return _read_all(sorted(folder.glob("[0-9]*/record.json")))


def read_runs(runs_dir: Path, task: str, hardware: str) -> list[dict[str, Any]]:
    """Every run.json of a task and class under a runs folder, oldest first."""
    runs = _read_all(sorted(runs_dir.glob("*/run.json")))
    return [run for run in runs if (run.get("task"), run.get("hardware_class")) == (task, hardware)]


def _read_all(paths: list[Path]) -> list[dict[str, Any]]:
    tables = []
    for path in paths:
        try:
            if path.parent.is_symlink():
                raise UserError(f"{path.parent}: a link, not a run folder")
            tables.append(read_table(path))
        except UserError as error:
            output.warn(f"warning: {error.message}; it is left out")
    return tables


def _record_row(record: dict[str, Any]) -> tuple[object, ...]:
    seconds, loss = output.fixed(record.get("seconds"), 2), output.fixed(record.get("val_loss"), 4)
    return record.get("id", ""), record.get("title", ""), seconds, loss


def _run_row(run: dict[str, Any]) -> tuple[object, ...]:
    return (
        run.get("run_id"), run.get("seed"), run.get("reason") or run.get("state"),
        output.fixed(run.get("val_loss"), 4), output.fixed(run.get("target"), 4), output.fixed(run.get("seconds"), 2),
        run.get("tokens") or "", run.get("trust"),
    )  # fmt: skip
