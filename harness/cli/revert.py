"""`speedrun revert RECORD --drop M`: race the record without a method for the next record."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli import options, output
from harness.errors import UserError
from harness.paths import SUBMISSIONS

if TYPE_CHECKING:
    from harness.evidence.reverts import Change, Revert
    from harness.evidence.sides import Where
    from harness.submission import Submission
    from harness.tuning.dispatch import Place
    from harness.tuning.retune import Plan
    from harness.tuning.trials import Trial

Dropped = Annotated[list[str] | None, typer.Option("--drop", metavar="M", help="Leave this method out; A,B: both.")]
Added = Annotated[list[str] | None, typer.Option("--add", metavar="M", help="Take this method in, --from SUB.")]
Source = Annotated[str | None, typer.Option("--from", metavar="SUB", help="What has the method to add.")]
Trials = Annotated[int | None, typer.Option(help="First retune what is left within so many trials, then its budget.")]
Tuned = Annotated[
    list[str] | None,
    typer.Option("--tune", metavar="NAME", help="Retune this; by default what RECORD does not ask for."),
]


def revert(
    record: Annotated[str, typer.Argument(metavar="RECORD", help="Such as gcide/cpu-1thread/002, or `best`.")],
    drop: Dropped = None,
    add: Added = None,
    source: Source = None,
    trials: Trials = None,
    tune: Tuned = None,
    workers: Annotated[int, typer.Option(help="Trials at a time, each on cores of its own.")] = 1,
    into: Annotated[Path, typer.Option("--into", help="Where the candidate is made.")] = SUBMISSIONS,
    task: Annotated[str, typer.Option(help="Task of `best`.")] = options.DEFAULT_TASK,
    hardware: options.HardwareName = options.DEFAULT_CLASS,
    as_json: options.Json = False,
    data_dir: options.DataDir = options.DATA_DIR,
    runs_dir: options.RunsDir = options.RUNS_DIR,
    records_dir: options.RecordsDir = options.RECORDS_DIR,
) -> None:
    """Make a record without a method, with its code cut out, and race it: a win is the next record.

    A loss is kept as evidence for the method. Stopped at any time, the same command goes on.
    """
    from harness.cli.submit import attempt
    from harness.core.task import hardware_class
    from harness.evidence.arms import submission_folder
    from harness.evidence.records import load_record, reigning, submission_of_record
    from harness.evidence.reverts import candidate_of, take_up
    from harness.evidence.series import Places
    from harness.evidence.sides import Where
    from harness.submission import load_submission
    from harness.tuning.budget import least_spread
    from harness.tuning.dispatch import Place
    from harness.tuning.retune import Plan

    if bool(drop) == bool(add) or bool(add) != (source is not None):
        raise typer.BadParameter("give --drop M, or --add M --from SUB")
    if tune and trials is None:
        raise typer.BadParameter("--tune is for --trials")
    folder = submission_folder(record, Where(task, hardware, records_dir)).parent
    found = load_record(folder)
    where = Where(found.task, found.hardware_class, records_dir)
    dropped = [name.strip() for text in drop or [] for name in text.split(",") if name.strip()]
    change = _change(folder, dropped, add or [], source, where)
    tell = (lambda text: None) if as_json else output.note
    if folder != reigning(where):
        tell(f"{found.id} is not the reigning record, against which its revert is raced")
    made = candidate_of(change, into, where.hardware, tell)
    tell(f"candidate: {made}")
    parent = submission_of_record(folder)
    kept = take_up(made, trials, tune or [])
    if trials is not None:
        place = Place(load_submission(made, parent.task), hardware_class(where.hardware), data_dir, runs_dir, workers)
        plan = Plan(trials, found.seconds, tune or [])
        _retune(kept, parent, place, plan, least_spread(where), silent=as_json)
    verdict = attempt(load_submission(made, parent.task), made.name, where, Places(data_dir, runs_dir), silent=as_json)
    if not as_json:
        output.line(_said(change, verdict.verdict.value == "record"))


def _change(folder: Path, dropped: list[str], added: list[str], source: str | None, where: Where) -> Change:
    """What is asked for. Raises UserError where the record or the source does not have it."""
    from harness.evidence.ablations import require_droppable
    from harness.evidence.arms import submission_folder
    from harness.evidence.records import submission_of_record
    from harness.evidence.reverts import Change, require_lineage
    from harness.submission import load_submission

    own = submission_of_record(folder)
    if source is None:
        return Change(folder, tuple(require_droppable(own, dropped)))
    there = sorted(set(added) & set(own.manifest.methods))
    if there:
        raise UserError(f"{folder.name}: has {', '.join(there)} already", "add what it does not have")
    other = load_submission(submission_folder(source, where), own.task)
    require_lineage(other, added, where)
    return Change(folder, (), tuple(dict.fromkeys(added)), other)


def _retune(kept: Revert, parent: Submission, place: Place, plan: Plan, spread: float, silent: bool) -> None:
    """Retunes the candidate once; the digest that it then has says that it is done. Exits with 130 after Ctrl-C."""
    from harness.evidence.reverts import newly_asked, write_revert
    from harness.submission import load_submission
    from harness.tuning.protocol import protocol_path
    from harness.tuning.retune import retune

    folder = place.submission.folder
    if kept.retuned == place.submission.digest:
        return
    if not plan.names and not protocol_path(folder).exists():
        if not silent:
            output.note("a dry run of both, to see which hyperparameters are new in the candidate")
        plan = replace(plan, fresh=newly_asked(place.submission, parent, place.hardware))

    def tell(trial: Trial) -> None:
        loss = f"loss {trial.val_loss:.4f}" if trial.val_loss is not None else f"FAILED: {trial.status}"
        if not silent:
            output.note(f"{trial.job.stage:<10} number {trial.job.number:<4} {loss}  {trial.seconds:.0f} s")

    try:
        done = retune(folder, place, plan, tell, spread)
    except KeyboardInterrupt:
        output.note("stopped; the same command goes on")
        raise typer.Exit(output.INTERRUPTED) from None
    retuned = load_submission(folder, place.submission.task)
    write_revert(folder, kept.model_copy(update={"retuned": retuned.digest}))
    if not silent:
        before, now = parent.hparams([]), retuned.hparams([])
        changed = [f"{name} = {value}" for name, value in now.items() if before.get(name) != value]
        said = ", ".join(changed) or "as it was"
        output.note(f"retuned in {done.trials} trials and {done.budget_runs} runs for the budget: {said}")


def _said(change: Change, won: bool) -> str:
    """What the verdict means for the methods."""
    if change.dropped:
        names = ", ".join(change.dropped)
        return f"{names}: dropped by the new record" if won else f"{names}: stays; the attempt is kept as its evidence"
    names = ", ".join(change.added)
    return f"{names}: taken in by the new record" if won else f"{names}: not taken in; the attempt is kept"
