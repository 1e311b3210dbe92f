"""Runs a submission's train.py without the harness: data in memory, no referee, no sandbox, no seal.

    python -m harness.rehearsal.bare baselines/adamw/gcide --set steps=100

Prints one JSON object, see `Bare`. The comparison for what the harness costs; only for code that you trust.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import runpy
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import psutil
import torch

import harness.errors
from harness.core.data.shards import open_shard
from harness.core.data.stream import FreeStream
from harness.core.protocol import Context, TaskFacts
from harness.core.run import Settings
from harness.core.task import Task, load_task
from harness.paths import DATA
from harness.submission import load_submission


@dataclass(frozen=True)
class Bare:
    """A bare run: seconds from start to finish, and at its last log row; steps are the times between log rows.

    `flops_per_token` counts the operations of training by PaLM's convention, see `flops_per_token`.
    `peak_memory_bytes` is that of the device: of the whole process on a CPU.
    """

    seconds: float
    tokens: int
    logged_seconds: float
    step_seconds: list[float]
    median_step_seconds: float | None
    flops_per_token: float
    peak_memory_bytes: int
    last_row: dict[str, Any]


class BareRun(Settings):
    """The calls of a run, with nothing behind them."""

    def __init__(self, context: Context, shards: list[np.ndarray]) -> None:
        super().__init__(context)
        self.stream = FreeStream(shards, 0, 1, self.device)
        self.rows: list[float] = []
        self.last_row: dict[str, Any] = {}
        self.seconds = 0.0
        self.flops_per_token = 0.0
        self._began = 0.0

    def synthetic(self, batch: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        tokens = torch.randint(0, self.task.vocab_size, (batch * length + 1,), device=self.device)
        return tokens[:-1].view(batch, length), tokens[1:].view(batch, length)

    def start(self, model: torch.nn.Module) -> None:
        fixed = self.task.model
        sizes = {"layers": fixed.layers, "width": fixed.width} if fixed else {}
        self.flops_per_token = flops_per_token(model, self.task.vocab_size, {**self._context.hparams, **sizes})
        self._synchronize()
        self._began = time.perf_counter()

    def log(self, **values: float) -> None:
        self.rows.append(time.perf_counter() - self._began)
        self.last_row = {name: float(value) for name, value in values.items()}

    def finish(self, model: torch.nn.Module) -> None:
        self._synchronize()
        self.seconds = time.perf_counter() - self._began

    def measured(self) -> Bare:
        steps = np.diff([0.0, *self.rows])
        on_gpu = self.device != "cpu"
        return Bare(
            seconds=self.seconds,
            tokens=self.stream.position,
            logged_seconds=self.rows[-1] if self.rows else self.seconds,
            step_seconds=steps.tolist(),
            median_step_seconds=float(np.median(steps)) if len(steps) else None,
            flops_per_token=self.flops_per_token,
            peak_memory_bytes=torch.cuda.max_memory_allocated() if on_gpu else psutil.Process().memory_info().rss,
            last_row=self.last_row,
        )

    def _synchronize(self) -> None:
        if self.device != "cpu":
            torch.cuda.synchronize()


def flops_per_token(model: torch.nn.Module, vocab_size: int, hparams: Mapping[str, Any]) -> float:
    """Chowdhery et al. 2022 (PaLM), appendix B: 6 a weight that is multiplied, and 12 x layers x width x length.

    The second is for attention and left out where these are not hyperparameters; causal masking is not deducted. A
    table of embeddings is looked up, not multiplied; where nothing else has a row a token, it is the head too.
    """
    tables = [module.weight for module in model.modules() if isinstance(module, torch.nn.Embedding)]
    looked_up = {id(table) for table in tables}
    weights: list[torch.Tensor] = [p for p in model.parameters() if p.dim() >= 2 and id(p) not in looked_up]
    if tables and all(weight.shape[0] < vocab_size for weight in weights):
        weights.append(max(tables, key=torch.numel))
    multiplied = sum(weight.numel() for weight in weights)
    sizes = [size for name in ("layers", "width", "length") if isinstance(size := hparams.get(name), int)]
    attention = 12 * math.prod(sizes) if len(sizes) == 3 else 0
    return 6.0 * multiplied + attention


def run_bare(
    folder: Path, task: Task | None, data_dir: Path, settings: list[str], dropped: list[str], seed: int, device: str
) -> Bare:
    """Runs the script in this process, on one thread or one GPU. Raises UserError."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    submission = load_submission(folder, task)
    task, tokenizer = submission.task, submission.task.tokenizer
    place = task.data_folder(data_dir)
    shards = [np.array(open_shard(place / shard.file, shard)) for shard in task.of_split("train")]
    facts = TaskFacts(
        task.name, tokenizer.vocab_size, tokenizer.end_of_text, task.order, task.target.val_loss,
        task.evaluation.max_length, tuple(task.synthetic.document_tokens), task.model,
    )  # fmt: skip
    context = Context(facts, seed, 1, device, submission.methods(dropped), submission.hparams(settings))
    run = BareRun(context, shards)
    stand_in = ModuleType("harness")
    stand_in.connect = lambda: run  # type: ignore[attr-defined]
    stand_in.errors = harness.errors  # type: ignore[attr-defined]
    sys.modules["harness"] = stand_in
    sys.path.insert(0, str(submission.folder))
    runpy.run_path(str(submission.folder / "train.py"), run_name="__main__")
    return run.measured()


def main() -> None:
    """Prints what was measured as the last line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("submission", type=Path)
    parser.add_argument("--task", type=Path)
    parser.add_argument("--data-dir", type=Path, default=DATA)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--drop", action="append", default=[])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    given = parser.parse_args()
    task = load_task(given.task) if given.task else None
    bare = run_bare(given.submission, task, given.data_dir, given.set, given.drop, given.seed, given.device)
    print(json.dumps(asdict(bare)))


if __name__ == "__main__":
    main()
