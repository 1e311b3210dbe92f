"""The judge: the process that computes the validation loss. It never imports a submission and needs no torch.

    python -m harness.core.judge < job.json

The model host answers logits through shared memory; the judge takes the log-softmax in float32 over every
column the model has and gathers the targets itself. It prints one JSON line per event: progress, and at the
end either a judgement or a failure. Two slots keep both busy: the host computes one while this scores the other.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from harness.core.data.shards import open_shard
from harness.core.failures import Failure, RunFailed
from harness.core.guard import die_with_parent
from harness.core.host import HELLO_SECONDS, HostCaps, ModelHost
from harness.core.protocol import Context
from harness.core.sandbox import Sandbox
from harness.core.slots import Slots, slot_bytes
from harness.core.task import load_task
from harness.errors import UserError
from harness.paths import PACKAGE

SLOTS = 2
OVERDUE_SECONDS = 2 * HELLO_SECONDS
CHUNK_TOKENS = 2048  # rows of logits scored at once: at 1,024 columns the temporaries stay at 8 MB
MAX_COLUMN_FACTOR = 2  # extra vocabulary columns are allowed, up to twice the vocabulary


@dataclass(frozen=True)
class Job:
    """What the judge is asked to do, as it crosses from the referee in JSON."""

    task: str
    data_folder: str
    split: str
    source: str
    scratch: str
    output: str
    trust: str
    context: dict[str, Any]
    weights: int
    batch: int
    length: int
    threads: int
    cpus: list[int]
    referee: int  # process id; the judge ends with it


@dataclass(frozen=True)
class Judgement:
    """The loss in nats per token over every scored token, and bits per byte of the text they stand for."""

    val_loss: float
    bits_per_byte: float
    tokens: int
    columns: int
    seconds: float  # with the start of the model host
    scoring_seconds: float  # from the first batch asked for to the last one scored
    host_load_cpu_seconds: float


class Answerer(Protocol):
    """What `score` needs of a model host."""

    def forward(self, slot: int) -> None: ...
    def wait(self, slot: int) -> None: ...


class Windows:
    """Validation tokens cut into batches of exactly [batch, length]: windows do not overlap.

    Every token but the first (the leading end-of-text) is a target once. The tail is padded with
    end-of-text; padded positions are not scored.
    """

    def __init__(self, tokens: np.ndarray, batch: int, length: int, end_of_text: int) -> None:
        self._tokens = tokens
        self._shape = (batch, length)
        self._end_of_text = end_of_text
        self.scored = len(tokens) - 1
        self.batches = math.ceil(self.scored / (batch * length))

    def fill(self, index: int, out: np.ndarray) -> None:
        """Writes the inputs of a batch: int64 [batch, length]."""
        inputs = self._cut(index, 0)
        flat = out.reshape(-1)
        flat[: len(inputs)] = inputs
        flat[len(inputs) :] = self._end_of_text

    def targets(self, index: int) -> np.ndarray:
        """The targets of a batch in row order; in the last batch there may be fewer than batch * length."""
        return self._cut(index, 1)

    def _cut(self, index: int, shift: int) -> np.ndarray:
        size = self._shape[0] * self._shape[1]
        start = index * size
        return self._tokens[start + shift : min(start + size, self.scored) + shift]


def nats(logits: np.ndarray, targets: np.ndarray) -> float:
    """The summed cross-entropy of float32 logits [N, V] against targets [N]; not finite where a row is not."""
    total = 0.0
    for start in range(0, len(targets), CHUNK_TOKENS):
        chunk = logits[start : start + CHUNK_TOKENS]
        wanted = targets[start : start + CHUNK_TOKENS].astype(np.int64)
        # Copied first: the host can write to this memory, and must not show one pass another value than the next.
        shifted = chunk.copy()
        with np.errstate(invalid="ignore", over="ignore"):
            shifted -= shifted.max(axis=1, keepdims=True)
            correct = shifted[np.arange(len(wanted)), wanted]
            np.exp(shifted, out=shifted)
            total += float((np.log(shifted.sum(axis=1)) - correct).sum(dtype=np.float64))
    return total


def score(host: Answerer, slots: Slots, windows: Windows, on_batch: Callable[[int], None] = lambda done: None) -> float:
    """Total nats over all windows. Raises RunFailed."""
    total = 0.0
    for index in range(windows.batches + 1):
        if index < windows.batches:
            windows.fill(index, slots.tokens[index % SLOTS])
            host.forward(index % SLOTS)
        if index == 0:
            continue
        done = index - 1
        host.wait(done % SLOTS)
        targets = windows.targets(done)
        logits = slots.logits[done % SLOTS]
        part = nats(logits.reshape(-1, logits.shape[2])[: len(targets)], targets)
        if not math.isfinite(part):
            raise RunFailed(Failure.NOT_FINITE, f"the model's logits are not finite (batch {done})")
        total += part
        on_batch(index)
    return total


def judge(job: Job, on_batch: Callable[[int, int], None]) -> Judgement:
    """Launches the model host on sealed weights and scores it on one split. Raises RunFailed and UserError."""
    began = time.monotonic()
    task = load_task(job.task)
    context = Context.from_json(job.context)
    caps = task.caps["cpu" if context.device == "cpu" else "cuda"]
    shards = task.of_split(job.split)
    tokens = np.concatenate([open_shard(Path(job.data_folder) / shard.file, shard) for shard in shards])
    sandbox = Sandbox(job.trust, Path(job.source), Path(job.scratch), job.threads, context.device != "cpu")
    host_caps = HostCaps(caps.host_load_cpu_seconds, caps.judging_seconds)
    host = ModelHost(sandbox, context, host_caps, Path(job.output), job.cpus)
    try:
        host.build()
        columns = host.load(job.weights, job.batch, job.length)
        vocabulary = task.tokenizer.vocab_size
        if not vocabulary <= columns <= MAX_COLUMN_FACTOR * vocabulary:
            raise RunFailed(
                Failure.WRONG_SHAPE,
                f"the logits have {columns:,} columns; the vocabulary has {vocabulary:,}, and at most "
                f"{MAX_COLUMN_FACTOR} times as many are allowed",
            )
        descriptor = os.memfd_create("slots", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(descriptor, SLOTS * slot_bytes(job.batch, job.length, columns))
        # A host that could shrink it would make reading it fatal.
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        slots = Slots(descriptor, SLOTS, job.batch, job.length, columns)
        host.share(descriptor, SLOTS, columns)
        windows = Windows(tokens, job.batch, job.length, task.tokenizer.end_of_text)
        scoring_began = time.monotonic()
        total = score(host, slots, windows, lambda done: on_batch(done, windows.batches))
        scoring_seconds = time.monotonic() - scoring_began
    finally:
        host.close()
    text_bytes = sum(shard.text_bytes for shard in shards)
    return Judgement(
        val_loss=total / windows.scored,
        bits_per_byte=total / math.log(2) / text_bytes,
        tokens=windows.scored,
        columns=columns,
        seconds=round(time.monotonic() - began, 3),
        scoring_seconds=round(scoring_seconds, 3),
        host_load_cpu_seconds=round(host.load_cpu_seconds, 3),
    )


def ask_judge(job: Job, cap_seconds: float, on_batch: Callable[[int, int], None]) -> dict[str, Any]:
    """Runs the judge as a process of its own and returns its judgement. Raises RunFailed."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "harness.core.judge"],  # -P: nothing is imported from the current folder
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        pass_fds=[job.weights], start_new_session=True,
    )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None
    # The judge holds the host to the caps itself; this is for a judge that cannot any more.
    overdue = threading.Timer(cap_seconds + OVERDUE_SECONDS, process.kill)
    overdue.start()
    try:
        process.stdin.write(json.dumps(asdict(job)).encode())
        process.stdin.close()
        for line in process.stdout:
            event = json.loads(line)
            if "judgement" in event:
                return event["judgement"]
            if "failure" in event:
                raise RunFailed(Failure(event["failure"]), event["message"])
            on_batch(event["batch"], event["batches"])
        raise RunFailed(Failure.JUDGE_CRASH, f"the judge ended with status {process.wait()}")
    except BrokenPipeError:
        raise RunFailed(Failure.JUDGE_CRASH, f"the judge ended with status {process.wait()}") from None
    finally:
        overdue.cancel()
        process.kill()
        process.wait()
        process.stdout.close()


def main() -> None:
    """Reads a job from standard input and prints events. Ends with the referee that launched it."""
    job = Job(**json.load(sys.stdin))
    die_with_parent(job.referee)

    def tell(**event: Any) -> None:
        print(json.dumps(event), flush=True)

    try:
        tell(judgement=asdict(judge(job, lambda done, batches: tell(batch=done, batches=batches))))
    except RunFailed as failed:
        tell(failure=failed.reason, message=failed.message)
    except UserError as error:
        tell(failure=Failure.JUDGE_CRASH, message=str(error))


if __name__ == "__main__":
    main()
