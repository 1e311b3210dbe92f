"""What does the allocator of the harness change: time of a step, and how much processes of one script differ?

    python benchmarks/allocator.py --rounds 12 > benchmarks/results/allocator.md    # with nothing else running

Bare runs of the baseline, each in a process of its own, in turn with glibc's own settings and with those that
`harness.core.sandbox` gives every run. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys

import torch

from harness.core.sandbox import ALLOCATOR
from harness.machine import fingerprint
from harness.paths import BASELINES

BASELINE = BASELINES / "adamw" / "gcide"
ARMS: dict[str, dict[str, str]] = {"glibc's own": {}, "the harness's": ALLOCATOR}


def seconds_of(settings: dict[str, str], steps: int) -> float:
    """Seconds of the timed part of a bare run on one core."""
    command = [sys.executable, "-m", "harness.rehearsal.bare", str(BASELINE), f"--set=steps={steps}"]
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    core = min(os.sched_getaffinity(0))
    done = subprocess.run(
        command, env={**bare, "OMP_NUM_THREADS": "1", **settings}, capture_output=True, check=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )  # fmt: skip
    return float(json.loads(done.stdout.splitlines()[-1])["seconds"])


def main() -> None:
    """Interleaved rounds, then the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--steps", type=int, default=200)
    given = parser.parse_args()
    seconds: dict[str, list[float]] = {arm: [] for arm in ARMS}
    for number in range(given.rounds):
        for arm in list(ARMS) if number % 2 == 0 else list(ARMS)[::-1]:
            seconds[arm].append(seconds_of(ARMS[arm], given.steps))
            print(f"{number + 1} of {given.rounds}: {arm} {seconds[arm][-1]:.2f} s", file=sys.stderr, flush=True)
    print(f"""# What the allocator changes

`python benchmarks/allocator.py --rounds {given.rounds}` on {fingerprint().cpu}, torch {torch.__version__}, one core,
nothing else running: {given.rounds} processes an arm in the order A B B A, {given.steps} steps of the baseline each.
The harness sets {", ".join(f"`{name}={value}`" for name, value in ALLOCATOR.items())}.

| allocator | ms a step, mean | smallest | largest | between processes, sd |
|---|--:|--:|--:|--:|""")
    for arm, times in seconds.items():
        per_step = [1000 * time / given.steps for time in times]
        spread = 100 * statistics.stdev(map(math.log, times))
        print(
            f"| {arm} | {statistics.fmean(per_step):.2f} | {min(per_step):.2f} | {max(per_step):.2f} | {spread:.1f}% |"
        )


if __name__ == "__main__":
    main()
