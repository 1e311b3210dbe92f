"""Runs a submission's train.py without the harness: data in memory, no referee, no sandbox, no seal.

    python benchmarks/bare_run.py baselines/adamw/gcide --set steps=100

Prints one JSON object: seconds from start to finish, steps, tokens. The comparison for what the harness costs.
"""

from __future__ import annotations

import argparse
import json
import runpy
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from harness.core.data.shards import open_shard
from harness.core.data.stream import FreeStream
from harness.core.protocol import Context, TaskFacts
from harness.core.run import Settings
from harness.paths import DATA
from harness.submission import load_submission


class BareRun(Settings):
    """The calls of a run, with nothing behind them."""

    def __init__(self, context: Context, shards: list[np.ndarray]) -> None:
        super().__init__(context)
        self.stream = FreeStream(shards, 0, 1, self.device)
        self.steps: list[float] = []
        self.last_row: dict[str, Any] = {}
        self.seconds = 0.0

    def synthetic(self, batch: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        tokens = torch.randint(0, self.task.vocab_size, (batch * length + 1,))
        return tokens[:-1].view(batch, length), tokens[1:].view(batch, length)

    def start(self, model: torch.nn.Module) -> None:
        self._began = time.perf_counter()
        self.steps.append(self._began)

    def log(self, **values: float) -> None:
        self.steps.append(time.perf_counter())
        self.last_row = values

    def finish(self, model: torch.nn.Module) -> None:
        self.seconds = time.perf_counter() - self._began


def main() -> None:
    """Runs the script in this process, on as many threads as OMP_NUM_THREADS says (1 by default)."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("submission", type=Path)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    submission = load_submission(arguments.submission)
    task = submission.task
    folder = task.data_folder(DATA)
    shards = [np.array(open_shard(folder / shard.file, shard)) for shard in task.of_split("train")]
    tokenizer = task.tokenizer
    facts = TaskFacts(
        task.name, tokenizer.vocab_size, tokenizer.end_of_text, task.order, task.target.val_loss,
        task.evaluation.max_length, tuple(task.synthetic.document_tokens),
    )  # fmt: skip
    context = Context(facts, arguments.seed, 1, "cpu", submission.methods([]), submission.hparams(arguments.set))
    run = BareRun(context, shards)
    stand_in = ModuleType("harness")
    stand_in.connect = lambda: run  # type: ignore[attr-defined]
    sys.modules["harness"] = stand_in
    runpy.run_path(str(submission.folder / "train.py"), run_name="__main__")
    steps = np.diff(run.steps)
    print(
        json.dumps(
            {
                "seconds": run.seconds,
                "step_seconds": steps.tolist(),
                "median_step_seconds": float(np.median(steps)),
                "tokens": run.stream.position,
                "tokens_per_second": run.stream.position / run.seconds,
                "last": run.last_row,
            }
        )
    )


if __name__ == "__main__":
    main()
