"""What of the check runs a submission: fresh builds in model hosts, and dry runs under the real referee."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

from harness.checks.synthetic import make_task
from harness.core.failures import Failure, RunFailed
from harness.core.host import HostCaps, ModelHost
from harness.core.plan import Outcome, Plan
from harness.core.referee import Referee
from harness.core.run import CHANGED_PARAMETERS
from harness.core.sandbox import Sandbox, probe
from harness.core.task import HardwareClass
from harness.submission import Submission

DRY_STEPS = 4  # reads of the stream; a warm-up may well begin at a learning rate of zero
LONG_DRY_STEPS = 64  # where those changed nothing: many reads may make one step
SEED_LIMIT = 2**31 - 1


@dataclass(frozen=True)
class Build:
    """What came of `build_model` in a fresh process: the digest of the weights, or why there is none."""

    digest: str | None
    failure: str
    output: str


@dataclass(frozen=True)
class Trial:
    """What came of a dry run."""

    outcome: Outcome
    changed_parameters: int

    @property
    def judged(self) -> bool:
        return self.outcome.reason is None


class Trials:
    """Runs one submission on a made-up task, everything in a folder that the caller removes."""

    def __init__(
        self, submission: Submission, hardware: HardwareClass, folder: Path, seed: int | None = None,
        settings: Sequence[str] = (),
    ) -> None:  # fmt: skip
        """`settings` hold for every trial."""
        self._submission = submission
        self._hardware = hardware
        self._settings = settings
        self._folder = folder.resolve()
        self._seed = secrets.randbelow(SEED_LIMIT) if seed is None else seed
        self._task = make_task(submission.task, submission.manifest.evaluation, self._folder / "data")
        self._done = 0
        self.consulted: set[str] = set()

    def builds(self) -> list[Build]:
        """Builds in three fresh processes: twice with the same seed, once with another."""
        with ExitStack() as stack:
            seeds = (self._seed, self._seed, self._seed + 1)
            hosts = [self._launch_host(stack, self._plan([], None, seed)) for seed in seeds]
            return [_build(host, plan) for host, plan in hosts]

    def dry_run(self, dropped: Sequence[str], steps: int = DRY_STEPS) -> Trial:
        """A run that ends after `steps` reads of the stream; what it consulted is added up."""
        referee = Referee(self._plan(dropped, steps, self._seed))
        outcome = referee.run()
        if outcome.reason is Failure.INTERRUPTED:
            raise KeyboardInterrupt
        self.consulted |= set(outcome.consulted)
        changed = [row.get(CHANGED_PARAMETERS) or 0 for row in referee.log.rows]
        return Trial(outcome, int(max(changed, default=0)))

    def training_run(self, dropped: Sequence[str]) -> Trial:
        """A dry run that is repeated with more reads where it changed no parameter."""
        trial = self.dry_run(dropped)
        if trial.judged and trial.changed_parameters == 0:
            trial = self.dry_run(dropped, LONG_DRY_STEPS)
        return trial

    def instrumented_run(
        self, dropped: Sequence[str], settings: Sequence[str], instrument: Callable[[Path], None]
    ) -> tuple[Outcome, str]:
        """A dry run of a source that `instrument` has changed, and what it printed. Nothing is compiled."""
        plan = replace(self._plan(dropped, LONG_DRY_STEPS, self._seed, settings), compiled=None)
        instrument(plan.source)
        outcome = Referee(plan).run()
        if outcome.reason is Failure.INTERRUPTED:
            raise KeyboardInterrupt
        return outcome, (plan.folder / "output.txt").read_text(errors="replace")

    def _plan(self, dropped: Sequence[str], dry_steps: int | None, seed: int, settings: Sequence[str] = ()) -> Plan:
        submission, shape = self._submission, self._submission.manifest.evaluation
        self._done += 1
        folder = self._folder / f"run-{self._done}"
        submission.snapshot(folder / "source")
        compiled = self._folder / "compiled" / "-".join(["all", *sorted(dropped)])
        return Plan(
            task=self._task, hardware=self._hardware, source=folder / "source",
            data_folder=self._folder / "data" / self._task.name, folder=folder, trust=probe().level, seed=seed,
            methods=submission.methods(list(dropped)), hparams=submission.hparams([*self._settings, *settings]),
            batch=shape.batch, length=shape.length, dry_steps=dry_steps,
            compiled=compiled if self._task.caps[self._hardware.device].compile_cpu_seconds else None,
        )  # fmt: skip

    def _launch_host(self, stack: ExitStack, plan: Plan) -> tuple[ModelHost, Plan]:
        scratch = plan.folder / "scratch"
        scratch.mkdir()
        sandbox = Sandbox(plan.trust, plan.source, scratch, threads=1)
        caps = HostCaps(plan.caps.host_load_cpu_seconds, plan.caps.timeout_seconds)
        host = ModelHost(sandbox, plan.context(), caps, plan.folder / "build.txt", cpus=None)
        return stack.enter_context(closing(host)), plan


def same_training(
    one: Submission, dropped: Sequence[str], other: Submission, hardware: HardwareClass, folder: Path
) -> str:
    """What differs between a submission with methods dropped and another one, in a dry run of one seed; "" if nothing.

    On a CPU the exported weights must be the same to the last bit, on GPUs the weights at the start.
    """
    seed = secrets.randbelow(SEED_LIMIT)
    trials = [
        Trials(one, hardware, folder / "one", seed).dry_run(dropped),
        Trials(other, hardware, folder / "other", seed).dry_run([]),
    ]
    for trial in trials:
        if trial.outcome.reason is not None:
            return f"{trial.outcome.reason}: {trial.outcome.message}"
    start, end = ({getattr(t.outcome, name) for t in trials} for name in ("start_digest", "weights_digest"))
    if len(start) > 1:
        return "another model is built"
    return "a few steps end at other weights" if len(end) > 1 and hardware.device == "cpu" else ""


def _build(host: ModelHost, plan: Plan) -> Build:
    digest, failure = None, ""
    try:
        _, digest = host.build()
    except RunFailed as failed:
        failure = f"{failed.reason}: {failed.message}"
    host.close()
    return Build(digest, failure, (plan.folder / "build.txt").read_text(errors="replace").strip())
