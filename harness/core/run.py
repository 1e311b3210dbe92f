"""The child's side of a run: what a training script calls.

run = harness.connect()
model = build_model(run)
run.start(model)                      # the clock starts; the data appears
inputs, targets = run.stream.next(16, 256)
run.log(step=0, loss=3.2)
run.finish(model)                     # the weights leave; the clock stops
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.core import weights
from harness.core.data.shards import map_shard_fd
from harness.core.data.stream import FreeStream, SequentialStream, Stream
from harness.core.dry import DryRun
from harness.core.protocol import (
    LOG_ROW_BYTES,
    LOG_ROWS_PER_PACKET,
    NONCE_VARIABLE,
    SOCKET_VARIABLE,
    Channel,
    Context,
    Message,
    TaskFacts,
    connect,
)
from harness.errors import UserError

if TYPE_CHECKING:
    import torch

LOG_SECONDS = 0.5  # log rows leave in batches, at most this often
TENSORS_PER_PACKET = 200
CHANGED_PARAMETERS = "changed_parameters"  # in the last log row of a dry run


class Settings:
    """What `build_model` may ask of its argument: in a run, in the fresh build and in the model host alike."""

    def __init__(self, context: Context, rank: int = 0) -> None:
        self._context = context
        self._consulted: set[str] = set()
        self.rank = rank

    @property
    def task(self) -> TaskFacts:
        """Name, vocabulary size, end-of-text token, order, target loss and longest evaluation of the task."""
        return self._context.task

    @property
    def seed(self) -> int:
        """Drawn by the referee, below 2**31. `build_model` begins with `torch.manual_seed(run.seed)`."""
        return self._context.seed

    @property
    def world_size(self) -> int:
        return self._context.world_size

    @property
    def device(self) -> str:
        """`"cpu"`, or `"cuda:N"` with this rank's own device."""
        return "cpu" if self._context.device == "cpu" else f"cuda:{os.environ.get('LOCAL_RANK', '0')}"

    def frozen_model(self) -> torch.nn.Module:
        """The model that the task fixes, on the run's device, drawn from torch's global random state.

        Raises UserError where the task fixes none.
        """
        if self.task.model is None:
            raise UserError(f"{self.task.name} fixes no model", "build your own in build_model")
        from harness.core.frozen_model import FrozenGPT

        return FrozenGPT(self.task.model, self.task.vocab_size).to(self.device)

    def uses(self, method: str) -> bool:
        """Whether a method declared in submission.toml is on. Raises UserError for an undeclared name."""
        return self._declared("methods", method, self._context.methods)

    def hparam(self, name: str) -> Any:
        """The value of a hyperparameter declared in submission.toml. Raises UserError for an undeclared name."""
        return self._declared("hparams", name, self._context.hparams)

    def _declared(self, section: str, name: str, table: Any) -> Any:
        if name not in table:
            known = ", ".join(sorted(table)) or "none"
            raise UserError(
                f"{section[:-1]} {name!r} is not declared in submission.toml (declared: {known})",
                f"add a table [{section}.{name}]",
            )
        self._consulted.add(f"{section}.{name}")
        return table[name]


class Run(Settings):
    """One run as its script sees it. Its states are set-up, running, finished; calls out of order are errors."""

    def __init__(self, context: Context, rank: int, channel: Channel) -> None:
        super().__init__(context, rank)
        self._channel = channel
        self._state = "set-up"
        self._stream: Stream | None = None
        self._specs: list[weights.TensorSpec] = []
        self._weights_descriptor: int | None = None
        self._rows: deque[dict[str, Any]] = deque()
        self._started = 0.0
        self._sent = 0.0
        self._random = np.random.default_rng(context.seed + rank)
        self._dry: DryRun | None = None

    @property
    def stream(self) -> Stream:
        """The training tokens, from `start` on: see harness/core/data/stream.py."""
        if self._stream is None:
            raise UserError("run.stream is there only after run.start(model)", "warm up on run.synthetic instead")
        return self._stream

    def synthetic(self, batch: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Random inputs and targets for warm-up: two int64 tensors [batch, length] on the run's device.

        Documents have lengths like the task's, each behind an end-of-text token; the text is uniform noise.
        """
        import torch

        tokens = self._random.integers(0, self.task.vocab_size, batch * length + 1)
        quantiles = self.task.document_tokens
        place = 0
        while place < len(tokens):
            tokens[place] = self.task.end_of_text
            drawn = np.interp(self._random.random() * (len(quantiles) - 1), range(len(quantiles)), quantiles)
            place += 1 + max(1, int(drawn))
        tensor = torch.from_numpy(tokens).to(self.device)
        return tensor[:-1].view(batch, length), tensor[1:].view(batch, length)

    def start(self, model: torch.nn.Module) -> None:
        """Every rank calls it once, with the whole model as `build_model` made it. Returns with the clock running.

        The digest of the weights must equal that of a fresh `build_model(run)`; names, shapes and dtypes
        are frozen from here on. Raises UserError when called out of order.
        """
        self._require("set-up", "start")
        _synchronize(self.device)
        self._meet_other_nodes()
        self._specs, tensors = weights.describe(model)
        items = [spec.to_json() for spec in self._specs]
        for place in range(0, len(items), TENSORS_PER_PACKET):
            self._channel.send("tensors", items=items[place : place + TENSORS_PER_PACKET])
        if self._context.dry_steps is not None:
            self._dry = DryRun(self._context.dry_steps, model, self.finish)
        self._channel.send("ready", digest=weights.digest(self._specs, tensors), consulted=sorted(self._consulted))
        answer = self._expect("start")
        self._started = self._sent = time.monotonic()
        self._stream = self._open_stream(answer)
        if self._dry is not None:
            self._stream.before_read = self._dry.before_read
        self._state = "running"

    def _meet_other_nodes(self) -> None:
        """Waits until every rank is here. Those of one node meet at their referee; no referee sees another node."""
        if int(os.environ.get("LOCAL_WORLD_SIZE", self.world_size)) == self.world_size:
            return
        import torch.distributed

        if not torch.distributed.is_initialized():
            message = "run.start: this run has several nodes, which meet through torch.distributed"
            raise UserError(message, "call torch.distributed.init_process_group before run.start")
        torch.distributed.barrier()

    def log(self, **values: float) -> None:
        """Notes numbers of a step (`step`, `steps`, `loss`, ...): buffered, never waits.

        Seconds since the start and the stream's position are added. Raises UserError outside of a run and
        for a value that is not a number. A tensor is a value too; reading it may wait for its device.
        """
        if self._dry is not None:
            self._dry.before_log()
        self._require("running", "log")
        self._note(values)
        if time.monotonic() - self._sent >= LOG_SECONDS:
            self._sent = time.monotonic()
            self._send_rows(wait=False)

    def _note(self, values: Mapping[str, float]) -> None:
        now = time.monotonic()
        row = {name: _number(name, value) for name, value in values.items()}
        row |= {"seconds": round(now - self._started, 4), "tokens": self.stream.taken}
        if len(json.dumps(row)) > LOG_ROW_BYTES:
            raise UserError(f"run.log: a row of more than {LOG_ROW_BYTES} bytes", "log fewer values a step")
        self._rows.append(row)

    def finish(self, model: torch.nn.Module) -> None:
        """Every rank calls it once, with the trained model; rank 0 exports it. The clock stops at the seal.

        Zero steps are a valid (bad) run. Raises UserError when called out of order, when names, shapes or
        dtypes changed since `start`.
        """
        self._require("running", "finish")
        _synchronize(self.device)
        began = time.monotonic()
        if self._dry is not None:
            self._note({CHANGED_PARAMETERS: self._dry.changed_parameters()})
        if self._weights_descriptor is not None:
            self._export(model)
        self._state = "finished"
        self._channel.send("finished", tokens=self.stream.taken, export_seconds=round(time.monotonic() - began, 6))
        self._expect("sealed")
        self._send_rows(wait=True)
        self._channel.send("closing", consulted=sorted(self._consulted))
        self._channel.close()

    def _export(self, model: torch.nn.Module) -> None:
        assert self._weights_descriptor is not None
        specs, tensors = weights.describe(model)
        if specs != self._specs:
            changed = next(
                (f"{a.name} {a.dtype}{list(a.shape)}" for a, b in zip(specs, self._specs, strict=False) if a != b),
                f"{len(specs)} tensors instead of {len(self._specs)}",
            )
            raise UserError(
                f"run.finish: the model's tensors are not those of run.start ({changed})",
                "keep names, shapes, dtypes and ties as they were at run.start",
            )
        if self._dry is not None:
            tensors = self._dry.shaken(model, tensors)
        weights.write(self._weights_descriptor, specs, tensors)
        os.close(self._weights_descriptor)
        self._weights_descriptor = None

    def _open_stream(self, answer: Message) -> Stream:
        descriptors = list(answer.descriptors)
        if self.rank == 0:
            self._weights_descriptor = descriptors.pop(0)
        if self.task.order == "sequential":
            connection = socket.socket(fileno=descriptors.pop(0))
            return SequentialStream(connection, self.rank, self.world_size, self.device)
        shards = [map_shard_fd(descriptor) for descriptor in descriptors]
        for descriptor in descriptors:
            os.close(descriptor)
        return FreeStream(shards, self.rank, self.world_size, self.device)

    def _send_rows(self, wait: bool) -> None:
        while self._rows:
            rows = [self._rows[index] for index in range(min(len(self._rows), LOG_ROWS_PER_PACKET))]
            if wait:
                self._channel.send("log", rows=rows)
            elif not self._channel.try_send("log", rows=rows):
                return
            for _ in rows:
                self._rows.popleft()

    def _expect(self, kind: str) -> Message:
        message = self._channel.receive(descriptors=True)
        if message is None:
            raise UserError("the referee ended the run", "see the reason it gives")
        if message.kind != kind:
            raise UserError(f"the referee sent {message.kind!r} where {kind!r} was due")
        return message

    def _require(self, state: str, call: str) -> None:
        if self._state != state:
            raise UserError(
                f"run.{call} was called while the run is in state {self._state!r}; it belongs to {state!r}",
                "call connect, start, log (any number), finish, each rank in this order and once",
            )


def connect_run() -> Run:
    """Connects this process to the referee that launched it: `harness.connect()`. Raises UserError."""
    missing = [name for name in (SOCKET_VARIABLE, NONCE_VARIABLE) if name not in os.environ]
    if missing:
        raise UserError("this script was not started by the harness", "start it with: speedrun run FOLDER")
    rank = int(os.environ.get("RANK", "0"))
    try:
        channel = connect(rank)
    except OSError as error:
        raise UserError(
            f"rank {rank} cannot reach the referee: {error.strerror}",
            "call harness.connect() once in each process",
        ) from None
    message = channel.receive()
    if message is None or message.kind != "welcome":
        raise UserError("the referee did not welcome this process", "call harness.connect() once in each process")
    return Run(Context.from_json(message.fields["context"]), rank, channel)


def _synchronize(device: str) -> None:
    if device != "cpu":
        import torch

        torch.cuda.synchronize(device)


def _number(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise UserError(f"run.log: {name} is not a number: {str(value)[:80]!r}", "log numbers only") from None
    return int(number) if number.is_integer() and abs(number) < 2**53 else number
