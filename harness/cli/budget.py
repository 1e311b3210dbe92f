"""`speedrun budget SUB`: the smallest budget that reaches the target with a margin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli import options, output

if TYPE_CHECKING:
    from harness.tuning.trials import Trial


def budget(
    submission: Annotated[str, typer.Argument(metavar="SUB", help="Folder, name, or `baseline`.")],
    name: Annotated[str, typer.Option("--budget", help="The hyperparameter that is the budget.")] = "steps",
    margin: Annotated[
        float | None, typer.Option(help="Nats below the target; by default what reaches it in 8 runs with 90% power.")
    ] = None,
    workers: Annotated[int, typer.Option(help="Runs at a time, each on cores of its own.")] = 1,
    adopt: Annotated[bool, typer.Option("--adopt", help="Declare what was found in submission.toml.")] = False,
    hardware: options.HardwareName = options.DEFAULT_CLASS,
    task: Annotated[str | None, typer.Option(help="Another task file than the submission names.")] = None,
    as_json: options.Json = False,
    data_dir: options.DataDir = options.DATA_DIR,
    runs_dir: options.RunsDir = options.RUNS_DIR,
    records_dir: options.RecordsDir = options.RECORDS_DIR,
) -> None:
    """Find the smallest budget that reaches the target. Stop it at any time; the same command goes on."""
    from dataclasses import asdict

    from harness.core.task import hardware_class, load_task
    from harness.evidence.sides import Where
    from harness.submission import load_submission
    from harness.tuning.adopt import declare
    from harness.tuning.budget import BudgetSearch, least_spread
    from harness.tuning.dispatch import Place

    loaded = load_submission(options.submission_folder(submission), load_task(task) if task else None)
    search = BudgetSearch(loaded, name, margin, least_spread(Where(loaded.task.name, hardware, records_dir)))
    place = Place(loaded, hardware_class(hardware), data_dir, runs_dir, workers)
    target = loaded.task.target.val_loss

    def tell(trial: Trial) -> None:
        if not as_json:
            loss = f"loss {trial.val_loss:.4f}" if trial.val_loss is not None else f"FAILED: {trial.status}"
            output.line(f"{name}={trial.job.hparams[name]}  seed {trial.job.seed}  {loss}  {trial.seconds:.0f} s")

    try:
        found = search.run(place, tell)
    except KeyboardInterrupt:
        output.note("stopped; the same command goes on")
        raise typer.Exit(130) from None
    if adopt:
        declare(loaded, {name: found.budget})
    if as_json:
        output.as_json({"name": name, "target": target, **asdict(found), "trials": str(search.table.path)})
        return
    for tried, losses in sorted(search.losses().items()):
        output.line(f"{name}={tried}: mean loss {sum(losses) / len(losses):.4f} of {len(losses)} runs")
    slope = found.slope
    output.line(
        f"smallest budget: {name} = {found.budget:,} (standard error {found.relative_error:.1%}), where the mean loss "
        f"is {found.mean:.4f}: target {target:.4f} less margin {found.margin:.4f}"
    )
    if adopt:
        output.line(f"declared now: {name} = {found.budget}")
    output.line(
        f"from {found.runs} runs: standard deviation of a run {found.spread:.4f}, "
        f"slope {slope.nats_per_efold:.3f} +- {slope.standard_error:.3f} nats per e-fold of the budget"
    )
