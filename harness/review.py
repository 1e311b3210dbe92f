"""What a run shows that a person should look at before it counts as evidence: flags, never verdicts.

Reviewed are luck and mistakes that no rule can forbid: two "different" runs with the very same losses, a loss far
below what the tokens explain (the idea of MLPerf's reference convergence points: training rules, section
"Reference Convergence Points"), processes that go on computing when the clock has stopped, and a model host that
computes where it should load, or that takes more for an answer than a model's forward pass explains.
"""

from __future__ import annotations

import csv
import hashlib
import itertools
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.bundle import RunRecord
from harness.errors import UserError
from harness.paths import BASELINES

BAND_FILE = Path("tuning") / "loss_against_tokens.csv"
BAND_FIELDS = ("tokens", "val_loss", "seed", "run_id", "submission")
# Better methods need fewer tokens: the pilots' best optimizer saved a third. Three times fewer is worth a look.
EXPLAINED_FACTOR = 3.0
# CPU seconds of a model host before and beside its answers. The baseline of gcide takes 0.2 s, in a run of 80 s.
OFF_CLOCK_SECONDS = 1.0
OFF_CLOCK_SHARE = 0.02
# CPU seconds a token, judged over trained. A step's forward pass is about a third of it: gcide's baseline is at 0.5.
DEAR_TO_JUDGE = 2.0
PREFIX_ROWS = 16  # logged losses that must agree to the last digit


@dataclass(frozen=True)
class Flag:
    """One thing to look at, in a sentence with its numbers."""

    id: str
    text: str

    def __str__(self) -> str:
        return f"{self.id}: {self.text}"


def loss_prefix(rows: Sequence[dict[str, float | None]]) -> str | None:
    """sha256 of the first logged losses; None where fewer were logged or they do not vary."""
    losses = [row["loss"] for row in rows if row.get("loss") is not None][:PREFIX_ROWS]
    if len(losses) < PREFIX_ROWS or len(set(losses)) == 1:
        return None
    return hashlib.sha256(json.dumps(losses).encode()).hexdigest()


def review(record: RunRecord, others: Iterable[RunRecord], band: Sequence[tuple[int, float]]) -> list[Flag]:
    """All flags of a run, beside other runs and the baseline's (tokens, loss) at several budgets."""
    return [
        *_same_losses(record, others), *_beyond_tokens(record, band), *_still_computing(record),
        *_computes_off_the_clock(record), *_dear_to_judge(record),
    ]  # fmt: skip


def _same_losses(record: RunRecord, others: Iterable[RunRecord]) -> list[Flag]:
    prefix = record.digests.get("loss_prefix")
    if prefix is None:
        return []
    for other in others:
        if other.digests.get("loss_prefix") != prefix:
            continue
        text = f"its first {PREFIX_ROWS} losses are those of {other.run_id}, which has "
        if other.seed != record.seed:
            return [Flag("same-losses", text + "another seed")]
        # Another source with the same seed and losses changed the system alone, as may be in any pair of a race.
        if other.digests.get("submission") == record.digests.get("submission") and other.methods != record.methods:
            return [Flag("same-losses", text + "other methods: what differs changes no loss")]
    return []


def _beyond_tokens(record: RunRecord, band: Sequence[tuple[int, float]]) -> list[Flag]:
    budgets = {count for count, _ in band}
    if record.val_loss is None or record.tokens is None or len(budgets) < 2:
        return []
    if record.tokens == 0:  # no logarithm; the worst of the baseline's losses is generous for a run that read nothing
        explained = max(loss for _, loss in band)
        baseline = f"the worst run of the baseline reached {explained:.4f}"
    else:
        explained = explained_loss(band, EXPLAINED_FACTOR * record.tokens)
        baseline = f"the baseline needs more than {EXPLAINED_FACTOR:g} times as many for less than {explained:.4f}"
    if record.val_loss >= explained:
        return []
    text = f"{record.val_loss:.4f} nats after {record.tokens:,} tokens (counted by the {record.tokens_counted_by}); "
    return [Flag("beyond-its-tokens", text + baseline)]


def _still_computing(record: RunRecord) -> list[Flag]:
    if not record.still_computing:
        return []
    named = ", ".join(f"{one['name']} (pid {one['pid']}, {one['cpu_seconds']:.2f} s)" for one in record.still_computing)
    return [Flag("still-computing", f"after the weights were sealed these processes still used CPU time: {named}")]


def _computes_off_the_clock(record: RunRecord) -> list[Flag]:
    """The model host may learn from what the weights carry, the same in both hosts: then only its CPU time tells."""
    judgement = record.judgement or {}
    spent = judgement.get("host_load_cpu_seconds", 0.0) + judgement.get("host_extra_cpu_seconds", 0.0)
    if spent <= max(OFF_CLOCK_SECONDS, OFF_CLOCK_SHARE * (record.cpu_seconds or 0.0)):
        return []
    text = (
        f"loading the model and its dearest batch took {spent:.1f} s of CPU when no clock ran, the run itself "
        f"{record.cpu_seconds or 0.0:.1f} s; compiling explains some of that, training must not"
    )
    return [Flag("computes-off-the-clock", text)]


def _dear_to_judge(record: RunRecord) -> list[Flag]:
    """What a model computes for an answer is its own affair, up to a cap; that it moves work there is shown."""
    judgement = record.judgement or {}
    spent, tokens = judgement.get("host_cpu_seconds", 0.0), judgement.get("tokens", 0)
    if not (record.tokens and tokens and record.cpu_seconds) or spent <= OFF_CLOCK_SECONDS:
        return []
    ratio = (spent / tokens) / (record.cpu_seconds / record.tokens)
    if ratio <= DEAR_TO_JUDGE:
        return []
    text = f"a token took {ratio:.1f} times as much CPU to judge as to train; evaluation is not on the clock"
    return [Flag("dear-to-judge", text)]


def explained_loss(band: Sequence[tuple[int, float]], tokens: float) -> float:
    """The baseline's loss at a budget, from its (tokens, loss) at others: straight in the logarithm of tokens.

    Beyond the ends of the band the last piece goes on. Needs two budgets.
    """
    budgets: dict[int, list[float]] = {}
    for count, loss in band:
        budgets.setdefault(count, []).append(loss)
    points = sorted((math.log(count), sum(losses) / len(losses)) for count, losses in budgets.items())
    place = math.log(tokens)
    pairs = list(itertools.pairwise(points))
    (x0, y0), (x1, y1) = next((pair for pair in pairs if place <= pair[1][0]), pairs[-1])
    return y0 + (y1 - y0) * (place - x0) / (x1 - x0)


def read_band(task: str, submission: str | None = None) -> list[tuple[int, float]]:
    """The baseline's tokens and losses at several budgets; empty where none are kept. Raises UserError.

    `submission`: only those of the source with this digest.
    """
    path = BASELINES / "adamw" / task / BAND_FILE
    try:
        with path.open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if submission in (None, row["submission"])]
            return [(int(row["tokens"]), float(row["val_loss"])) for row in rows]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise UserError(f"{path}: not a table of {', '.join(BAND_FIELDS)}: {error}", "restore it from git") from None
