"""Which shape should the gcide baseline have? Speed first, interleaved; then judged loss at equal time.

    python benchmarks/baseline_shapes.py --seconds 75 > benchmarks/results/baseline_shapes.md

Speed: `bare_run.py` for every shape in turn, several rounds, the median step. Loss: one harness run for every
shape and matrix learning rate, each with the steps that fit into the same seconds. Losses do not depend on how
busy the machine is; seconds do, so nothing else should run during the first part.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from harness.campaign import Request, run_once
from harness.core.task import hardware_class
from harness.paths import BASELINES, DATA, RUNS
from harness.submission import load_submission

BASELINE = BASELINES / "adamw" / "gcide"
SHAPES = [(64, 3), (64, 4), (96, 2), (128, 1)]
MATRIX_LRS = [0.005, 0.01, 0.02]
ROUNDS, STEPS = 3, 20
TOKENS_PER_STEP = 16 * 128


def step_seconds(width: int, layers: int) -> float:
    """The median step of a short bare run on one pinned core."""
    command = [sys.executable, str(Path(__file__).with_name("bare_run.py")), str(BASELINE)]
    settings = [f"--set=width={width}", f"--set=layers={layers}", f"--set=steps={STEPS}"]
    printed = subprocess.run(["taskset", "-c", "1", *command, *settings], capture_output=True, check=True).stdout
    return json.loads(printed)["median_step_seconds"]


def judged_loss(width: int, layers: int, steps: int, matrix_lr: float) -> float | None:
    """Validation loss of one run through the harness, seed 1."""
    settings = [f"width={width}", f"layers={layers}", f"steps={steps}", f"matrix_lr={matrix_lr}"]
    submission = load_submission(BASELINE)
    request = Request(submission, hardware_class("cpu-1thread"), DATA, RUNS, seed=1, settings=settings)
    return run_once(request).record.val_loss


def losses_at_equal_time(steps: dict[tuple[int, int], int]) -> dict[tuple[int, int, float], float | None]:
    """The loss of every shape and learning rate, two runs at a time where there are two cores."""
    jobs = [(*shape, steps[shape], lr) for shape in SHAPES for lr in MATRIX_LRS]
    cpus = sorted(os.sched_getaffinity(0))[-2:]
    turns = queue.SimpleQueue[int]()
    for cpu in cpus:
        turns.put(cpu)

    def run(job: tuple[int, int, int, float]) -> float | None:
        cpu = turns.get()
        command = ["taskset", "-c", str(cpu), sys.executable, __file__, "--one", *map(str, job)]
        try:
            return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        finally:
            turns.put(cpu)

    with ThreadPoolExecutor(len(cpus)) as pool:
        found = list(pool.map(run, jobs))
    return {(width, layers, lr): loss for (width, layers, _, lr), loss in zip(jobs, found, strict=True)}


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=75)
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        width, layers, steps, lr = arguments.one
        print(json.dumps(judged_loss(int(width), int(layers), int(steps), float(lr))))
        return
    seconds = arguments.seconds
    rounds = [{shape: step_seconds(*shape) for shape in SHAPES} for _ in range(ROUNDS)]
    step = {shape: statistics.median(measured[shape] for measured in rounds) for shape in SHAPES}
    steps = {shape: int(seconds / step[shape]) for shape in SHAPES}
    loss = losses_at_equal_time(steps)
    learning_rates = " | ".join(f"loss at matrix lr {lr}" for lr in MATRIX_LRS)
    print(f"Equal time: {seconds:.0f} s of training; one seed; {ROUNDS} rounds of {STEPS} steps for the speed.\n")
    print(f"| width x layers | non-embedding parameters | tokens/s | steps | tokens per parameter | {learning_rates} |")
    print("|---" * (5 + len(MATRIX_LRS)) + "|", flush=True)
    for width, layers in SHAPES:
        parameters = 12 * width * width * layers
        losses = [loss[width, layers, lr] for lr in MATRIX_LRS]
        cells = " | ".join("failed" if value is None else f"{value:.4f}" for value in losses)
        rate = TOKENS_PER_STEP / step[width, layers]
        per_parameter = steps[width, layers] * TOKENS_PER_STEP / parameters
        print(
            f"| {width} x {layers} | {parameters:,} | {rate:,.0f} "
            f"| {steps[width, layers]} | {per_parameter:.1f} | {cells} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
