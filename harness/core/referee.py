"""The referee: launches a run, owns the clock, hands out the data, seals the weights, asks the judge.

States: COMPILING (only the first time), LAUNCHED, READY, RUNNING, FINISHED, JUDGED, or FAILED with a reason.
The clock is this process's (clock.py), from the act that releases the data to the seal of the weights. The
referee returns events and an outcome; it writes no history.
"""

from __future__ import annotations

import os
import selectors
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from harness.core.child import Child, pinned_process, split_cpus
from harness.core.clock import BLAMED_SHARE, Clock
from harness.core.data.serve import StreamServer, open_training
from harness.core.failures import Failure, RunFailed
from harness.core.held_data import refuse_held_data
from harness.core.host import HostCaps, ModelHost
from harness.core.judge import JUDGING_HOSTS, Job, ask_judge
from harness.core.limits import Role, limits_for
from harness.core.plan import Event, Outcome, Plan
from harness.core.printed import ended_how
from harness.core.protocol import Channel, Listener, ProtocolError
from harness.core.ranks import RankLog, Ranks
from harness.core.sandbox import Sandbox
from harness.core.still_computing import Watch
from harness.core.task import Split
from harness.core.weights import TensorSpec, WeightsError, WeightsFile

CORES_TOLERANCE = 1.02  # CPU over wall seconds x cores that a run may use
CPU_RESOLUTION = 0.1  # CPU time is read in ticks of 10 ms per process; short runs need this much room
SUSPEND_SECONDS = 0.1  # CLOCK_BOOTTIME may run ahead of CLOCK_MONOTONIC by this much before it was a suspend
CHECK_SECONDS = 0.5  # how often deadline, CPU time and memory are looked at; a look takes a few milliseconds
LEFT_SECONDS = {"cpu": 5.0, "cuda": 30.0}  # a rank may be gone so long; a crash is reported sooner
DRAIN_SECONDS = 10.0  # how long a sealed run may take to hand in its last log rows


class Referee:
    """Runs one plan. `log` holds the log rows received; events go to `on_event`, which must return at once."""

    def __init__(self, plan: Plan, on_event: Callable[[Event], None] = lambda event: None) -> None:
        self._plan = plan
        self._on_event = on_event
        self.outcome = Outcome()
        self.log = RankLog(plan.caps.log_lines)
        self._launched = time.monotonic()
        self._deadline = float("inf")
        self._next_check = 0.0
        self._setting_up = True
        self._setup_cap = plan.caps.setup_cpu_seconds
        self._violation: str | None = None

    def run(self) -> Outcome:
        """From launch to judged loss. Never raises for what a submission does; the outcome says it."""
        self._launched = time.monotonic()
        try:
            with ExitStack() as stack:
                self._run(stack)
        except RunFailed as failed:
            self._fail(failed.reason, failed.message)
        except KeyboardInterrupt:
            self._fail(Failure.INTERRUPTED, "interrupted by the user")
        finally:
            shutil.rmtree(self._plan.folder / "scratch", ignore_errors=True)
        return self.outcome

    def _run(self, stack: ExitStack) -> None:
        plan = self._plan
        run_cpus, other_cpus = split_cpus(plan.cores)
        self._cpus = self.outcome.cpus = run_cpus
        stack.enter_context(pinned_process(other_cpus))
        self._setup_cap = plan.caps.setup_cpu_seconds
        if plan.compiled is None:
            self._setup_cap += plan.caps.compile_cpu_seconds
        elif not plan.compiled.is_dir():
            self._compile(plan.compiled, run_cpus)
        builder = stack.enter_context(closing(self._launch_host("build", other_cpus)))
        self._launch(stack, "run", run_cpus)
        self._enter("LAUNCHED")
        self._shards = open_training(stack, plan.task, plan.data_folder)
        self._connect()
        self._await("ready")
        self._enter("READY")
        weights = self._check_start(stack, builder)
        builder.close()
        self._release(stack, weights)
        self._await("finished")
        if plan.node.number > 0:  # the rest is node 0's
            self._tell_sealed()
            self._enter("FINISHED")
            return
        self._seal(weights)
        self._child.close()
        self._enter("FINISHED")
        refuse_held_data(weights, self._shards)
        self.outcome.judgement = self._judge(weights, run_cpus, "validation")
        if plan.judge_holdout:
            self._judge_holdout(weights, run_cpus)
        self._enter("JUDGED")

    # Launch

    def _compile(self, compiled: Path, cpus: Sequence[int]) -> None:
        """Fills the compile cache: the script up to `run.start`, then a model host with a blank batch.

        Neither sees data, so the cache cannot hold any. Every later process gets a copy that is thrown away.
        """
        plan = self._plan
        setup_cap, self._setup_cap = self._setup_cap, plan.caps.compile_cpu_seconds
        self._enter("COMPILING")
        with ExitStack() as stack:
            self._launch(stack, "compile", cpus)
            self._connect()
            self._await("ready")
        scratch = plan.folder / "scratch"
        (scratch / "compile-host").mkdir()
        (scratch / "compile" / "cache").rename(scratch / "compile-host" / "cache")
        with closing(self._launch_host("compile-host", cpus, plan.caps.compile_cpu_seconds)) as host:
            specs, _ = host.build()
            with closing(self._weights_file(specs)) as blank:
                host.load(blank.descriptor, plan.batch, plan.length)
        compiled.parent.mkdir(parents=True, exist_ok=True)
        try:
            (scratch / "compile-host" / "cache").rename(compiled)
        except OSError:
            if not compiled.is_dir():  # another run beside this one may have been first: its cache is as good
                raise
        self._setup_cap = setup_cap

    def _launch(self, stack: ExitStack, purpose: str, cpus: Sequence[int]) -> None:
        plan = self._plan
        scratch = self._scratch(purpose)
        sandbox = self._sandbox(scratch, "run")
        self._listener = stack.enter_context(closing(Listener()))
        command = [sys.executable, *plan.launcher, str(plan.source / "train.py")]
        self._child = Child(
            sandbox.command(command, self._listener), sandbox.environment(self._listener), scratch,
            plan.folder / "output.txt", plan.caps.output_bytes, cpus, sandbox.limits, sandbox.user,
        )  # fmt: skip
        stack.enter_context(closing(self._child))
        stack.callback(self._note_output)
        self._ranks = stack.enter_context(closing(Ranks(plan.ranks, self.log)))
        self._selector = stack.enter_context(selectors.DefaultSelector())
        self._selector.register(self._child.output_descriptor, selectors.EVENT_READ, "output")
        self._selector.register(self._child.exit_descriptor, selectors.EVENT_READ, "exit")
        self._deadline = time.monotonic() + plan.caps.timeout_seconds

    def _note_output(self) -> None:
        self.outcome.output_truncated = self._child.printed.truncated

    def _scratch(self, purpose: str) -> Path:
        """The scratch folder of one process, with its own copy of the compile cache."""
        folder = self._plan.folder / "scratch" / purpose
        folder.mkdir(parents=True, exist_ok=True)
        compiled = self._plan.compiled
        if compiled is not None and compiled.is_dir():
            shutil.copytree(compiled, folder / "cache", dirs_exist_ok=True)
        else:
            (folder / "cache").mkdir(exist_ok=True)
        return folder

    def _launch_host(self, purpose: str, cpus: Sequence[int], load_cpu_seconds: float | None = None) -> ModelHost:
        plan = self._plan
        scratch = self._scratch(purpose)
        sandbox = self._sandbox(scratch, "host")
        caps = HostCaps(load_cpu_seconds or plan.caps.host_load_cpu_seconds, plan.caps.timeout_seconds)
        return ModelHost(sandbox, plan.context(), caps, plan.folder / f"{purpose}.txt", cpus)

    def _sandbox(self, scratch: Path, role: Role) -> Sandbox:
        plan = self._plan
        gpus = 0 if plan.hardware.device == "cpu" else plan.devices
        return Sandbox(
            plan.trust, plan.source, scratch, self._threads(), gpus, role, limits_for(role, plan.caps, gpus > 0),
            plan.devices, plan.rung, (plan.data_folder,), outside=plan.node.count > 1,
        )  # fmt: skip

    def _threads(self) -> int:
        return max(1, self._plan.cores // self._plan.devices)

    def _connect(self) -> None:
        """Accepts exactly one process a rank, then takes the socket's path away."""
        self._selector.register(self._listener, selectors.EVENT_READ, "listener")
        while not self._ranks.complete:
            self._pump()
        self._selector.unregister(self._listener)
        self._listener.close()

    def _welcome(self) -> None:
        try:
            rank, channel = self._listener.welcome(timeout=5)
            self._ranks.add(rank, channel)
        except ProtocolError as error:
            raise RunFailed(Failure.PROTOCOL, str(error)) from None
        self._selector.register(channel, selectors.EVENT_READ, rank)
        self._ranks.send(rank, "welcome", context=self._plan.context().to_json())

    # Start and finish

    def _check_start(self, stack: ExitStack, builder: ModelHost) -> WeightsFile:
        """The weights at the start must be those that a fresh process builds from the same seed."""
        specs, digest = builder.build()
        self._ranks.check_start(specs, digest)
        weights = stack.enter_context(closing(self._weights_file(specs)))
        self._check_caps()
        self._setting_up = False
        self.outcome.setup_cpu_seconds = round(self._child.cpu_seconds(), 3)
        self.outcome.start_digest = digest
        self.outcome.weights_bytes = weights.size
        return weights

    def _weights_file(self, specs: list[TensorSpec]) -> WeightsFile:
        try:
            return WeightsFile(specs, self._plan.caps.weights_bytes)
        except WeightsError as error:
            raise RunFailed(Failure.WEIGHTS_CAP, str(error)) from None

    def _release(self, stack: ExitStack, weights: WeightsFile) -> None:
        """The one act that starts the clock is sending the shards, or the stream they are served on."""
        self._server: StreamServer | None = None
        if self._plan.task.order == "sequential":
            world_size = self._plan.hardware.devices
            self._server = stack.enter_context(
                closing(StreamServer(self._shards, self._ranks, world_size, self._violate))
            )
            self._server.start()
            shared = {rank: [end.fileno()] for rank, end in self._server.child_ends.items()}
        else:
            shared = {rank: [shard.descriptor for shard in self._shards] for rank in self._ranks}
        self._ranks.release()
        self._enter("RUNNING")
        self._deadline = time.monotonic() + self._plan.caps.timeout_seconds
        self._clock = Clock(self._cpus, self._child.cpu_seconds)
        for rank, descriptors in shared.items():
            first = [weights.descriptor] if rank == 0 else []
            self._ranks.send(rank, "start", [*first, *descriptors])

    def _seal(self, weights: WeightsFile) -> None:
        """Seals the weights and stops the clock; then checks what makes the time a fair one."""
        outcome = self.outcome
        try:
            weights.seal()
        except OSError as error:
            message = (
                f"the weights cannot be sealed: the run keeps them mapped, or sealed them itself ({error.strerror})"
            )
            raise RunFailed(Failure.WEIGHTS_MAPPED, message) from None
        timing = self._clock.read()
        outcome.seconds, outcome.cpu_seconds, outcome.suspended_seconds = timing.wall, timing.cpu, timing.suspended
        outcome.lost_seconds, outcome.stolen_seconds = timing.lost, timing.stolen
        outcome.export_seconds = self._ranks.export_seconds()
        outcome.tokens = self._server.served if self._server else self._ranks.tokens()
        outcome.tokens_counted_by = "referee" if self._server else "script"
        watch = Watch(self._child)
        if not weights.header_intact():
            raise RunFailed(Failure.NO_WEIGHTS, "the header of the exported weights was overwritten")
        outcome.weights_digest = weights.digest()
        outcome.still_computing = watch.end()
        self._tell_sealed()
        allowed = CORES_TOLERANCE * outcome.seconds * self._plan.cores + CPU_RESOLUTION
        if outcome.cpu_seconds > allowed:
            raise RunFailed(
                Failure.TOO_MANY_CORES,
                f"the run used {outcome.cpu_seconds:.2f} s of CPU in {outcome.seconds:.2f} s; "
                f"{self._plan.hardware.name} has {self._plan.cores} core(s)",
            )
        if outcome.suspended_seconds > SUSPEND_SECONDS:
            raise RunFailed(
                Failure.SUSPENDED, f"the machine slept for {outcome.suspended_seconds:.1f} s during the run"
            )

    def _tell_sealed(self) -> None:
        """Lets every rank go on, and takes the last log rows; a run that does not hand them in only loses them."""
        for rank in self._ranks:
            self._ranks.send(rank, "sealed")
        deadline = time.monotonic() + DRAIN_SECONDS
        while self._ranks.open and time.monotonic() < deadline:
            try:
                self._pump()
            except RunFailed:
                break
        self.outcome.consulted = self._ranks.consulted()

    # Waiting

    def _await(self, kind: str) -> None:
        while not self._ranks.all_sent(kind):
            self._pump()

    def _pump(self) -> None:
        """Waits for the next thing to happen and deals with it. Raises RunFailed."""
        ready = self._selector.select(CHECK_SECONDS)
        ended = False
        for key, _ in ready:
            if key.data == "output":
                if not self._child.pump_output():
                    self._selector.unregister(key.fileobj)
            elif key.data == "exit":
                ended = True
            elif key.data == "listener":
                self._welcome()
            else:
                self._receive(key.data, key.fileobj)
        if self._violation:
            raise RunFailed(Failure.PROTOCOL, self._violation)
        if ended and not self._ranks.all_sent("finished"):
            self._ended_early()
        if time.monotonic() >= self._next_check:
            self._check_caps()
            self._next_check = time.monotonic() + CHECK_SECONDS

    def _receive(self, rank: int, channel: Any) -> None:
        assert isinstance(channel, Channel)
        try:
            message = channel.receive(timeout=5)
            if message is None:
                self._selector.unregister(channel)
                self._ranks.closed(rank)
                return
            self._ranks.take(rank, message)
        except (ProtocolError, TimeoutError) as error:
            raise RunFailed(Failure.PROTOCOL, f"rank {rank}: {error}") from None
        if message.kind == "log" and rank == 0:
            self._on_event(Event("log", {"rows": self.log.latest()}))

    def _ended_early(self) -> None:
        status = self._child.exit_status()
        self._child.check_limits()  # the kernel may have ended it for one of them
        self._child.close()
        missing = "run.finish" if self.outcome.state == "RUNNING" else "run.start"
        if status == 0:
            raise RunFailed(Failure.NO_WEIGHTS, f"the script ended without calling {missing} on every rank")
        said = self._child.printed.last_words(self._plan.hparams)
        raise RunFailed(Failure.CRASH, f"the script {ended_how(status)}; {said}")

    def _check_caps(self) -> None:
        caps = self._plan.caps
        if time.monotonic() > self._deadline:
            running = self.outcome.state == "RUNNING"
            waiting = self._ranks.behind("finished" if running else "ready")
            said = f"the run took longer than {caps.timeout_seconds:.0f} s in state {self.outcome.state}{waiting}"
            if running and (lost := self._clock.share_lost()) > BLAMED_SHARE:
                raise RunFailed(Failure.MACHINE_BUSY, f"{said}; others had its CPUs for {lost:.0%} of the time")
            raise RunFailed(Failure.TIMEOUT, said)
        left = self._ranks.left_early(LEFT_SECONDS[self._plan.hardware.device])
        if left is not None:
            call = "run.finish" if self.outcome.state == "RUNNING" else "run.start"
            said = self._child.printed.last_words(self._plan.hparams)
            raise RunFailed(Failure.NO_WEIGHTS, f"rank {left} ended without calling {call}; others still run; {said}")
        cpu_seconds = self._child.cpu_seconds()  # looked at while it runs too, so that no helper's time is lost
        if self._setting_up and cpu_seconds > self._setup_cap * self._plan.devices:
            what = "compilation before the run" if self.outcome.state == "COMPILING" else "set-up before run.start"
            raise RunFailed(Failure.SETUP_CAP, f"{what} used more than {self._setup_cap:.0f} s of CPU per process")
        self._child.check_limits()

    def _violate(self, message: str) -> None:
        self._violation = message

    # Judging

    def _judge(self, weights: WeightsFile, cpus: Sequence[int], split: Split) -> dict[str, Any]:
        plan = self._plan
        for purpose in JUDGING_HOSTS:
            self._scratch(purpose)
        job = Job(
            task=str(plan.task.path), data_folder=str(plan.data_folder), split=split,
            source=str(plan.source), scratch=str(plan.folder / "scratch"), output=str(plan.folder),
            trust=plan.trust, rung=plan.rung, context=plan.context().to_json(), weights=weights.descriptor,
            batch=plan.batch, length=plan.length, threads=self._threads(), cpus=list(cpus), referee=os.getpid(),
        )  # fmt: skip
        return ask_judge(job, plan.caps.judging_seconds, self._judging)

    def _judge_holdout(self, weights: WeightsFile, cpus: Sequence[int]) -> None:
        """What comes of it decides nothing, so neither does its failure."""
        try:
            self.outcome.holdout = self._judge(weights, cpus, "holdout")
        except RunFailed as failed:
            self.outcome.holdout_failure = f"{failed.reason}: {failed.message}"

    def _judging(self, done: int, batches: int) -> None:
        self._on_event(Event("judging", {"batch": done, "batches": batches}))

    # States

    def _enter(self, state: str) -> None:
        self.outcome.state = state
        self.outcome.times[state] = round(time.monotonic() - self._launched, 3)
        self._on_event(Event("state", {"state": state}))

    def _fail(self, reason: Failure, message: str) -> None:
        self.outcome.reason = reason
        self.outcome.message = message
        self._enter("FAILED")
