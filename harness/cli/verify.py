"""`speedrun verify RECORD`: race a record again on this machine, and say whether that agrees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli import options, output

if TYPE_CHECKING:
    from pathlib import Path

    from harness.evidence.sides import Where


def verify(
    record: Annotated[
        str | None, typer.Argument(metavar="RECORD", help="Such as gcide/cpu-1thread/002; `best`; `baseline`.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every record of the task and class, oldest first.")] = False,
    first: Annotated[bool, typer.Option("--first", help="Race against the first record, not the parent.")] = False,
    pairs: Annotated[
        int, typer.Option(help="At most so many pairs: 4, 6, 8, 12 or 16. The first record: so many runs.")
    ] = 8,
    task: Annotated[str, typer.Option(help="Task of `best`, `baseline` and --all.")] = options.DEFAULT_TASK,
    hardware: options.HardwareName = options.DEFAULT_CLASS,
    as_json: options.Json = False,
    data_dir: options.DataDir = options.DATA_DIR,
    runs_dir: options.RunsDir = options.RUNS_DIR,
    records_dir: options.RecordsDir = options.RECORDS_DIR,
) -> None:
    """Rerun a record against its parent and attach what was found: machine, ratio, interval, agrees or not.

    --all goes on where it was stopped, and leaves out what this core has verified on this kind of machine.
    """
    from datetime import UTC, datetime

    from harness.cli import campaigns
    from harness.core.data.prepare import require_prepared
    from harness.core.task import hardware_class
    from harness.errors import UserError
    from harness.evidence.locks import require_ready_machine
    from harness.evidence.records import history, load_record, submission_of_record
    from harness.evidence.series import Places
    from harness.evidence.sides import Where
    from harness.evidence.verifications import VERIFICATION, begun_here, plan_verification
    from harness.machine import fingerprint

    if every == (record is not None):
        raise typer.BadParameter("name a record, or use --all")
    if every and as_json:
        raise typer.BadParameter("--json is for one record")
    where = Where(task, hardware, records_dir)
    folders = history(where) if every else [_named(record or "", where)]
    if not folders:
        raise UserError(f"{task}, {hardware}: no record yet", "`speedrun submit` files the first one")
    for folder in folders:
        found = load_record(folder)
        place = Where(found.task, found.hardware_class, records_dir)
        require_ready_machine(hardware_class(place.hardware))
        if not as_json:
            output.note(f"verifying {found.id}")
        require_prepared(submission_of_record(folder).task, data_dir)
        begun = begun_here(folder, first, fingerprint()) if every else None
        if begun is not None and (begun.folder / VERIFICATION).exists():
            output.note(f"verified here already: {begun.folder}")
            continue
        campaign = begun or plan_verification(folder, place, first, pairs, fingerprint(), datetime.now(UTC))
        campaigns.go_on(campaign, Places(data_dir, runs_dir), place, silent=as_json)


def _named(word: str, where: Where) -> Path:
    """The folder of the record that a word names; `baseline` is the latest that was filed as one. Raises UserError."""
    from harness.errors import UserError
    from harness.evidence.arms import BASELINE, submission_folder
    from harness.evidence.records import reigning

    if word != BASELINE:
        return submission_folder(word, where).parent
    folder = reigning(where, as_baseline=True)
    if folder is None:
        what = f"baseline: no baseline is a record yet for {where.task} on {where.hardware}"
        raise UserError(what, "`speedrun run baseline` runs it once; `speedrun submit baseline` files the first record")
    return folder
