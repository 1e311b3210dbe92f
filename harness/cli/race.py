"""`speedrun race A B`: is A faster than B at equal loss, and does it reach the target? Pairs under a fixed plan."""

from __future__ import annotations

from typing import Annotated

import typer

from harness.cli import options, output

ReferenceSet = Annotated[list[str] | None, typer.Option("--reference-set", help="As --set, for the reference.")]
ReferenceDrop = Annotated[list[str] | None, typer.Option("--reference-drop", help="As --drop, for the reference.")]


def race(
    candidate: Annotated[str, typer.Argument(metavar="A", help="The candidate: SUB, `baseline`, `best`, a record.")],
    reference: Annotated[str, typer.Argument(metavar="B", help="The reference, likewise.")],
    pairs: Annotated[int, typer.Option(help="At most so many pairs: 4, 6, 8, 12 or 16.")] = 16,
    setting: options.Set = None,
    drop: options.Drop = None,
    reference_setting: ReferenceSet = None,
    reference_drop: ReferenceDrop = None,
    hardware: options.HardwareName = options.DEFAULT_CLASS,
    task: Annotated[str | None, typer.Option(help="Another task file than the submissions name.")] = None,
    as_json: options.Json = False,
    data_dir: options.DataDir = options.DATA_DIR,
    runs_dir: options.RunsDir = options.RUNS_DIR,
    records_dir: options.RecordsDir = options.RECORDS_DIR,
) -> None:
    """Race A against B in interleaved pairs. --set and --drop change A; --reference-set and --reference-drop B.

    speedrun race submissions/x baseline;  speedrun race best best --drop muon (what is muon worth in the record?)
    """
    from datetime import UTC, datetime

    from harness.cli import campaigns
    from harness.core.data.prepare import require_prepared
    from harness.core.task import hardware_class, load_task
    from harness.evidence.arms import sides_of_race
    from harness.evidence.calibration import calibration_for
    from harness.evidence.folder import create_campaign
    from harness.evidence.locks import require_ready_machine
    from harness.evidence.plans import CANDIDATE, REFERENCE
    from harness.evidence.race import plan_race
    from harness.evidence.series import Places
    from harness.evidence.sides import Where
    from harness.machine import fingerprint

    wanted = hardware_class(hardware)
    own_task = load_task(task) if task else None
    where = Where(own_task.name if own_task else options.DEFAULT_TASK, hardware, records_dir)
    sides = sides_of_race(
        (candidate, reference), own_task, where, (drop or [], reference_drop or []),
        (setting or [], reference_setting or []),
    )  # fmt: skip
    raced = sides[0].submission.task
    require_prepared(raced, data_dir)
    require_ready_machine(wanted)
    where = Where(raced.name, hardware, records_dir)
    calibration = calibration_for(where)
    plan = plan_race(sides, hardware, pairs, calibration, fingerprint(), datetime.now(UTC))
    submissions = {CANDIDATE: sides[0].submission, REFERENCE: sides[1].submission}
    campaign = create_campaign(runs_dir / campaigns.FOLDER, plan, submissions)
    if not as_json:
        output.note(f"plan kept in {campaign.folder}")
    campaigns.go_on(campaign, Places(data_dir, runs_dir), where, silent=as_json)
