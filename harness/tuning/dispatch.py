"""Runs jobs side by side, one worker process to a set of cores, and hands back each result as it comes."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from harness.core.failures import Failure
from harness.core.task import HardwareClass
from harness.errors import UserError
from harness.paths import PACKAGE
from harness.submission import Submission
from harness.tuning.trials import JUDGED, Job, Trial
from harness.tuning.worker import Answer, Order

# Nothing of these is the fault of the hyperparameters: the trial is run again.
REPEATED = {Failure.SUSPENDED, Failure.MACHINE_BUSY, Failure.INTERRUPTED, Failure.JUDGE_CRASH}
MOST_ATTEMPTS = 3
# May be that of a machine that does something else: the trial is run once more, and the second time counts.
TIMEOUTS = {Failure.TIMEOUT, Failure.HOST_TIMEOUT}


@dataclass(frozen=True)
class Place:
    """Where trials run: on which hardware class, with which folders, how many at a time."""

    submission: Submission
    hardware: HardwareClass
    data_dir: Path
    runs_dir: Path
    workers: int = 1

    def cores(self) -> list[list[int]]:
        """The cores of every worker. Raises UserError where there are too few."""
        allowed = sorted(os.sched_getaffinity(0))
        if self.hardware.device != "cpu" and self.workers > 1:
            raise UserError(f"--workers {self.workers}: trials on GPUs run one at a time", "use --workers 1")
        if self.workers < 1 or self.workers * self.hardware.cores > len(allowed):
            message = f"--workers {self.workers}: this process may use {len(allowed)} cores"
            raise UserError(message, f"a run of {self.hardware.name} needs {self.hardware.cores} for itself")
        return [allowed[worker :: self.workers] for worker in range(self.workers)]


@dataclass
class _Running:
    job: Job
    process: subprocess.Popen[bytes]
    cores: list[int]
    attempt: int


class Dispatcher:
    """Keeps every worker busy with the next job; a context manager that leaves no worker behind."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._free = place.cores()
        self._selector = selectors.DefaultSelector()

    def __enter__(self) -> Dispatcher:
        return self

    def __exit__(self, *_: object) -> None:
        """Ends workers that still run: their runs are kept in the journal as interrupted."""
        running = [key.data for key in self._selector.get_map().values()]
        for worker in running:
            worker.process.terminate()
        for worker in running:
            worker.process.communicate()
        self._selector.close()

    def run(self, jobs: Iterator[Job], done: Callable[[Trial], None]) -> None:
        """Runs all jobs; `done` is called for each trial before the next job is asked for. Raises UserError."""
        exhausted = False
        while True:
            while self._free and not exhausted:
                job = next(jobs, None)
                if job is None:
                    exhausted = True
                else:
                    self._launch(job, self._free.pop(), attempt=1)
            if not self._selector.get_map():
                return
            for key, _ in self._selector.select():
                self._finish(key.data, done)

    def _launch(self, job: Job, cores: list[int], attempt: int) -> None:
        place = self._place
        order = Order(
            parent=os.getpid(), cores=cores, submission=str(place.submission.folder), digest=place.submission.digest,
            task=str(place.submission.task.path), hardware=place.hardware.name,
            data_dir=str(place.data_dir.resolve()), runs_dir=str(place.runs_dir.resolve()),
            seed=job.seed, settings=[f"{name}={value}" for name, value in job.hparams.items()],
        )  # fmt: skip
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "harness.tuning.worker"],
            env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for us, we tell them
        )  # fmt: skip
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(asdict(order)).encode())
        process.stdin.close()
        process.stdin = None
        self._selector.register(process.stdout, selectors.EVENT_READ, _Running(job, process, cores, attempt))

    def _finish(self, worker: _Running, done: Callable[[Trial], None]) -> None:
        assert worker.process.stdout is not None
        self._selector.unregister(worker.process.stdout)
        said, _ = worker.process.communicate()
        if not said:
            raise UserError(
                f"trial {worker.job.stage} {worker.job.number}: its process ended with status "
                f"{worker.process.returncode} and said nothing", "see what it printed; run the same command to go on",
            )  # fmt: skip
        table = json.loads(said)
        if "error" in table:
            raise UserError(table["error"], table["remedy"])
        answer = Answer(**table)
        if answer.status in REPEATED and worker.attempt == MOST_ATTEMPTS:
            what = f"trial {worker.job.stage} {worker.job.number}: {answer.status}, {MOST_ATTEMPTS} times"
            raise UserError(f"{what}: {answer.message}", f"see run {answer.run_id}; the same command goes on")
        if answer.status in REPEATED or (answer.status in TIMEOUTS and worker.attempt == 1):
            self._launch(worker.job, worker.cores, worker.attempt + 1)
            return
        self._free.append(worker.cores)
        loss = answer.val_loss if answer.status is None else None
        done(Trial(worker.job, loss, answer.status or JUDGED, answer.seconds, answer.run_id))
