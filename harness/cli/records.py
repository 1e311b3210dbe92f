"""`speedrun records verify`: compute every record and attempt again from what is kept of it."""

from __future__ import annotations

from typing import Annotated

import typer

from harness.cli import options, output
from harness.errors import UserError

app = typer.Typer(help="The records: check that their numbers follow from their runs.", no_args_is_help=True)


@app.callback()
def _records() -> None:
    """A group of verbs, though it has one so far."""


@app.command()
def verify(
    task: Annotated[str | None, typer.Option(help="Only this task.")] = None,
    as_json: options.Json = False,
    records_dir: options.RecordsDir = options.RECORDS_DIR,
) -> None:
    """Recompute all records, attempts, verifications, ablations, calibrations. Exit code 1 where one differs."""
    from harness.evidence.ablations import check_ablations
    from harness.evidence.calibration_checks import check_calibration
    from harness.evidence.record_checks import check_records
    from harness.evidence.sides import Where
    from harness.evidence.verifications import check_verifications

    if not records_dir.is_dir():
        raise UserError(f"{records_dir}: no such folder", "give the folder of the records: --records-dir")
    classes = sorted(path for path in records_dir.glob("*/*") if path.is_dir() and task in (None, path.parent.name))
    checked = []
    for path in classes:
        where = Where(path.parent.name, path.name, records_dir)
        checked += [*check_records(where), *check_verifications(where), *check_ablations(where)]
        checked += check_calibration(where)
    ok = not any(found.problems for found in checked)
    if as_json:
        records = [{"name": found.name, "ok": not found.problems, "problems": found.problems} for found in checked]
        output.as_json({"ok": ok, "records": records})
    else:
        for found in checked:
            word, style = ("DIFFERS", "red") if found.problems else ("ok", "green")
            output.line(f"{word:<8} {found.name}", style)
            for problem in found.problems:
                output.line(f"         {problem}")
        differ = sum(bool(found.problems) for found in checked)
        output.line(f"{len(checked)} records, attempts, verifications, ablations and calibrations, {differ} differ")
    if not ok:
        raise typer.Exit(1)
