"""What does a step of each optimizer of the first attempts cost, beside forward and backward pass?

    python benchmarks/optimizer_steps.py > benchmarks/results/optimizer_steps.md

CPU time of one thread: cycles of steps of all arms in turn, on the gradients of one batch of random tokens. As some
do more at every tenth step, each place in the cycle has its own 5% quantile, and their mean is shown.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from harness.core.model_host import import_submission
from harness.core.protocol import Context, TaskFacts
from harness.core.run import Settings
from harness.machine import fingerprint
from harness.paths import BASELINES, SUBMISSIONS
from harness.submission import load_submission

CYCLE = 10  # steps: the refresh interval as it is declared
ARMS: dict[str, tuple[str, tuple[str, ...]]] = {
    "AdamW": ("baseline", ()),
    "AdEMAMix": ("gcide-ademamix", ()),
    "NAdamW": ("gcide-nadamw", ()),
    "SGD": ("gcide-sgd", ()),
    "Muon": ("gcide-muon", ()),
    "Muon, query, key and value as one": ("gcide-muon", ("qkv_parts=1",)),
    "Muon in float32": ("gcide-muon", ("muon_precision=float32",)),
    "Muon of three iterations": ("gcide-muon", ("muon_iterations=3",)),
    "SOAP": ("gcide-soap", ()),
    "SOAP, new bases at every step": ("gcide-soap", ("refresh=1",)),
    "Shampoo": ("gcide-shampoo", ()),
    "Shampoo, new roots at every step": ("gcide-shampoo", ("refresh=1",)),
}


@dataclass
class Timed:
    """One arm: the two halves of a training step, and the CPU seconds that each took so far, by cycle."""

    backward: Callable[[], None]
    update: Callable[[], None]
    backward_seconds: list[float]
    update_seconds: list[list[float]]  # [cycle][place in it]

    def cycle(self) -> None:
        """One forward and backward pass, and a cycle of steps on its gradients."""
        times = [time.thread_time()]
        for work in [self.backward, *[self.update] * CYCLE]:
            work()
            times.append(time.thread_time())
        backward, *updates = np.diff(times).tolist()
        self.backward_seconds.append(backward)
        self.update_seconds.append(updates)


def timed(folder: Path, settings: tuple[str, ...]) -> Timed:
    """An arm, built as in a run."""
    submission = load_submission(folder)
    tokenizer = submission.task.tokenizer
    facts = TaskFacts("gcide", tokenizer.vocab_size, tokenizer.end_of_text, "free", 3.0, 1024, (1, 2))
    run = Settings(Context(facts, 1, 1, "cpu", submission.methods([]), submission.hparams(list(settings))))
    train: Any = import_submission(folder)
    model = train.build_model(run)
    many = hasattr(train, "build_optimizers")
    optimizers = train.build_optimizers(model, run) if many else [train.build_optimizer(model, run)]
    for group in (group for optimizer in optimizers for group in optimizer.param_groups):
        group["lr"] = group["base_lr"] * 1e-3  # so that many steps on one gradient lead nowhere
    generator = torch.Generator().manual_seed(1)
    batch, length = run.hparam("batch"), run.hparam("length")
    tokens = torch.randint(0, facts.vocab_size, (batch, length + 1), generator=generator)
    for parameter in model.parameters():  # what begins at zero would leave others without a gradient
        torch.nn.init.normal_(parameter, std=0.1, generator=generator)

    def backward() -> None:
        model.zero_grad()
        F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten()).backward()

    def update() -> None:
        for optimizer in optimizers:
            optimizer.step()

    return Timed(backward, update, [], [])


def main() -> None:
    """Times and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cycles", type=int, default=40, help=f"of {CYCLE} steps, for every arm")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    places = {"baseline": BASELINES / "adamw" / "gcide"}
    arms = {name: timed(places.get(word, SUBMISSIONS / word), settings) for name, (word, settings) in ARMS.items()}
    for cycle in range(arguments.cycles + 1):
        for arm in arms.values():
            arm.cycle()
            if cycle == 0:  # warm-up
                arm.backward_seconds.clear()
                arm.update_seconds.clear()
    passes = float(np.quantile([seconds for arm in arms.values() for seconds in arm.backward_seconds], 0.05))
    machine = fingerprint()
    print("# What a step of an optimizer costs\n")
    print(f"`python benchmarks/optimizer_steps.py --cycles {arguments.cycles}` on {machine.cpu}, one thread, ", end="")
    print(f"torch {machine.packages['torch']}. Forward and backward pass: {1e3 * passes:.1f} ms.\n")
    print("| optimizer | ms a step | share of forward and backward |\n|---|--:|--:|")
    for name, arm in arms.items():
        seconds = float(np.quantile(arm.update_seconds, 0.05, axis=0).mean())
        print(f"| {name} | {1e3 * seconds:.2f} | {seconds / passes:.1%} |")


if __name__ == "__main__":
    main()
