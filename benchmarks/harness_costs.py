"""What the harness costs, each figure next to its limit. Run it when nothing else runs on the machine.

    python benchmarks/harness_costs.py > benchmarks/results/harness_costs.md

Steps under the harness and bare are interleaved (A B B A), in fresh processes pinned to the same core, and
compared pair by pair.
"""

from __future__ import annotations

import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import torch

from harness.core import referee
from harness.core.child import split_cpus
from harness.core.data.serve import ShardFile, StreamServer
from harness.core.data.shards import open_shard
from harness.core.data.stream import EndOfData, FreeStream, SequentialStream, Stream
from harness.core.model_host import import_submission
from harness.core.plan import Event, Plan
from harness.core.protocol import Context, TaskFacts
from harness.core.referee import Referee
from harness.core.run import Settings
from harness.core.sandbox import ALLOCATOR, probe
from harness.core.scoring import Windows
from harness.core.task import hardware_class
from harness.machine import fingerprint
from harness.paths import BASELINES, DATA
from harness.submission import load_submission

BASELINE = BASELINES / "adamw" / "gcide"
PAIRS, STEPS, WHOLE_RUNS = 16, 80, 3
SPEEDRUN = str(Path(sys.executable).with_name("speedrun"))
SUBMISSION = load_submission(BASELINE)
SHARDS = [SUBMISSION.task.data_folder(DATA) / shard.file for shard in SUBMISSION.task.of_split("train")]


@dataclass(frozen=True)
class Short:
    """A short run: its steps in seconds, and the share of a core that the referee used meanwhile."""

    steps: np.ndarray
    referee_share: float = 0.0

    @property
    def fastest(self) -> float:
        """The 5% quantile: whatever else happens on a shared machine only ever makes a step longer."""
        return float(np.quantile(self.steps, 0.05))


def short_run(folder: Path) -> Short:
    """A short run under the referee, which judges nothing here: that takes longer than the run."""
    (folder / "source").mkdir(parents=True)
    SUBMISSION.snapshot(folder / "source")
    task, shape = SUBMISSION.task, SUBMISSION.manifest.evaluation
    plan = Plan(
        task, hardware_class("cpu-1thread"), folder / "source", task.data_folder(DATA), folder, probe().level, 1,
        SUBMISSION.methods([]), SUBMISSION.hparams([f"steps={STEPS}"]), shape.batch, shape.length,
    )  # fmt: skip
    used: dict[str, float] = {}

    def follow(event: Event) -> None:
        if event.kind == "state":
            used[event.values["state"]] = time.process_time()

    one = Referee(plan, follow)
    outcome = one.run()
    assert outcome.state == "JUDGED" and outcome.seconds, outcome.message
    share = (used["FINISHED"] - used["RUNNING"]) / outcome.seconds
    return Short(np.diff([row["seconds"] for row in one.log.rows]), share)


def whole_run(folder: Path) -> dict[str, float]:
    """One run by the command line: start-up, judging, peak memory in MB."""
    began = time.time()
    command = [SPEEDRUN, "run", str(BASELINE), "--set=steps=5", "--seed=1", "--json", f"--runs-dir={folder}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    peaks = watch_peaks(process)
    assert process.stdout is not None
    bundle = Path(json.loads(process.stdout.read())["bundle"])
    process.wait()
    record = json.loads((bundle / "run.json").read_text())
    until_launch = (bundle / "source").stat().st_ctime - began  # the snapshot is the last thing before the launch
    waited = record["times"]["RUNNING"] - record["times"]["READY"]
    return {"startup": until_launch + waited, "scoring": record["judgement"]["scoring_seconds"], **peaks}


def watch_peaks(process: subprocess.Popen) -> dict[str, float]:
    """Fills in, while the run goes on, the peak resident memory of referee and judge in MB."""
    peaks = {"referee": 0.0, "judge": 0.0}

    def watch() -> None:
        while process.poll() is None:
            for pid, name in [(process.pid, "referee"), *((child, "judge") for child in judges(process.pid))]:
                peaks[name] = max(peaks[name], peak_megabytes(pid))
            time.sleep(0.05)

    threading.Thread(target=watch, daemon=True).start()
    return peaks


def judges(pid: int) -> Iterator[int]:
    for child in psutil.Process(pid).children():
        try:
            if "harness.core.judge" in child.cmdline():
                yield child.pid
        except psutil.Error:
            continue


def peak_megabytes(pid: int) -> float:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0.0)


def bare_run() -> Short:
    """The steps of the same script without the harness, data in memory."""
    cpus, _ = split_cpus(1)
    bare = [sys.executable, "-m", "harness.rehearsal.bare", str(BASELINE), f"--set=steps={STEPS}"]
    command = ["taskset", "-c", str(cpus[0]), *bare]
    environment = {**os.environ, **ALLOCATOR, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    printed = subprocess.run(command, env=environment, capture_output=True, check=True).stdout
    return Short(np.array(json.loads(printed)["step_seconds"]))


def stream_rate(stream: Stream, count: int) -> float:
    """Tokens per second of `take(count)` over the whole stream."""
    began = time.perf_counter()
    try:
        while True:
            stream.take(count)
    except EndOfData:
        return stream.position / (time.perf_counter() - began)


def free_rate(batch: int, length: int) -> float:
    """Tokens per second of `next` in free order, tensors included."""
    stream = FreeStream([open_shard(path, None) for path in SHARDS], 0, 1, "cpu")
    began = time.perf_counter()
    try:
        while True:
            stream.next(batch, length)
    except EndOfData:
        return stream.position / (time.perf_counter() - began)


def sequential_rate(count: int) -> float:
    """Tokens per second served by the referee to one rank."""
    files = [ShardFile(os.open(path, os.O_RDONLY), len(open_shard(path, None))) for path in SHARDS]
    server = StreamServer(files, [0], 1, print)
    server.start()
    end: socket.socket = server.child_ends[0]
    return stream_rate(SequentialStream(end, 0, 1, "cpu"), count)


def forward_seconds() -> float:
    """The model's own forward pass over the validation tokens, in the judge's batches, on one thread."""
    task, manifest = SUBMISSION.task, SUBMISSION.manifest
    torch.set_num_threads(1)
    facts = TaskFacts("gcide", task.tokenizer.vocab_size, task.tokenizer.end_of_text, "free", 1.0, 1024, (1, 2))
    context = Context(facts, 1, 1, "cpu", SUBMISSION.methods([]), SUBMISSION.hparams([]))
    model = import_submission(BASELINE).build_model(Settings(context)).eval()
    (shard,) = task.of_split("validation")
    tokens = np.array(open_shard(task.data_folder(DATA) / shard.file, shard))
    batch, length = manifest.evaluation.batch, manifest.evaluation.length
    windows = Windows(tokens, batch, length, task.tokenizer.end_of_text)
    inputs = np.empty((batch, length), np.int64)
    cpus, _ = split_cpus(1)
    os.sched_setaffinity(0, cpus)
    began = time.perf_counter()
    with torch.inference_mode():
        for index in range(windows.batches):
            windows.fill(index, inputs)
            model(torch.from_numpy(inputs))
    seconds = time.perf_counter() - began
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    return seconds


def help_seconds() -> list[float]:
    """`speedrun --help`, ten times."""
    times = []
    for _ in range(10):
        began = time.perf_counter()
        subprocess.run([SPEEDRUN, "--help"], stdout=subprocess.DEVNULL, check=True)
        times.append(time.perf_counter() - began)
    return times


def spread(values: list[float], form: str) -> str:
    """Median, with the smallest and largest behind it."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:{form}} ({low:{form}} to {high:{form}})"


def main() -> None:
    """Measures and prints the table."""
    referee.ask_judge = lambda *_: {}
    pairs: list[tuple[Short, Short]] = []
    whole: list[tuple[dict[str, float], float]] = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(PAIRS):
            place = Path(folder) / str(number)
            if number % 2:
                bare, harness = bare_run(), short_run(place)
            else:
                harness, bare = short_run(place), bare_run()
            pairs.append((harness, bare))
            print(f"pair {number + 1} of {PAIRS}: {harness.fastest / bare.fastest:.4f}", file=sys.stderr)
        for number in range(WHOLE_RUNS):
            whole.append((whole_run(Path(folder) / "runs"), forward_seconds()))
            print(f"whole run {number + 1} of {WHOLE_RUNS}", file=sys.stderr)
    consumed = float(SUBMISSION.hparams([])["batch"]) * 128 / statistics.median(bare.fastest for _, bare in pairs)
    free, sequential, large = free_rate(8, 128), sequential_rate(1024), sequential_rate(1 << 20)
    runs = [run for run, _ in whole]
    pooled = [float(np.quantile(np.concatenate([pair[arm].steps for pair in pairs]), 0.05)) for arm in (0, 1)]
    shares = [harness.referee_share for harness, _ in pairs]
    rows = [
        ("step under the harness / bare, all runs together", f"{pooled[0] / pooled[1]:.4f}", "1.005"),
        ("the same pair by pair", spread([harness.fastest / bare.fastest for harness, bare in pairs], ".4f"), ""),
        ("the referee's own CPU in the timed part, share of a core", spread(shares, ".4f"), ""),
        ("start-up beyond the script's own, s", spread([run["startup"] for run in runs], ".2f"), "0.5"),
        ("judging / forward pass", spread([run["scoring"] / forward for run, forward in whole], ".3f"), "1.25"),
        ("run.stream, free: times what the baseline consumes", f"{free / consumed:,.0f}", "at least 100"),
        ("run.stream, sequential, 1,024 tokens a call, MB/s", f"{2 * sequential / 1e6:.0f}", ""),
        ("run.stream, sequential, 1,048,576 tokens a call, MB/s", f"{2 * large / 1e6:.0f}", "at least 100"),
        ("speedrun --help, s", spread(help_seconds(), ".2f"), "0.4"),
        ("peak memory of the referee, MB", spread([run["referee"] for run in runs], ".0f"), "300"),
        ("peak memory of the judge, MB", spread([run["judge"] for run in runs], ".0f"), "300"),
    ]
    machine = fingerprint()
    print(f"{machine.cpu}, {machine.logical_cores} cores, torch {machine.packages['torch']}, {platform.release()}.")
    print(f"{PAIRS} interleaved pairs of {STEPS} steps (5% quantile of the steps), {WHOLE_RUNS} whole runs;")
    print("median (smallest to largest).\n")
    print("| what | measured | limit |\n|---|---|---|")
    for row in rows:
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
