"""The trusted side of a model host: launches it, asks it, holds it to its caps, believes nothing it says."""

from __future__ import annotations

import select
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.core.child import Child
from harness.core.failures import Failure, RunFailed
from harness.core.printed import OUT_OF_MEMORY, ended_how
from harness.core.protocol import Channel, Context, Listener, Message, ProtocolError, plain_text
from harness.core.sandbox import Sandbox
from harness.core.slots import Slots
from harness.core.weights import MAX_TENSORS, TensorSpec, WeightsError

POLL_SECONDS = 0.2
EXIT_SECONDS = 1.0  # between the end of a host's connection and its exit
HELLO_SECONDS = 120.0  # importing torch from a cold disk can take a minute
OUTPUT_BYTES = 1 << 20
COMMAND = [sys.executable, "-P", "-m", "harness.core.model_host"]


@dataclass(frozen=True)
class HostCaps:
    """CPU seconds from the hello until the first (blank) batch is answered, and wall seconds for everything together.

    No later batch may take more CPU than the blank one plus the same seconds. Training in bursts stops there;
    training a little with every batch changes answers from batch to batch, which the audit finds. What is dear in
    every batch alike, an ensemble say, is held by `answers_cpu_seconds`, of all batches; None where a GPU answers.
    """

    load_cpu_seconds: float
    seconds: float
    answers_cpu_seconds: float | None = None


class ModelHost:
    """One model host process. Every method raises RunFailed with a `model-host-...` or `wrong-shape` reason."""

    def __init__(
        self, sandbox: Sandbox, context: Context, caps: HostCaps, output: Path, cpus: Sequence[int] | None,
        build_frozen: bool = False,
    ) -> None:  # fmt: skip
        """`build_frozen`: where the task fixes the model, that is built; the submission is not imported at all."""
        self._caps = caps
        self._deadline = time.monotonic() + caps.seconds
        self._context = context
        self._source = None if build_frozen and context.task.model else sandbox.source
        self._name = "the shadow host" if output.stem == "shadow" else "the model host"
        self._listener = Listener()
        self._channel: Channel | None = None
        self._loading = False
        self._cpu_before = self._cpu_seconds = self._blank_cpu_seconds = 0.0
        self.load_cpu_seconds = 0.0
        self._answers: list[float] = []  # CPU seconds of every batch
        command = sandbox.command(COMMAND, self._listener)
        environment = sandbox.environment(self._listener)
        self._child = Child(
            command, environment, sandbox.scratch, output, OUTPUT_BYTES, cpus, sandbox.limits, sandbox.user
        )

    def build(self) -> tuple[list[TensorSpec], str]:
        """Builds the model, mostly by importing the submission: the tensors and the digest of their values."""
        self._connect()
        self._cpu_before = self._child.cpu_seconds()
        self._loading = True
        self._send("welcome", context=self._context.to_json(), source=self._source and str(self._source))
        specs: list[TensorSpec] = []
        while (message := self._receive("tensors", "built")).kind == "tensors":
            try:
                specs += [TensorSpec.from_json(item) for item in self._field(message, "items", list)]
            except WeightsError as error:
                raise RunFailed(Failure.HOST_PROTOCOL, str(error)) from None
            if not message.fields["items"] or len(specs) > MAX_TENSORS:
                raise RunFailed(Failure.HOST_PROTOCOL, f"the model has no or more than {MAX_TENSORS:,} tensors")
        self.load_cpu_seconds = self._child.cpu_seconds() - self._cpu_before
        return specs, self._field(message, "digest", str)

    def load(self, weights: int, batch: int, length: int) -> tuple[int, str]:
        """Loads sealed weights and answers one blank batch: the number of columns of the logits, and their dtype."""
        self._send("load", [weights], batch=batch, length=length)
        self._receive("loaded")
        loaded = self._child.cpu_seconds()
        answer = self._receive("columns")
        self._cpu_seconds = self._child.cpu_seconds()
        self._blank_cpu_seconds = self._cpu_seconds - loaded
        self.load_cpu_seconds = self._cpu_seconds - self._cpu_before
        self._loading = False
        return self._field(answer, "count", int), self._field(answer, "dtype", str)

    def share(self, slots: Slots, columns: int) -> str:
        """Hands over the shared memory of the slots; why the host cannot open it, or nothing."""
        self._send("slots", slots.descriptors, count=len(slots.tokens), columns=columns, dtype=slots.dtype)
        return plain_text(self._field(self._receive("shared"), "refused", str), 500)

    def forward(self, slot: int) -> None:
        """Asks for the logits of the tokens in a slot; they are there when `wait(slot)` returns."""
        self._send("forward", slot=slot)

    def wait(self, slot: int) -> None:
        """Waits until the host says that a slot is done."""
        if self._field(self._receive("done"), "slot", int) != slot:
            raise RunFailed(Failure.HOST_PROTOCOL, "the model host answered for another batch")
        before, self._cpu_seconds = self._cpu_seconds, self._child.cpu_seconds()
        spent, cap = self._cpu_seconds - before, self._blank_cpu_seconds + self._caps.load_cpu_seconds
        self._answers.append(spent)
        if spent > cap:
            raise RunFailed(
                Failure.HOST_ANSWER_CAP,
                f"the model took {spent:.1f} s of CPU for one batch; the blank batch took "
                f"{self._blank_cpu_seconds:.1f} s, and at most {self._caps.load_cpu_seconds:.0f} s more are allowed",
            )
        most = self._caps.answers_cpu_seconds
        if most is not None and sum(self._answers) > most:
            raise RunFailed(Failure.HOST_ANSWER_CAP, f"the model took over {most:.0f} s of CPU to answer all batches")

    @property
    def extra_cpu_seconds(self) -> float:
        """What the dearest batch took beyond the median one."""
        return max(self._answers) - statistics.median(self._answers) if self._answers else 0.0

    @property
    def cpu_seconds(self) -> float:
        """What loading and all answers took."""
        return self.load_cpu_seconds + sum(self._answers)

    def close(self) -> None:
        """Ends the host and everything it started."""
        if self._channel is not None:
            self._channel.close()
        self._listener.close()
        self._child.close()

    def _connect(self) -> None:
        deadline = time.monotonic() + HELLO_SECONDS
        while not self._ready(self._listener):
            if time.monotonic() > deadline:
                raise RunFailed(Failure.HOST_TIMEOUT, f"the model host did not connect in {HELLO_SECONDS:.0f} s")
        try:
            _, self._channel = self._listener.welcome(timeout=5)
        except ProtocolError as error:
            raise RunFailed(Failure.HOST_PROTOCOL, str(error)) from None
        self._listener.close()

    def _send(self, kind: str, descriptors: Sequence[int] = (), **fields: object) -> None:
        assert self._channel is not None
        try:
            self._channel.send(kind, descriptors, **fields)
        except OSError:
            raise self._crashed() from None

    def _receive(self, *kinds: str) -> Message:
        assert self._channel is not None
        self._check_caps()
        while not self._ready(self._channel):
            self._check_caps()
        try:
            message = self._channel.receive(timeout=5)
        except (ProtocolError, TimeoutError) as error:
            raise RunFailed(Failure.HOST_PROTOCOL, str(error)) from None
        if message is None:
            raise self._crashed()
        if message.kind == "failed":
            raise RunFailed(Failure.WRONG_SHAPE, plain_text(message.fields.get("message"), 2000))
        if message.kind not in kinds:
            raise RunFailed(Failure.HOST_PROTOCOL, f"the model host sent {message.kind[:40]!r}, not {kinds}")
        return message

    def _ready(self, source: Channel | Listener) -> bool:
        """Waits a moment for `source`, taking the host's output meanwhile. Raises when the host has ended."""
        watched = [source, self._child.output_descriptor, self._child.exit_descriptor]
        readable, _, _ = select.select(watched, [], [], POLL_SECONDS)
        if self._child.output_descriptor in readable and not self._child.pump_output():
            readable = select.select([source, self._child.exit_descriptor], [], [], POLL_SECONDS)[0]
        if source in readable:
            return True
        if self._child.exit_descriptor in readable:
            raise self._crashed()
        return False

    def _check_caps(self) -> None:
        if time.monotonic() > self._deadline:
            raise RunFailed(
                Failure.HOST_TIMEOUT, f"the model host took longer than its cap of {self._caps.seconds:.0f} s"
            )
        cap = self._caps.load_cpu_seconds
        if self._loading and self._child.cpu_seconds() - self._cpu_before > cap:
            raise RunFailed(Failure.HOST_LOAD_CAP, f"building, loading and a first batch took over {cap:.0f} s of CPU")
        self._child.check_limits()

    def _field(self, message: Message, name: str, kind: type) -> Any:
        try:
            return message.get(name, kind)
        except ProtocolError as error:
            raise RunFailed(Failure.HOST_PROTOCOL, str(error)) from None

    def _crashed(self) -> RunFailed:
        select.select([self._child.exit_descriptor], [], [], EXIT_SECONDS)
        how = ended_how(self._child.exit_status())
        self._child.close()
        said = self._child.printed.tail()
        full = "\nthe GPU's memory is full: lower batch or length under [evaluation] in submission.toml"
        remedy = full if OUT_OF_MEMORY in said else ""
        return RunFailed(Failure.HOST_CRASH, f"{self._name} {how} too early; its last lines:\n{said}{remedy}")
