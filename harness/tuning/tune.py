"""Runs a protocol: stage after stage, every trial kept in trials.csv at once, so that it can be stopped at any time."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout

from harness.core.data.prepare import require_prepared
from harness.errors import UserError
from harness.evidence.locks import untimed
from harness.submission import Submission
from harness.tuning.design import Design, best
from harness.tuning.dispatch import Dispatcher, Place
from harness.tuning.protocol import FOLDER, Protocol, StageName, load_protocol
from harness.tuning.search import Search, scouts
from harness.tuning.trials import Job, Trial, TrialTable

TRIALS_FILE = "trials.csv"


@dataclass(frozen=True)
class StageCost:
    """What a stage still asks for: trials, and those in units of the full budget."""

    stage: StageName
    planned: int
    left: int
    full_budgets: float


@dataclass(frozen=True)
class Progress:
    """Where a tuning stands after a trial. `left_seconds` is for all stages asked for, with the workers there are."""

    trial: Trial
    stage_done: int
    stage_planned: int
    best: Trial | None
    left_seconds: float


class Tuning:
    """The protocol of one submission and what has been run of it. Raises UserError on files that do not fit."""

    def __init__(self, submission: Submission) -> None:
        self.submission = submission
        self.protocol: Protocol = load_protocol(submission)
        self.design = Design(submission, self.protocol)
        self.table = TrialTable(submission.folder / FOLDER / TRIALS_FILE, submission)

    def stages(self, only: str | None = None) -> list[StageName]:
        """The stages to run, in order. Raises UserError for one that the protocol does not have."""
        names = self.protocol.stages.names
        if only is None:
            return names
        if only not in names:
            raise UserError(f"--stage {only}: not in the protocol", f"it has: {', '.join(names)}")
        return [name for name in names if name == only]

    def costs(self, stages: Sequence[StageName]) -> list[StageCost]:
        """How much there is of each stage and how much is left; a trial that several ask for counts in the first one.

        What the search has still to find cannot be known: later stages are counted about the declared point.
        """
        seen: set[tuple] = set()
        return [self._cost(stage, seen) for stage in stages]

    def _cost(self, stage: StageName, seen: set[tuple]) -> StageCost:
        stages = self.protocol.stages
        if stage == "scout" and stages.scout:
            return self._sampled(stage, stages.scout.trials, stages.scout.budget)
        if stage == "search" and stages.search:
            return self._sampled(stage, stages.search.trials, 1.0)
        jobs = [job for job in self.design.jobs(stage, self.table) if job.key not in seen]
        seen.update(job.key for job in jobs)
        left, planned = len(self._missing(jobs)), len(jobs)
        if stage == "finalists" and stages.finalists:
            found = self.design.best_of_search(self.table, stages.finalists.points)
            unknown = (stages.finalists.points - len(found)) * stages.finalists.seeds
            left, planned = left + unknown, planned + unknown
        return StageCost(stage, planned, left, left)

    def _sampled(self, stage: StageName, trials: int, budget: float) -> StageCost:
        left = trials - len(self._numbers(stage, trials))
        return StageCost(stage, trials, left, left * budget)

    def seconds_of_full_run(self) -> float:
        """Median wall-clock seconds of the trials at the full budget so far, or what the protocol expects."""
        full = self.design.point({})[self.protocol.budget.steps]
        seconds = [t.seconds for t in self.table.trials if t.job.hparams[self.protocol.budget.steps] == full]
        return statistics.median(seconds) if seconds else self.protocol.budget.seconds

    def run(self, stages: Sequence[StageName], place: Place, tell: Callable[[Progress], None]) -> None:
        """Runs what is left of the stages. Raises UserError; stopped at any time, the same call goes on."""
        require_prepared(self.submission.task, place.data_dir)
        with working_folder(place) as (folder, place), Dispatcher(place) as dispatcher:
            for index in range(len(stages)):
                self._run_stage(stages[index:], folder, dispatcher, place.workers, tell)

    def _run_stage(
        self, stages: Sequence[StageName], folder: Path, dispatcher: Dispatcher, workers: int,
        tell: Callable[[Progress], None],
    ) -> None:  # fmt: skip
        """Runs the first of the stages that are left."""
        stage = stages[0]
        search: Search | None = None
        if stage == "search" and self.protocol.stages.search:
            search = Search(self.design, self.protocol.stages.search, self.table, folder / "search.log")

        def done(trial: Trial) -> None:
            self.table.add(trial)
            if search is not None:
                search.tell(trial)
            costs = self.costs(stages)
            seconds = sum(cost.full_budgets for cost in costs) * self.seconds_of_full_run() / workers
            leader = next(iter(best(self.table.of_stage(stage), 1)), None)
            tell(Progress(trial, costs[0].planned - costs[0].left, costs[0].planned, leader, seconds))

        dispatcher.run(search.jobs() if search else self._jobs(stage), done)

    def _jobs(self, stage: StageName) -> Iterator[Job]:
        if stage == "scout":
            jobs = scouts(self.design)
            there = self._numbers("scout", len(jobs))
            return iter([job for job in jobs if job.number not in there])
        return iter(self._missing(self.design.jobs(stage, self.table)))

    def _missing(self, jobs: list[Job]) -> list[Job]:
        """Those not run yet, numbered on from the last of their stage: after a change of point there are others."""
        missing = [job for job in jobs if self.table.find(job.hparams, job.seed) is None]
        ran = self.table.of_stage(missing[0].stage) if missing else []
        first = ran[-1].job.number + 1 if ran else 0
        return [replace(job, number=first + index) for index, job in enumerate(missing)]

    def _numbers(self, stage: StageName, planned: int) -> set[int]:
        return {trial.job.number for trial in self.table.of_stage(stage) if trial.job.number < planned}


@contextmanager
def working_folder(place: Place) -> Iterator[tuple[Path, Place]]:
    """The folder of a tuning under runs/, for one process at a time, and the place with a copy of the submission in it.

    Trials run from the copy, so that the submission may be edited meanwhile. No campaign can be timed on this machine
    until it is over, as trials would slow it. Raises UserError.
    """
    submission = place.submission
    folder = place.runs_dir.resolve() / "tuning" / f"{submission.task.name}-{submission.name}"
    source = folder / "source" / submission.name
    lock = FileLock(folder / ".lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
        shutil.rmtree(source.parent, ignore_errors=True)
        submission.snapshot(source)
    except Timeout:
        raise UserError(f"{folder}: another process tunes this submission", "wait for it, or end it") from None
    except OSError as error:
        message = f"{error.filename or folder}: {error.strerror}"
        raise UserError(message, "free space, or choose another --runs-dir") from None
    try:
        with untimed(f"tuning {submission.folder}"):
            yield folder, replace(place, submission=replace(submission, folder=source))
    finally:
        lock.release()
