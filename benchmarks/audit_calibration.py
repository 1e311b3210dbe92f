"""Does the audit leave honest models alone and find dishonest ones, and what does it cost?

    python benchmarks/audit_calibration.py honest       # about 10 minutes on one core
    python benchmarks/audit_calibration.py dishonest
    python benchmarks/audit_calibration.py judged       # real runs, with judge, hosts and sandbox
    python benchmarks/audit_calibration.py report       # the tables; audit_cost.py measures what it costs

The first two train small models a little on the task's training tokens and audit them in this process, on one
thread. Every audit is appended to runs/audit_calibration.jsonl at once; what is there already is not done again.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import dishonest_models
import honest_models
import numpy as np
import torch
import torch.nn.functional as F
from dishonest_models import CONTROL, LEAKS
from honest_models import KINDS, LONG_SHAPES, ROUGH_KINDS, Decoder, Kind
from torch import nn

from harness.campaign import Request, run_once
from harness.core.audits import ShadowAudit
from harness.core.data.shards import open_shard
from harness.core.failures import RunFailed
from harness.core.model_host import import_submission
from harness.core.protocol import Context, TaskFacts
from harness.core.run import Settings
from harness.core.scoring import SLOTS, Windows, score
from harness.core.slots import Slots, slot_bytes
from harness.core.task import hardware_class
from harness.machine import fingerprint
from harness.paths import BASELINES, DATA, RUNS
from harness.submission import load_submission

BASELINE = BASELINES / "adamw" / "gcide"
CLASS = hardware_class("cpu-1thread")
SUBMISSION = load_submission(BASELINE)
TASK = SUBMISSION.task
LOG = RUNS / "audit_calibration.jsonl"
HONEST_SEEDS, LEAK_TRAININGS, LEAK_SEEDS, JUDGED_SEEDS = 2, 2, 20, 5
TRAINING_STEPS, TRAINING_BATCH, TRAINING_LENGTH = 40, 8, 128
# A fifth of the split at five times the share: as many rows are compared as in a real run, in a third of the time.
SCORED_TOKENS, SHARE = 65_536, 0.5
RULES = TASK.audit.model_copy(update={"share": SHARE})
TOLERANCE = TASK.audit.tolerance["cpu"]


@dataclass(frozen=True)
class Result:
    """One audit; `flagged` is the failure's message, `unstable_rows` counts rows that moved beyond the tolerance."""

    part: str
    name: str
    seed: int
    batch: int
    length: int
    tolerance: float
    seconds: float
    flagged: str | None = None
    val_loss: float | None = None
    rows: int = 0
    positions: int = 0
    largest_difference: float = 0.0
    nats_gained: float = 0.0
    unstable_rows: int = 0


class LocalHost:
    """A model that answers from slots, as a model host does."""

    def __init__(self, model: nn.Module, count: int, batch: int, length: int, columns: int) -> None:
        descriptor = os.memfd_create("slots")
        os.ftruncate(descriptor, count * slot_bytes(batch, length, columns))
        self.slots = Slots(descriptor, count, batch, length, columns)
        os.close(descriptor)
        self._model = model

    @torch.inference_mode()
    def forward(self, slot: int) -> None:
        tokens = torch.from_numpy(self.slots.tokens[slot].copy())
        torch.from_numpy(self.slots.logits[slot]).copy_(self._model(tokens))

    def wait(self, slot: int) -> None:
        pass


def split_tokens(split: str) -> np.ndarray:
    """The first shard of a split: uint16 [n]."""
    shard = TASK.of_split(split)[0]
    return np.array(open_shard(TASK.data_folder(DATA) / shard.file, shard))


def build_baseline() -> nn.Module:
    """The baseline's model, from the global random state's seed."""
    tokenizer = TASK.tokenizer
    facts = TaskFacts(TASK.name, tokenizer.vocab_size, tokenizer.end_of_text, TASK.order, 1.0, 1024, (1, 2))
    context = Context(facts, torch.initial_seed(), 1, "cpu", SUBMISSION.methods([]), SUBMISSION.hparams([]))
    return import_submission(BASELINE).build_model(Settings(context))


def train(build: Callable[[], nn.Module], seed: int, tokens: np.ndarray) -> nn.Module:
    """A model after a few steps of AdamW, so that logits are sharp and routes are taken."""
    torch.manual_seed(seed)
    model = build()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    size = TRAINING_BATCH * TRAINING_LENGTH
    for step in range(TRAINING_STEPS):
        start = (seed * TRAINING_STEPS + step) * size
        part = torch.from_numpy(tokens[start : start + size + 1].astype(np.int64))
        logits = model(part[:-1].view(TRAINING_BATCH, TRAINING_LENGTH))
        F.cross_entropy(logits.flatten(0, 1), part[1:]).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


def audited(
    part: str, name: str, models: list[nn.Module], shape: tuple[int, int], seed: int, tokens: np.ndarray
) -> Result:
    """Scores with one model and audits with the other."""
    began = time.monotonic()
    start = int(np.random.default_rng(seed).integers(len(tokens) - SCORED_TOKENS))
    windows = Windows(tokens[start : start + SCORED_TOKENS + 1], *shape, TASK.tokenizer.end_of_text)
    with torch.inference_mode():
        columns = models[0](torch.from_numpy(windows.inputs(0))).shape[2]
        models[1](torch.from_numpy(np.full(shape, TASK.tokenizer.end_of_text, np.int64)))
    host, shadow = (LocalHost(model, SLOTS, *shape, columns) for model in models)
    audit = ShadowAudit(RULES, TOLERANCE, shadow, shadow.slots, windows, seed)
    total = score(host, host.slots, windows, audit.order, audit)
    common = {
        "part": part, "name": name, "seed": seed, "batch": shape[0], "length": shape[1], "tolerance": TOLERANCE,
        "val_loss": total / windows.scored,
    }  # fmt: skip
    try:
        report = audit.conclude()
    except RunFailed as error:
        seen = {
            "rows": audit._rows, "positions": audit._positions, "largest_difference": float(audit._largest),
            "unstable_rows": audit._moved_rows,
        }  # fmt: skip
        return Result(**common, **seen, flagged=error.message, seconds=time.monotonic() - began)
    return Result(**common, **figures(asdict(report)), seconds=time.monotonic() - began)


def figures(report: dict[str, Any]) -> dict[str, Any]:
    """What the tables need of an audit's report."""
    return {key: report[key] for key in ("rows", "positions", "largest_difference", "nats_gained", "unstable_rows")}


def kept() -> list[Result]:
    """The results so far."""
    return [Result(**json.loads(line)) for line in LOG.read_text().splitlines()] if LOG.exists() else []


def keep(result: Result) -> None:
    """Appends a result and says it."""
    LOG.parent.mkdir(exist_ok=True)
    with LOG.open("a") as file:
        file.write(json.dumps(asdict(result)) + "\n")
    verdict = result.flagged or f"passed, {result.largest_difference:.2g}, unstable {result.unstable_rows}"
    loss = "" if result.val_loss is None else f"loss {result.val_loss:.2f}, "
    shape = f"[{result.batch}, {result.length}]"
    print(f"{result.name} {shape} seed {result.seed}: {result.seconds:.1f} s, {loss}{verdict}", flush=True)


def honest() -> None:
    """Audits every kind of honest model: seeds x shapes."""
    baselines = [
        Kind("baseline", build_baseline),
        Kind("baseline, long context", build_baseline, shapes=tuple(LONG_SHAPES)),
    ]
    audit_kinds("honest", [*baselines, *KINDS])
    audit_kinds("rough", ROUGH_KINDS)


def audit_kinds(part: str, kinds: list[Kind]) -> None:
    """Audits what is not kept already."""
    done = {(result.name, result.seed) for result in kept() if result.part == part}
    training, validation = split_tokens("train"), split_tokens("validation")
    for seed in range(HONEST_SEEDS):
        for kind in kinds:
            shapes = {seed * 100 + place: shape for place, shape in enumerate(kind.shapes)}
            due = [number for number in shapes if (kind.name, number) not in done]
            trained = train(kind.build, seed, training) if due else None
            for number in due:
                models = honest_models.two_hosts(kind, trained)
                keep(audited(part, kind.name, models, shapes[number], number, validation))


def dishonest() -> None:
    """Audits every kind of leak over as many seeds, on models of two trainings."""
    done = {(result.name, result.batch, result.seed) for result in kept() if result.part == "dishonest"}
    training, validation = split_tokens("train"), split_tokens("validation")
    for leak in LEAKS:
        trained = [train(leak.build, seed, training) for seed in range(LEAK_TRAININGS)]
        for shape in leak.shapes:
            for seed in range(LEAK_SEEDS):
                if (leak.name, shape[0], seed) not in done:
                    models = dishonest_models.two_hosts(leak, trained[seed % LEAK_TRAININGS], seed)
                    keep(audited("dishonest", leak.name, models, shape, seed, validation))


# Real runs


TRAIN_FILE = """
import torch
import torch.nn.functional as F

import harness
import honest_models


def build_model(run):
    torch.manual_seed(run.seed)
    kind = next(kind for kind in honest_models.KINDS if kind.name == {name!r})
    return kind.after(kind.build())


def main():
    run = harness.connect()
    model = build_model(run)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    run.start(model)
    for _ in range({steps}):
        inputs, targets = run.stream.next(8, 128)
        F.cross_entropy(model(inputs).flatten(0, 1).float(), targets.flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()
    run.finish(model)


if __name__ == "__main__":
    main()
"""
MANIFEST = """
task = "gcide"
title = "{name}"
authors = ["speedrun-harness"]

[evaluation]
batch = {batch}
length = {length}
"""
JUDGED_KINDS = [
    "mixture of 8 experts, top 2", "hard attention, experts, grouped", "bfloat16 autocast, experts",
    "bfloat16 weights", "bfloat16 weights, experts", "torch.compile",
]  # fmt: skip


def write_submission(folder: Path, name: str, batch: int, length: int) -> Path:
    """A submission that trains one kind of model."""
    folder.mkdir()
    (folder / "train.py").write_text(TRAIN_FILE.format(name=name, steps=TRAINING_STEPS))
    (folder / "submission.toml").write_text(MANIFEST.format(name=name, batch=batch, length=length))
    (folder / "honest_models.py").write_text(Path(honest_models.__file__).read_text())
    return folder


def judged() -> None:
    """Real runs of honest models: in a sandbox, two host processes, all validation tokens."""
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(JUDGED_SEEDS):
            keep_run("baseline", Request(SUBMISSION, CLASS, DATA, RUNS, seed, settings=[f"steps={TRAINING_STEPS}"]))
        for place, name in enumerate(JUDGED_KINDS):
            submission = load_submission(write_submission(Path(folder) / f"kind-{place}", name, 64, 128))
            keep_run(name, Request(submission, CLASS, DATA, RUNS, 1))


def keep_run(name: str, request: Request) -> None:
    """Does one run, unless its result is kept already."""
    seed = request.seed or 0
    if any((result.part, result.name, result.seed) == ("judged", name, seed) for result in kept()):
        return
    record = run_once(request).record
    shape = request.submission.manifest.evaluation
    judgement = record.judgement or {}
    audit = figures(judgement["audit"]) if judgement else {}
    keep(
        Result(
            "judged", name, seed, shape.batch, shape.length, TOLERANCE, judgement.get("seconds", 0.0),
            flagged=None if judgement else f"{record.reason}: {record.message}", val_loss=record.val_loss, **audit,
        )
    )  # fmt: skip


# Tables


def report() -> None:
    """Prints the tables of what is kept."""
    machine = fingerprint()
    print(f"{machine.cpu}, {machine.logical_cores} cores, torch {machine.packages['torch']}, {platform.release()}.")
    results = [result for result in kept() if result.tolerance == TOLERANCE]
    print(f"Tolerance {TOLERANCE:g}.\n")
    for part in ("honest", "rough", "judged"):
        print_passes([result for result in results if result.part == part])
    print_detections([result for result in results if result.part == "dishonest"])


def by_name(results: Iterable[Result], key: Callable[[Result], Any]) -> dict[Any, list[Result]]:
    """Results in groups, in the order in which they came."""
    groups: dict[Any, list[Result]] = {}
    for result in results:
        groups.setdefault(key(result), []).append(result)
    return groups


def print_passes(results: list[Result]) -> None:
    """One row for each architecture, and one for all together."""
    print("| model | audits | false alarms | largest difference | unstable rows / rows | largest gain, nats | loss |")
    print("|---|---|---|---|---|---|---|")
    for name, group in [*by_name(results, lambda result: result.name).items(), ("all", results)]:
        alarms = sum(result.flagged is not None for result in group)
        unstable, rows = sum(result.unstable_rows for result in group), sum(result.rows for result in group)
        difference = max(result.largest_difference for result in group)
        gain = max(result.nats_gained for result in group)
        loss = statistics.fmean(result.val_loss for result in group if result.val_loss is not None)
        print(
            f"| {name} | {len(group)} | {alarms} | {difference:.2g} | {unstable} / {rows:,} | {gain:.1e} | {loss:.2f} |"
        )
    print()


def print_detections(results: list[Result]) -> None:
    """One row for each leak and shape; what a leak is worth is the loss against the control's on the same text."""
    control = {(result.batch, result.seed): result.val_loss for result in results if result.name == CONTROL}
    over_decoder = {leak.name for leak in LEAKS if leak.build is Decoder}
    print("| what the model does | batch x length | found | worth, nats a token | said to be (most often) |")
    print("|---|---|---|---|---|")
    for (name, batch, length), group in by_name(results, lambda one: (one.name, one.batch, one.length)).items():
        found = [result.flagged for result in group if result.flagged is not None]
        worth = "not compared"
        if name in over_decoder:
            worth = f"{statistics.fmean(control[result.batch, result.seed] - result.val_loss for result in group):.4f}"
        said = Counter(described(message) for message in found).most_common(1)
        print(
            f"| {name} | {batch} x {length} | {len(found)} of {len(group)} | {worth} | {said[0][0] if said else ''} |"
        )


def described(message: str) -> str:
    """What a failure says that the model does."""
    return message.split("What it does: ")[1] if "What it does: " in message else "gains nats, no logit moved"


def main() -> None:
    """Does one part."""
    parts = {"honest": honest, "dishonest": dishonest, "judged": judged, "report": report}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=parts)
    torch.set_num_threads(1)
    parts[parser.parse_args().part]()


if __name__ == "__main__":
    main()
