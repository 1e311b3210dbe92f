"""Does the audit leave honest models alone, and what does it find in dishonest ones?

    python benchmarks/audit_calibration.py honest        # honest_models.py: none may be flagged
    python benchmarks/audit_calibration.py dishonest     # dishonest_models.py: what is found, and where that ends
    python benchmarks/audit_calibration.py judged        # real runs of the baseline, with judge, hosts and sandbox
    python benchmarks/audit_calibration.py report > benchmarks/results/audit_calibration.md

The first two train small models a little on the task's training tokens and audit them in this process, on one
thread. Every audit is appended to runs/audit_calibration.jsonl at once; what is there already is not done again.
What the audit costs is measured by audit_cost.py.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any, TypeVar

import dishonest_models
import honest_models
import numpy as np
import torch
import torch.nn.functional as F
from dishonest_models import CONTROL, LEAKS
from honest_models import KINDS, LONG_SHAPES, Decoder, Kind
from torch import nn

from harness.campaign import Request, run_once
from harness.core.audits import ShadowAudit
from harness.core.data.shards import open_shard
from harness.core.failures import RunFailed
from harness.core.model_host import import_submission
from harness.core.protocol import Context, TaskFacts
from harness.core.run import Settings
from harness.core.scoring import SLOTS, Windows, score
from harness.core.slots import Slots, sealed_memory, slot_bytes
from harness.core.task import hardware_class
from harness.machine import fingerprint
from harness.paths import BASELINES, DATA, RUNS
from harness.submission import load_submission

BASELINE = BASELINES / "adamw" / "gcide"
SUBMISSION = load_submission(BASELINE)
TASK = SUBMISSION.task
TOLERANCE = TASK.audit.tolerance["cpu"]
LOG = RUNS / "audit_calibration.jsonl"
HONEST_SEEDS, LEAK_TRAININGS, LEAK_SEEDS, JUDGED_SEEDS = 2, 2, 20, 5
LEAK_STEPS = JUDGED_STEPS = 80
TRAINING_BATCH, TRAINING_LENGTH = 8, 128
# A fifth of the split at five times the share: as many rows are compared as in a real run, in a third of the time.
# Long windows get the text that the least number of rows takes.
SCORED_TOKENS, SHARE = 65_536, 0.5
RULES = TASK.audit.model_copy(update={"share": SHARE})
T = TypeVar("T")
RECORD_RUNS = 4  # a record takes at least as many runs of the candidate, each audited


@dataclass(frozen=True)
class Result:
    """One audit; `flagged` is the failure's message, and then the figures of the audit are not known."""

    part: str
    name: str
    batch: int
    length: int
    seed: int
    tolerance: float
    val_loss: float | None
    flagged: str | None = None
    rows: int = 0
    positions: int = 0
    largest_difference: float = 0.0
    nats_gained: float = 0.0
    unstable_rows: int = 0

    @property
    def case(self) -> tuple[str, str, int, int, int]:
        """What is not done twice."""
        return self.part, self.name, self.batch, self.length, self.seed


def results() -> list[Result]:
    """The audits so far with the task's tolerance."""
    lines = LOG.read_text().splitlines() if LOG.exists() else []
    return [result for line in lines if (result := Result(**json.loads(line))).tolerance == TOLERANCE]


def keep(case: tuple[str, str, int, int, int], val_loss: float | None, outcome: dict[str, Any] | str) -> None:
    """Appends a result, of an audit's report or a failure's message, and says it."""
    names = ("rows", "positions", "largest_difference", "nats_gained", "unstable_rows")
    seen = {"flagged": outcome} if isinstance(outcome, str) else {name: outcome[name] for name in names}
    result = Result(*case, tolerance=TOLERANCE, val_loss=val_loss, **seen)
    LOG.parent.mkdir(exist_ok=True)
    with LOG.open("a") as file:
        file.write(json.dumps(asdict(result)) + "\n")
    verdict = result.flagged or f"moved by {result.largest_difference:.2g}, unstable rows: {result.unstable_rows}"
    print(f"{' '.join(map(str, case))}: {verdict}", flush=True)


# Audits in this process


class LocalHost:
    """A model that answers from slots, as a model host does."""

    def __init__(self, model: nn.Module, count: int, batch: int, length: int, columns: int) -> None:
        descriptor = sealed_memory(count * slot_bytes(batch, length, columns))
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


def train(build: Callable[[], nn.Module], seed: int, steps: int, tokens: np.ndarray) -> nn.Module:
    """A model after some steps of AdamW, so that logits are sharp and routes are taken."""
    torch.manual_seed(seed)
    model = build()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    size = TRAINING_BATCH * TRAINING_LENGTH
    for step in range(steps):
        start = (seed * steps + step) * size
        part = torch.from_numpy(tokens[start : start + size + 1].astype(np.int64))
        logits = model(part[:-1].view(TRAINING_BATCH, TRAINING_LENGTH))
        F.cross_entropy(logits.flatten(0, 1), part[1:]).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


def audit(case: tuple[str, str, int, int, int], models: list[nn.Module], tokens: np.ndarray) -> None:
    """Scores with one model, audits with the other, and keeps the result."""
    _, _, batch, length, seed = case
    count = max(SCORED_TOKENS, RULES.rows * length)
    start = int(np.random.default_rng(seed).integers(len(tokens) - count))
    windows = Windows(tokens[start : start + count + 1], batch, length, TASK.tokenizer.end_of_text)
    with torch.inference_mode():
        columns = models[0](torch.from_numpy(windows.inputs(0))).shape[2]
    host, shadow = (LocalHost(model, SLOTS, batch, length, columns) for model in models)
    watcher = ShadowAudit(RULES, TOLERANCE, shadow, shadow.slots, windows, seed)
    val_loss = score(host, host.slots, windows, watcher.order, watcher) / windows.scored
    try:
        keep(case, val_loss, asdict(watcher.conclude()))
    except RunFailed as error:
        keep(case, val_loss, error.message)


def honest() -> None:
    """Audits every kind of honest model in each of its shapes, on two trainings."""
    done = {result.case for result in results()}
    training, validation = split_tokens("train"), split_tokens("validation")
    baselines = [Kind("baseline", build_baseline), Kind("baseline, long context", build_baseline, shapes=LONG_SHAPES)]
    for seed in range(HONEST_SEEDS):
        for kind in [*baselines, *KINDS]:
            due = [case for shape in kind.shapes if (case := ("honest", kind.name, *shape, seed)) not in done]
            if not due:
                continue
            trained = train(kind.build, seed, kind.steps, training)
            for case in due:
                audit(case, honest_models.two_hosts(kind, trained), validation)


def dishonest() -> None:
    """Audits every kind of leak over as many seeds, on models of two trainings."""
    done = {result.case for result in results()}
    training, validation = split_tokens("train"), split_tokens("validation")
    trained: dict[Any, nn.Module] = {}  # most leaks are laid over the same model
    for seed in range(LEAK_SEEDS):
        for leak in LEAKS:
            below = (leak.build, seed % LEAK_TRAININGS)
            for shape in leak.shapes:
                if (case := ("dishonest", leak.name, *shape, seed)) not in done:
                    if below not in trained:
                        trained[below] = train(*below, LEAK_STEPS, training)
                    audit(case, dishonest_models.two_hosts(leak, trained[below], seed), validation)


# Real runs


def judged() -> None:
    """Short runs of the baseline: in a sandbox, two host processes, all validation tokens."""
    done = {result.case for result in results()}
    evaluation, settings = SUBMISSION.manifest.evaluation, [f"steps={JUDGED_STEPS}"]
    for seed in range(JUDGED_SEEDS):
        if (case := ("judged", "baseline", evaluation.batch, evaluation.length, seed)) not in done:
            request = Request(SUBMISSION, hardware_class("cpu-1thread"), DATA, RUNS, seed, settings=settings)
            record = run_once(request).record
            keep(case, record.val_loss, record.judgement["audit"] if record.judgement else str(record.message))


# Tables


def report() -> None:
    """Prints the tables as Markdown."""
    parts = grouped(results(), lambda result: result.part)
    if missing := {"honest", "dishonest", "judged"} - set(parts):
        raise SystemExit(f"error: no audits of {', '.join(sorted(missing))} are kept; run these parts first")
    machine = fingerprint()
    print(f"""# What the audit finds, and what it leaves alone

`python benchmarks/audit_calibration.py` with `honest`, `dishonest`, `judged`, `report`; {date.today()}; {machine.cpu},
one thread, torch {machine.packages["torch"]}. Task `gcide`: a logit may move by {TOLERANCE:g} on a CPU, and
{RULES.nats_gained:g} nats a token may be gained. On a GPU nothing has been measured.

## Honest models

Each was trained a little from {HONEST_SEEDS} seeds, then scored and audited in its shapes on {SCORED_TOKENS:,} tokens
of the validation split (on {RULES.rows} rows where that is more); as many rows are compared as in a judged run.
*Moved* is the largest difference of a logit; *unstable rows* moved by more than the tolerance, but for no text's sake.

The tolerance was chosen to spare these very models, so that they are no independent test of it. It covers one step of
bfloat16 for logits below 16; above, a step is twice as large. Other processors may round otherwise.
""")
    print_passes(parts["honest"])
    print(f"""
## Judged runs of the baseline

{JUDGED_STEPS} steps, {JUDGED_SEEDS} seeds each; judge, sandbox and two host processes, on all validation tokens.
""")
    print_passes(parts["judged"])
    print(f"""
## Leaks

Audited as the honest models are, over models of {LEAK_TRAININGS} trainings. *In {RECORD_RUNS} runs* is the chance that
at least one of {RECORD_RUNS} audits finds it, as a record takes that many; *worth* is how much lower it makes the loss.
""")
    print_detections(parts["dishonest"])


def grouped(found: Iterable[T], key: Callable[[T], Any]) -> dict[Any, list[T]]:
    """What was found in groups, in the order in which they came."""
    groups: dict[Any, list[T]] = {}
    for one in found:
        groups.setdefault(key(one), []).append(one)
    return groups


def print_passes(found: list[Result]) -> None:
    """One row for each model, and one for all together."""
    print("| model | audits | false alarms | moved | unstable rows / rows | most nats gained | loss |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for name, group in [*grouped(found, lambda result: result.name).items(), ("all", found)]:
        alarms = sum(result.flagged is not None for result in group)
        unstable, rows = sum(result.unstable_rows for result in group), sum(result.rows for result in group)
        moved, gain = max(result.largest_difference for result in group), max(result.nats_gained for result in group)
        loss = statistics.fmean(result.val_loss for result in group if result.val_loss is not None)
        print(f"| {name} | {len(group)} | {alarms} | {moved:.2g} | {unstable} / {rows:,} | {gain:.1e} | {loss:.2f} |")


@dataclass(frozen=True)
class Detection:
    """How often a leak was found at a shape; `worth` in nats a token where its model is the control's."""

    name: str
    shape: str
    found: int
    audits: int
    worth: float | None
    said: str

    @property
    def missed(self) -> float:
        """Share of audits that pass."""
        return 1 - self.found / self.audits


def detections(found: list[Result]) -> list[Detection]:
    """One for each leak and shape; what a leak is worth is the control's loss less its own on the same text."""
    control = {
        (one.batch, one.length, one.seed): one.val_loss
        for one in found
        if one.val_loss is not None and one.name == CONTROL
    }
    comparable = {leak.name for leak in LEAKS if leak.build is Decoder}
    rows = []
    for (name, batch, length), group in grouped(found, lambda one: (one.name, one.batch, one.length)).items():
        messages = [one.flagged for one in group if one.flagged is not None]
        worth = statistics.fmean(
            control[one.batch, one.length, one.seed] - one.val_loss for one in group if one.val_loss is not None
        )
        said = Counter(described(message) for message in messages).most_common(1)
        rows.append(
            Detection(
                name, f"{batch} x {length}", len(messages), len(group), worth if name in comparable else None,
                said[0][0] if said else "",
            )
        )  # fmt: skip
    return rows


def print_detections(found: list[Result]) -> None:
    """The table of leaks, and what the worst ones are worth that pass."""
    rows = detections(found)
    print(f"| what the model does | batch x length | found | in {RECORD_RUNS} runs | worth, nats | said to be |")
    print("|---|---|--:|--:|--:|---|")
    for row in rows:
        worth = "not compared" if row.worth is None else f"{row.worth:.4f}"
        chance = f"{1 - row.missed**RECORD_RUNS:.0%}"
        print(f"| {row.name} | {row.shape} | {row.found} of {row.audits} | {chance} | {worth} | {row.said} |")
    print("\nWhere detection ends: the leak worth most among those found\n")
    compared = [row for row in rows if row.worth is not None and row.name != CONTROL]
    for shape, group in grouped(compared, lambda row: row.shape).items():
        for often, least in [("in fewer than half of the audits", 0.51), ("in none", 1.0)]:
            passing = sorted((row for row in group if row.missed >= least), key=lambda row: row.worth or 0.0)
            for row in passing[-1:]:
                print(f"- at {shape} {often}: {row.name}; worth {row.worth:.4f} nats a token")


def described(message: str) -> str:
    """What a failure says that the model does."""
    return message.split("What it does: ")[1] if "What it does: " in message else "gains nats, no logit moved far"


def main() -> None:
    """Does one part."""
    parts = {"honest": honest, "dishonest": dishonest, "judged": judged, "report": report}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=parts)
    torch.set_num_threads(1)
    parts[parser.parse_args().part]()


if __name__ == "__main__":
    main()
