"""The judge: the process that computes the validation loss. It never imports a submission; on a CPU it needs no torch.

    python -m harness.core.judge < job.json

The model host answers logits through shared memory; the judge takes the log-softmax in float32 over every
column the model has and gathers the targets itself (scoring.py). A second host answers altered batches (audits.py).
It prints one JSON line per event: progress, and at the end either a judgement or a failure.
"""

from __future__ import annotations

import json
import math
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from harness.core.audits import HOST_ARITHMETIC, Arithmetic, AuditReport, ShadowAudit
from harness.core.data.shards import scored_tokens
from harness.core.failures import Failure, RunFailed
from harness.core.guard import die_with_parent
from harness.core.host import HELLO_SECONDS, HostCaps, ModelHost
from harness.core.limits import limits_for
from harness.core.printed import Printed, ended_how
from harness.core.protocol import Context
from harness.core.sandbox import Sandbox
from harness.core.scoring import SLOTS, Windows, nats, score
from harness.core.slots import Slots, sealed_memory, slot_bytes
from harness.core.task import Task, load_task
from harness.core.visible import GPU_ORDER
from harness.core.weights import private_copy
from harness.errors import UserError
from harness.paths import PACKAGE

OVERDUE_SECONDS = 2 * HELLO_SECONDS
EXIT_SECONDS = 0.5  # between the end of the judge's output and its exit
END_SECONDS = 25.0  # what it may take to end two hosts; see KILL_SECONDS of child.py
OUTPUT_BYTES = 1 << 18  # of judge.txt
COMMAND = [sys.executable, "-P", "-m", "harness.core.judge"]  # -P: nothing is imported from the current folder
JUDGING_HOSTS = ("host", "shadow")  # each has a scratch folder and an output file of that name
MAX_COLUMN_FACTOR = 2  # extra vocabulary columns are allowed, up to twice the vocabulary


@dataclass(frozen=True)
class Job:
    """What the judge is asked to do, as it crosses from the referee in JSON."""

    task: str
    data_folder: str
    split: str
    source: str
    scratch: str  # a folder with one for each of JUDGING_HOSTS
    output: str  # the folder in which each host's output goes to a file
    trust: str
    context: dict[str, Any]
    weights: int
    batch: int
    length: int
    threads: int
    cpus: list[int]
    referee: int  # process id; the judge ends with it
    rung: str = ""  # see Sandbox


@dataclass(frozen=True)
class Judgement:
    """The loss in nats per token over every scored token, and bits per byte of the text they stand for."""

    val_loss: float
    bits_per_byte: float | None  # None where the bytes of the text are not counted
    tokens: int
    columns: int
    seconds: float  # with the start of the model host
    scoring_seconds: float  # from the first batch asked for to the last one scored
    audit_seconds: float  # what the audit took beyond that; the rest of it ran beside the scoring
    host_cpu_seconds: float  # of the host that was scored, in all
    host_load_cpu_seconds: float
    host_extra_cpu_seconds: float  # of the dearest batch beyond the median one
    detour: str | None  # why the logits of a model on a GPU went through host memory
    audit: AuditReport


def judge(job: Job, on_batch: Callable[[int, int], None]) -> Judgement:
    """Scores sealed weights on one split, and audits the model meanwhile. Raises RunFailed and UserError."""
    began = time.monotonic()
    task = load_task(job.task)
    shards = task.of_split(job.split)
    tokens = scored_tokens(task, Path(job.data_folder), job.split)
    windows = Windows(tokens, job.batch, job.length, task.tokenizer.end_of_text)
    with ExitStack() as stack:
        host = stack.enter_context(closing(_launch(job, task, JUDGING_HOSTS[0], job.cpus)))
        # On the judge's own cores: it works while the scoring goes on.
        shadow = stack.enter_context(closing(_launch(job, task, JUDGING_HOSTS[1], sorted(os.sched_getaffinity(0)))))
        slots, columns, detour = _load(host, job, task, SLOTS)
        shadow_slots = _load(shadow, job, task, 1)[0]
        tolerance = task.audit.tolerance["cpu" if job.context["device"] == "cpu" else "cuda"]
        summed, arithmetic = _sums_on(job.context["device"])
        seed = secrets.randbelow(2**31)
        audit = ShadowAudit(task.audit, tolerance, shadow, shadow_slots, windows, seed, arithmetic)
        scoring_began = time.monotonic()
        total = score(host, slots, windows, audit.order, audit, lambda done: on_batch(done, windows.batches), summed)
        scored = time.monotonic()
        report = audit.conclude()
    text_bytes = sum(shard.text_bytes or 0 for shard in shards)
    return Judgement(
        val_loss=total / windows.scored,
        bits_per_byte=total / math.log(2) / text_bytes if text_bytes else None,
        tokens=windows.scored,
        columns=columns,
        seconds=round(time.monotonic() - began, 3),
        scoring_seconds=round(scored - scoring_began, 3),
        audit_seconds=round(time.monotonic() - scored, 3),
        host_cpu_seconds=round(host.cpu_seconds, 3),
        host_load_cpu_seconds=round(host.load_cpu_seconds, 3),
        host_extra_cpu_seconds=round(host.extra_cpu_seconds, 3),
        detour=detour,
        audit=report,
    )


def _sums_on(device: str) -> tuple[Callable[[Any, np.ndarray], float], Arithmetic]:
    """What sums the nats of a batch and compares logits where the run's device is. A GPU's needs torch and Triton."""
    if device == "cpu":
        return nats, HOST_ARITHMETIC
    from harness.core import gpu_nats

    return gpu_nats.nats, gpu_nats.GpuArithmetic()


def _launch(job: Job, task: Task, purpose: str, cpus: list[int]) -> ModelHost:
    context = Context.from_json(job.context)
    caps = task.caps["cpu" if context.device == "cpu" else "cuda"]
    scratch = Path(job.scratch) / purpose
    gpus = int(context.device != "cpu")
    limits = limits_for("host", caps, gpus > 0)
    sandbox = Sandbox(job.trust, Path(job.source), scratch, job.threads, gpus, "host", limits, rung=job.rung)
    host_caps = HostCaps(caps.host_load_cpu_seconds, caps.judging_seconds, caps.judging_cpu_seconds)
    return ModelHost(sandbox, context, host_caps, Path(job.output) / f"{purpose}.txt", cpus, build_frozen=True)


def _load(host: ModelHost, job: Job, task: Task, count: int) -> tuple[Slots, int, str | None]:
    """Builds and loads the model, and shares as many slots with its host: slots, columns, why they take a detour."""
    host.build()
    weights = private_copy(job.weights)
    try:
        columns, dtype = host.load(weights, job.batch, job.length)
    finally:
        os.close(weights)
    vocabulary = task.tokenizer.vocab_size
    if not vocabulary <= columns <= MAX_COLUMN_FACTOR * vocabulary:
        raise RunFailed(
            Failure.WRONG_SHAPE,
            f"the logits have {columns:,} columns; the vocabulary has {vocabulary:,}, and at most "
            f"{MAX_COLUMN_FACTOR} times as many are allowed",
        )
    shape = (count, job.batch, job.length, columns)
    slots, detour = _make_slots(job.context["device"], shape, dtype)
    if refused := host.share(slots, columns):
        if detour or job.context["device"] == "cpu":
            raise RunFailed(Failure.HOST_CRASH, f"the model host cannot open the memory of its answers: {refused}")
        from harness.core import gpu_slots

        slots, detour = gpu_slots.host_memory(*shape), refused
        host.share(slots, columns)
    return slots, columns, detour


def _make_slots(device: str, shape: tuple[int, int, int, int], dtype: str) -> tuple[Slots, str | None]:
    """Slots of (count, batch, length, columns) where the run's device is."""
    if device == "cpu":
        count, *slot = shape
        return Slots(sealed_memory(count * slot_bytes(*slot)), *shape), None
    from harness.core import gpu_slots

    return gpu_slots.make_slots(*shape, dtype)


def ask_judge(job: Job, cap_seconds: float, on_batch: Callable[[int, int], None]) -> dict[str, Any]:
    """Runs the judge as a process of its own and returns its judgement. Raises RunFailed.

    What it prints besides, the traceback of a crash say, is kept in `judge.txt` beside the output of its hosts.
    """
    process = subprocess.Popen(
        COMMAND, env={**os.environ, **GPU_ORDER, "PYTHONPATH": str(PACKAGE.parent)}, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=[job.weights], start_new_session=True,
    )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    # The judge holds the host to the caps itself; this is for a judge that cannot any more.
    overdue = threading.Timer(cap_seconds + OVERDUE_SECONDS, process.kill)
    overdue.start()
    printed = Printed(Path(job.output) / "judge.txt", OUTPUT_BYTES)
    keeper = threading.Thread(target=_keep, args=(process.stderr, printed))
    keeper.start()
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
    except BrokenPipeError:
        pass  # it ended before it had read its job
    finally:
        overdue.cancel()
        status = _end(process)
        keeper.join()
        printed.close()
        process.stdout.close()
    raise RunFailed(Failure.JUDGE_CRASH, f"the judge {ended_how(status)}; its last line: {printed.tail(lines=1)}")


def _keep(pipe: IO[bytes], printed: Printed) -> None:
    """Takes what the judge prints until nobody can print any more."""
    with pipe:
        while data := os.read(pipe.fileno(), 1 << 16):
            printed.add(data)


def _end(process: subprocess.Popen[bytes]) -> int:
    """The exit status of a judge that has said its last word, or is to end its hosts now and then itself."""
    for seconds, then in ((EXIT_SECONDS, process.terminate), (END_SECONDS, process.kill)):
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            then()
    return process.wait()


def main() -> None:
    """Reads a job from standard input and prints events. Ends with the referee that launched it."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("the referee ended the judging"))
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
