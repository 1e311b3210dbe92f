"""`speedrun tune SUB`: the protocol of a submission, stage after stage; `--report` says what its trials show."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli import options, output

if TYPE_CHECKING:
    from harness.tuning.tune import Progress, StageCost, Tuning


def tune(
    submission: Annotated[str, typer.Argument(metavar="SUB", help="Folder, name, or `baseline`.")],
    stage: Annotated[str | None, typer.Option(help="Run one stage of the protocol only.")] = None,
    workers: Annotated[int, typer.Option(help="Trials at a time, each on cores of its own.")] = 1,
    plan: Annotated[bool, typer.Option("--plan", help="Print what is left and what it costs; run nothing.")] = False,
    report: Annotated[bool, typer.Option("--report", help="Write the report on the trials so far.")] = False,
    adopt: Annotated[bool, typer.Option("--adopt", help="Declare the best finalist in submission.toml.")] = False,
    hardware: options.HardwareName = options.DEFAULT_CLASS,
    task: Annotated[str | None, typer.Option(help="Another task file than the submission names.")] = None,
    data_dir: options.DataDir = options.DATA_DIR,
    runs_dir: options.RunsDir = options.RUNS_DIR,
) -> None:
    """Tune a submission after its protocol. Stop it at any time; the same command goes on."""
    from harness.core.task import hardware_class, load_task
    from harness.submission import load_submission
    from harness.tuning.adopt import best_finalist
    from harness.tuning.dispatch import Place
    from harness.tuning.protocol import ABOUT_DECLARED
    from harness.tuning.tune import Tuning

    folder = options.submission_folder(submission)
    own_task = load_task(task) if task else None
    tuning = Tuning(load_submission(folder, own_task))
    if report or adopt:
        if adopt:
            _adopt(tuning)
        if report:
            _report(Tuning(load_submission(folder, own_task)))  # of what is declared now
        return
    place = Place(tuning.submission, hardware_class(hardware), data_dir, runs_dir, workers)
    place.cores()
    stages = tuning.stages(stage)
    _print_costs(tuning.costs(stages), tuning.seconds_of_full_run(), workers)
    if plan:
        return
    try:
        if first := [name for name in stages if name not in ABOUT_DECLARED]:
            tuning.run(first, place, _print_progress)
        leader = best_finalist(tuning)
        last = [name for name in stages if name in ABOUT_DECLARED]
        waits = bool(first and last and leader and leader.hparams != tuning.design.point({}))
        if last and not waits:
            tuning.run(last, place, _print_progress)
    except KeyboardInterrupt:
        output.note("stopped; the same command goes on")
        raise typer.Exit(130) from None
    _print_best(tuning)
    if waits:
        output.note(
            f"{', '.join(last)} wait: they are about the declared point, which is not the best finalist. Declare that "
            f"with speedrun tune {submission} --adopt; then the same command goes on"
        )


def _adopt(tuning: Tuning) -> None:
    from harness.tuning.adopt import adopt

    chosen, changed = adopt(tuning)
    settings = ", ".join(f"{name} = {value}" for name, value in changed.items()) or "as it was declared before"
    output.line(f"declared now: {settings} (mean loss {chosen.mean:.4f} of {len(chosen.losses)} runs)")


def _report(tuning: Tuning) -> None:
    from harness.tuning.report import Report

    output.line(f"wrote {Report(tuning).write()}")


def _print_costs(costs: list[StageCost], seconds: float, workers: int) -> None:
    def hours(full_budgets: float) -> str:
        return f"{full_budgets * seconds / workers / 3600:.1f}"

    rows: list[tuple[object, ...]] = [(cost.stage, cost.planned, cost.left, hours(cost.full_budgets)) for cost in costs]
    total = sum(cost.full_budgets for cost in costs)
    rows.append(("all", sum(c.planned for c in costs), sum(c.left for c in costs), hours(total)))
    output.table(("stage", "trials", "left", "hours"), rows)
    output.line(f"at {seconds:.0f} s a trial of the full budget, {workers} at a time; points asked for twice run once")


def _print_progress(progress: Progress) -> None:
    trial, job = progress.trial, progress.trial.job
    result = f"{trial.val_loss:.4f}" if trial.val_loss is not None else f"FAILED: {trial.status} ({trial.run_id})"
    leader = progress.best
    best = f"best {leader.val_loss:.4f} (number {leader.job.number})" if leader else "none finished"
    output.line(
        f"{job.stage:<10} {progress.stage_done:>4} of {progress.stage_planned:<4} number {job.number:<4} {result}  "
        f"{best}  {trial.seconds:.0f} s  {progress.left_seconds / 3600:.1f} h left"
    )


def _print_best(tuning: Tuning) -> None:
    from harness.tuning.design import best
    from harness.tuning.equal_budget import equal_budget, sentence

    declared = tuning.design.point({})
    for trial in best(tuning.table.of_stage("search"), 1):
        changed = {name: value for name, value in trial.job.hparams.items() if value != declared[name]}
        settings = " ".join(f"--set {name}={value}" for name, value in changed.items())
        output.line(f"best of the search: {trial.val_loss:.4f}, number {trial.job.number}: {settings or 'as declared'}")
    if found := equal_budget(tuning):
        output.line(sentence(found))
    output.line(f"trials: {Path(tuning.table.path)}")
