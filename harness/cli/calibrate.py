"""`speedrun calibrate [TASK]`: the noise of loss and clock, and what a larger budget is worth, from baseline runs."""

from __future__ import annotations

from typing import Annotated

import typer

from harness.cli import options, output


def calibrate(
    task: Annotated[str, typer.Argument(metavar="TASK", help="Name of the task, or its file.")] = options.DEFAULT_TASK,
    quick: Annotated[bool, typer.Option("--quick", help="2 runs of each budget instead of 6.")] = False,
    submission: Annotated[str, typer.Option("--with", metavar="SUB", help="Instead of the baseline.")] = "baseline",
    hardware: options.HardwareName = options.DEFAULT_CLASS,
    as_json: options.Json = False,
    data_dir: options.DataDir = options.DATA_DIR,
    runs_dir: options.RunsDir = options.RUNS_DIR,
    records_dir: options.RecordsDir = options.RECORDS_DIR,
) -> None:
    """Measure what every race needs to know: baseline runs at 0.7, 1 and 1.4 of its budget, each a full schedule."""
    from datetime import UTC, datetime

    from harness.cli import campaigns
    from harness.core.data.prepare import require_prepared
    from harness.core.task import hardware_class, load_task
    from harness.evidence.arms import submission_folder
    from harness.evidence.calibration import BLOCKS, QUICK_BLOCKS, plan_calibration
    from harness.evidence.folder import create_campaign
    from harness.evidence.locks import require_ready_machine
    from harness.evidence.series import Places
    from harness.evidence.sides import Side, Where
    from harness.machine import fingerprint
    from harness.submission import load_submission

    wanted = hardware_class(hardware)
    loaded_task = load_task(task)
    where = Where(loaded_task.name, hardware, records_dir)
    require_prepared(loaded_task, data_dir)
    require_ready_machine(wanted)
    side = Side(submission, load_submission(submission_folder(submission, where), loaded_task))
    blocks = QUICK_BLOCKS if quick else BLOCKS
    plan = plan_calibration(side, hardware, blocks, fingerprint(), datetime.now(UTC))
    campaign = create_campaign(runs_dir / campaigns.FOLDER, plan, dict.fromkeys(plan.arms, side.submission))
    if not as_json:
        output.note(f"plan kept in {campaign.folder}")
    campaigns.go_on(campaign, Places(data_dir, runs_dir), where, silent=as_json)
