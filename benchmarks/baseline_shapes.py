"""Which shape should the gcide baseline have? Speed first, interleaved; then judged loss at equal time.

    python benchmarks/baseline_shapes.py --seconds 75 > benchmarks/results/baseline_shapes.md

Speed: a bare run for every shape in turn, several rounds, the median step. Loss: harness runs of every shape
and seed, each with the steps that fit into the same seconds. Losses do not depend on how busy the machine is;
seconds do, so nothing else should run during the first part.
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
from typing import NamedTuple

from harness.campaign import Request, run_once
from harness.core.sandbox import ALLOCATOR
from harness.core.task import hardware_class
from harness.machine import fingerprint
from harness.paths import BASELINES, DATA, RUNS
from harness.submission import load_submission

BASELINE = BASELINES / "adamw" / "gcide"
ROUNDS, STEPS = 3, 40
SEEDS = (1, 2)
TOKENS_PER_STEP = 8 * 128


class Shape(NamedTuple):
    """What makes the model's size and speed, by the baseline's own names."""

    width: int
    layers: int
    head_size: int
    mlp_ratio: int

    @property
    def settings(self) -> list[str]:
        return [f"{name}={value}" for name, value in self._asdict().items()]

    @property
    def parameters(self) -> int:
        """Of the blocks' matrices: embedding, head and gains left out."""
        return (4 + 2 * self.mlp_ratio) * self.width**2 * self.layers


SHAPES = [
    Shape(96, 2, 48, 3), Shape(96, 2, 32, 3), Shape(96, 2, 96, 3), Shape(96, 2, 48, 4), Shape(96, 2, 48, 2),
    Shape(64, 3, 32, 4), Shape(96, 3, 48, 2), Shape(128, 2, 64, 2), Shape(128, 1, 64, 4),
]  # fmt: skip


def step_seconds(shape: Shape) -> float:
    """The median step of a short bare run on one pinned core."""
    command = [sys.executable, "-m", "harness.rehearsal.bare", str(BASELINE)]
    settings = [f"--set={setting}" for setting in [*shape.settings, f"steps={STEPS}"]]
    pinned, environment = ["taskset", "-c", "1"], {**os.environ, **ALLOCATOR}
    printed = subprocess.run([*pinned, *command, *settings], env=environment, capture_output=True, check=True).stdout
    return json.loads(printed)["median_step_seconds"]


def judged_loss(settings: list[str], seed: int) -> float | None:
    """Validation loss of one run through the harness."""
    request = Request(
        load_submission(BASELINE), hardware_class("cpu-1thread"), DATA, RUNS, seed=seed, settings=settings
    )
    return run_once(request).record.val_loss


def losses_at_equal_time(steps: dict[Shape, int]) -> dict[tuple[Shape, int], float | None]:
    """The loss of every shape and seed, two runs at a time where there are two cores."""
    jobs = [(shape, seed) for seed in SEEDS for shape in SHAPES]
    turns = queue.SimpleQueue[int]()
    cpus = sorted(os.sched_getaffinity(0))[-2:]
    for cpu in cpus:
        turns.put(cpu)

    def run(job: tuple[Shape, int]) -> float | None:
        (shape, seed), cpu = job, turns.get()
        settings = [*shape.settings, f"steps={steps[shape]}"]
        command = ["taskset", "-c", str(cpu), sys.executable, __file__, f"--seed={seed}", "--one", *settings]
        try:
            return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        finally:
            turns.put(cpu)

    with ThreadPoolExecutor(len(cpus)) as pool:
        return dict(zip(jobs, pool.map(run, jobs), strict=True))


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=75)
    parser.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(judged_loss(arguments.one, arguments.seed)))
        return
    rounds = [{shape: step_seconds(shape) for shape in SHAPES} for _ in range(ROUNDS)]
    step = {shape: statistics.median(measured[shape] for measured in rounds) for shape in SHAPES}
    steps = {shape: int(arguments.seconds / step[shape]) for shape in SHAPES}
    loss = losses_at_equal_time(steps)
    machine = fingerprint()
    print(f"""# Which shape should the gcide baseline have?

`python benchmarks/baseline_shapes.py --seconds {arguments.seconds:g}` on
{machine.cpu}, torch {machine.packages["torch"]}.
Equal time: {arguments.seconds:g} s of training on one thread; speeds from {ROUNDS} interleaved rounds of {STEPS} steps.
Batch 8 x 128; everything else as the baseline declared it when this was run, which was before its tuning.
""")
    columns = ["width x layers", "head size", "MLP ratio", "parameters of the blocks", "tokens/s", "steps"]
    columns += ["tokens a parameter", *(f"loss, seed {seed}" for seed in SEEDS)]
    print("| " + " | ".join(columns) + " |")
    print("|---|" + "--:|" * (len(columns) - 1), flush=True)
    for shape in SHAPES:
        losses = [loss[shape, seed] for seed in SEEDS]
        cells = " | ".join("failed" if value is None else f"{value:.4f}" for value in losses)
        tokens = steps[shape] * TOKENS_PER_STEP
        print(
            f"| {shape.width} x {shape.layers} | {shape.head_size} | {shape.mlp_ratio} | {shape.parameters:,} "
            f"| {TOKENS_PER_STEP / step[shape]:,.0f} | {steps[shape]} | {tokens / shape.parameters:.1f} | {cells} |"
        )


if __name__ == "__main__":
    main()
