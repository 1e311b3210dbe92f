"""`speedrun run SUB`: one run of a submission, from launch to judged loss."""

from __future__ import annotations

from typing import Annotated

import typer

from harness.cli import options, output


def run(
    submission: Annotated[str, typer.Argument(metavar="SUB", help="Folder, name, or `baseline`.")],
    setting: options.Set = None,
    drop: options.Drop = None,
    seed: Annotated[int | None, typer.Option(help="Fix the seed (drawn by the referee otherwise).")] = None,
    hardware: options.HardwareName = options.DEFAULT_CLASS,
    task: Annotated[str | None, typer.Option(help="Another task file than the submission names.")] = None,
    wandb: Annotated[bool, typer.Option("--wandb", help="Mirror the log to Weights & Biases.")] = False,
    as_json: options.Json = False,
    data_dir: options.DataDir = options.DATA_DIR,
    runs_dir: options.RunsDir = options.RUNS_DIR,
) -> None:
    """Run a submission once and judge it."""
    from harness.campaign import Request, run_once
    from harness.cli.progress import Progress
    from harness.cli.summary import print_summary, summary
    from harness.core.task import hardware_class, load_task
    from harness.submission import load_submission

    if wandb:
        from harness.wandb_mirror import mirror, require_wandb

        require_wandb()
    folder = options.submission_folder(submission)
    loaded = load_submission(folder, load_task(task) if task else None)
    request = Request(
        submission=loaded, hardware=hardware_class(hardware), data_dir=data_dir, runs_dir=runs_dir,
        seed=seed, dropped=drop or [], settings=setting or [],
    )  # fmt: skip
    with Progress(silent=as_json) as progress:
        finished = run_once(request, progress)
    if as_json:
        output.as_json(summary(finished))
    else:
        print_summary(finished, folder)
    if wandb:
        mirror(finished)
    if finished.record.reason is not None:
        raise typer.Exit(130 if finished.record.reason == "interrupted" else 1)
