"""Step times and model FLOP utilization of the FineWeb submissions on one GPU, without the harness, on random tokens.

    python benchmarks/gpu/step_times.py > benchmarks/results/gpu_step_times.md     # under ten minutes on one H100
    python benchmarks/gpu/step_times.py --submission submissions/fineweb-muon      # one of them
    python benchmarks/gpu/step_times.py --tiny                                     # anywhere, in seconds

Each submission is run in a process of its own: its own main(), with a stand-in for the run.
"""

from __future__ import annotations

import argparse
import json
import os
import runpy
import statistics
import subprocess
import sys
import time
import tomllib
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from timing import data_sheet, device, heading, share

import harness.errors
from harness.core.protocol import Context, TaskFacts
from harness.core.run import Settings
from harness.paths import BASELINES, ROOT, SUBMISSIONS
from harness.rehearsal.bare import flops_per_token
from harness.submission import Manifest

FOLDERS = [
    BASELINES / "adamw" / "fineweb-small",
    *(SUBMISSIONS / name for name in ("fineweb-adamw-llmc", "fineweb-muon", "fineweb-muon-kernels")),
]
FACTS = TaskFacts("fineweb-small", 50257, 50256, "sequential", 3.28, 1024, (1, 2))
TINY_FACTS = replace(FACTS, vocab_size=256, end_of_text=255)
STEPS = 15
TINY = {"steps": 3, "batch": 4, "micro_batch": 2, "length": 32, "width": 64, "layers": 2, "head_size": 16}


class Timed(Settings):
    """The calls of a run on one device; notes on the device when each micro-batch is asked for."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.marks: list[Any] = []
        self.stream = self
        self.model: torch.nn.Module | None = None
        self.micro_batch_rows = 0

    def synthetic(self, batch: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        tokens = torch.randint(0, self.task.vocab_size, (batch * length + 1,), device=self.device)
        return tokens[:-1].view(batch, length), tokens[1:].view(batch, length)

    def next(self, batch: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        self.micro_batch_rows = batch
        self._mark()
        return self.synthetic(batch, length)

    def start(self, model: torch.nn.Module) -> None:
        self.model = model

    def log(self, **values: float) -> None:
        pass

    def finish(self, model: torch.nn.Module) -> None:
        self._mark()
        if self.device != "cpu":
            torch.cuda.synchronize()

    def _mark(self) -> None:
        if self.device == "cpu":
            self.marks.append(time.perf_counter())
        else:
            self.marks.append(torch.cuda.Event(enable_timing=True))
            self.marks[-1].record()

    def step_milliseconds(self) -> list[float]:
        """The time of each step but the first, from its first micro-batch to that of the next step."""
        a_step = self.hparam("batch") // self.micro_batch_rows
        ends = self.marks[a_step::a_step]
        return [1e3 * (b - a) if isinstance(a, float) else a.elapsed_time(b) for a, b in pairwise(ends)]


def measure(folder: Path, tiny: bool) -> dict[str, Any]:
    """Runs the submission's main() here."""
    manifest = Manifest(**tomllib.loads((folder / "submission.toml").read_text()))
    hparams = {name: hparam.default for name, hparam in manifest.hparams.items()} | {"steps": STEPS}
    hparams |= {name: value for name, value in TINY.items() if tiny and name in hparams}
    methods = {name: method.default and not (tiny and name == "compile") for name, method in manifest.methods.items()}
    run = Timed(Context(TINY_FACTS if tiny else FACTS, 1, 1, device(), methods, hparams))
    stand_in = ModuleType("harness")
    stand_in.connect = lambda: run  # type: ignore[attr-defined]
    stand_in.errors = harness.errors  # type: ignore[attr-defined]
    sys.modules["harness"] = stand_in
    sys.path.insert(0, str(folder))
    runpy.run_path(str(folder / "train.py"), run_name="__main__")
    assert run.model is not None
    return {
        "milliseconds": run.step_milliseconds(),
        "tokens": int(hparams["batch"]) * int(hparams["length"]),
        "flops_per_token": flops_per_token(run.model, run.task.vocab_size, hparams),
        "memory_bytes": torch.cuda.max_memory_allocated() if device() == "cuda" else 0,
    }


def measured_apart(folder: Path, tiny: bool) -> dict[str, Any]:
    """The same in a process of its own, which prints it as its last line. Its errors go to ours."""
    command = [sys.executable, __file__, "--one", str(folder), *(["--tiny"] if tiny else [])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # on a CPU, threads that wait for each other
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Prints a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--submission", type=Path, action="append", help="only these folders")
    parser.add_argument("--tiny", action="store_true", help="tiny models, not compiled")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one, arguments.tiny)))
        return
    sheet = data_sheet()
    print(heading("Step times of the FineWeb submissions", arguments.tiny))
    print(
        "One device, random tokens, no harness. Median of the steps, and the range; utilization counts the operations"
    )
    print("of the model (PaLM's convention) against the dense bfloat16 peak of the data sheet.\n")
    print("| submission | ms a step | range | tokens a step | tokens a second | utilization | peak memory |")
    print("|---|---|---|---|---|---|---|")
    for folder in arguments.submission or FOLDERS:
        result = measured_apart(folder.resolve(), arguments.tiny)
        times = result["milliseconds"]
        middle = statistics.median(times)
        rate = result["tokens"] / (middle / 1e3)
        used = share(rate * result["flops_per_token"], sheet.bf16_flops if sheet else None)
        cells = [
            folder.resolve().relative_to(ROOT).as_posix(), f"{middle:.4g}", f"{min(times):.4g} to {max(times):.4g}",
            f"{result['tokens']:,}", f"{rate:,.0f}", used,
            f"{result['memory_bytes'] / 2**30:.1f} GiB",
        ]  # fmt: skip
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
