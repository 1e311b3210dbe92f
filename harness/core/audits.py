"""The audit: a second model host answers altered batches, and its answers must be those of the first.

At least `share` of the rows go to a *shadow host*, in batches of the shape they are scored in, but beside rows of
other batches, in another place, and with the end of most of them, from a random cut on, replaced by text from
elsewhere in the validation split. What stands before a cut is unchanged, so there the logits must be the same.
A model that reads ahead, looks at its batch mates, remembers earlier batches or answers by chance gives others. One
mechanism for all of them; how a model computes is its own affair, caches included.

Rows are drawn one by one from all batches, the padded last one too: whoever cheats in few batches would seldom be
met by whole batches. Batches are scored in a random order, and a host cannot tell an audited row from another.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from harness.core.failures import Failure, RunFailed
from harness.core.scoring import Answerer, Windows, token_nats
from harness.core.slots import Slots
from harness.core.task import Audit

NEAR = 8  # positions before a cut on which nats gained are looked at: what reads ahead gains there first
UNCUT_ROWS = 0.25  # share of rows left whole: beside other rows the last position must not move either
ERRORS = 4.0  # standard errors by which nats gained must exceed the limit: rounding in low precision is no gain
RARE_ROWS = 0.02  # up to this share of rows (or two) may be looked at again for being numerically unstable
REPLAYS = 8  # an unstable position, as at a tie of a router, comes out as scored in about half of them; to one who
# reads the next token only, one other text in two may say the same
KEPT_SUSPECTS = 4


@dataclass(frozen=True)
class AuditReport:
    """What a passed audit saw; nats are a token, differences are of logits."""

    seed: int
    batches: int
    rows: int
    positions: int
    largest_difference: float
    tolerance: float
    nats_gained: float
    unstable_rows: int


class Arithmetic:
    """How logits [N, V] are kept and compared: here in host memory. gpu_nats.py has one for those on a GPU."""

    def private(self, logits: Any) -> Any:
        """A copy that nobody else can change."""
        return logits.copy()

    def differences(self, scored: Any, shadow: Any) -> np.ndarray:
        """The largest difference of logits a position: float32 [N]; infinite where one of them is not a number."""
        with np.errstate(invalid="ignore"):
            apart = np.where(scored == shadow, np.float32(0), np.abs(scored - shadow))
        return np.nan_to_num(apart.max(axis=1), nan=np.inf, posinf=np.inf)

    def gains(self, scored: Any, shadow: Any, targets: np.ndarray) -> np.ndarray:
        """By how many nats a position the scored answer is the better one: float32 [N]."""
        return token_nats(shadow, targets) - token_nats(scored, targets)


HOST_ARITHMETIC = Arithmetic()


@dataclass(frozen=True)
class Kept:
    """A scored row that is to be asked again: unchanged before `cut`, where its logits are kept."""

    index: int
    row: int
    cut: int
    scored: Any  # the scoring host's logits before the cut, padding left out: [at most cut, V], array or tensor
    targets: np.ndarray


@dataclass(frozen=True)
class Altered:
    """A batch as the shadow host is asked it: its row `places[i]` shows the row `kept[i]`, unchanged before its cut."""

    kept: list[Kept]
    places: list[int]


@dataclass(frozen=True)
class Suspect:
    """A row whose logits moved: where, by how much, and what the text after the cut was worth there."""

    kept: Kept
    position: int
    difference: float
    gained: float


class ShadowAudit:
    """Watches the scoring of one model; `conclude` passes or raises RunFailed."""

    def __init__(
        self, rules: Audit, tolerance: float, host: Answerer, slots: Slots, windows: Windows, seed: int,
        arithmetic: Arithmetic = HOST_ARITHMETIC,
    ) -> None:  # fmt: skip
        self._rules = rules
        self._tolerance = tolerance
        self._host = host
        self._slots = slots
        self._windows = windows
        self._seed = seed
        self._arithmetic = arithmetic
        self._random = np.random.default_rng(seed)
        batch, length = windows.shape
        total = math.ceil(windows.scored / length)
        asked = math.ceil(max(rules.share * total, rules.rows) / batch)  # whole batches of the shadow host
        drawn = np.sort(self._random.choice(total, min(total, asked * batch), replace=False)).tolist()
        self.chosen = {index: list(rows) for index, rows in groupby(drawn, lambda row: row // batch)}
        self.order = self._random.permutation(windows.batches).tolist()
        self._waiting: list[Kept] = []
        self._asked: Altered | None = None
        self._batches = 0
        self._rows = self._positions = 0
        self._largest = 0.0
        self._gains: dict[int | None, list[float]] = {1: [], NEAR: [], None: []}
        self._suspects: list[Suspect] = []
        self._moved_rows = 0

    def wants(self, index: int) -> bool:
        """Whether this batch has audited rows."""
        return index in self.chosen

    def take(self, index: int, logits: Any) -> None:
        """Keeps the audited rows of a batch's scored logits [B, T, V], an array or a tensor. With enough rows the
        shadow host is asked."""
        batch, length = self._windows.shape
        targets = self._windows.targets(index)
        for row in (place % batch for place in self.chosen[index]):
            own = targets[row * length : (row + 1) * length]  # fewer in the last row that is scored
            uncut = self._random.random() < UNCUT_ROWS
            cut = length if uncut else int(self._random.integers(1, length + 1))
            scored = self._arithmetic.private(logits[row, : min(cut, len(own))])
            self._waiting.append(Kept(index, row, cut, scored, own[:cut].astype(np.int64)))
            if len(self._waiting) == batch:
                self._ask()

    def conclude(self) -> AuditReport:
        """Passes, or raises RunFailed that says what was done, where, and what it moved and gained."""
        if self._waiting:
            self._ask()
        self._settle()
        if self._moved_rows > max(2, RARE_ROWS * self._rows):
            self._fail(self._worst())
        for suspect in self._suspects:
            if not self._is_unstable(suspect):
                self._fail(suspect)
        gained = max(self._gained(near) for near in self._gains)
        return AuditReport(
            seed=self._seed, batches=self._batches, rows=self._rows, positions=self._positions,
            largest_difference=float(self._largest), tolerance=self._tolerance, nats_gained=gained,
            unstable_rows=self._moved_rows,
        )  # fmt: skip

    # Asking

    def _ask(self) -> None:
        self._settle()
        batch, length = self._windows.shape
        inputs = np.stack([self._other_text(length) for _ in range(batch)]).astype(np.int64)
        places = self._random.permutation(batch)[: len(self._waiting)].tolist()
        for place, kept in zip(places, self._waiting, strict=True):
            inputs[place, : kept.cut] = self._windows.inputs(kept.index)[kept.row, : kept.cut]
        self._slots.tokens[0][:] = inputs
        self._host.forward(0)
        self._asked, self._waiting = Altered(self._waiting, places), []
        self._batches += 1

    def _other_text(self, count: int) -> np.ndarray:
        tokens = self._windows.tokens
        start = int(self._random.integers(max(1, len(tokens) - count)))
        return np.resize(tokens[start : start + count], count)

    def _answer(self, inputs: np.ndarray, kept: Kept) -> Any:
        """The shadow host's logits of one row before the cut, asked now at its own place."""
        self._slots.tokens[0][:] = inputs
        self._host.forward(0)
        self._host.wait(0)
        return self._slots.rows(0, kept.row, len(kept.scored))

    # Comparing

    def _settle(self) -> None:
        """Waits for the shadow's answer and compares every row before its cut."""
        if self._asked is None:
            return
        asked, self._asked = self._asked, None
        self._host.wait(0)
        for place, kept in zip(asked.places, asked.kept, strict=True):
            self._compare(kept, self._slots.rows(0, place, len(kept.scored)))

    def _compare(self, kept: Kept, shadow: Any) -> None:
        differences = self._arithmetic.differences(kept.scored, shadow)
        gains = self._arithmetic.gains(kept.scored, shadow, kept.targets)
        if len(kept.scored) == kept.cut < self._windows.shape[1]:  # else what follows was not text that could help
            for near, rows in self._gains.items():
                rows.append(float(gains[-near:].mean()) if near else float(gains.mean()))
        self._rows += 1
        self._positions += len(kept.scored)
        position = int(differences.argmax())
        self._largest = max(self._largest, differences[position])
        if differences[position] <= self._tolerance:
            return
        self._moved_rows += 1
        suspect = Suspect(kept, position, float(differences[position]), float(gains[position]))
        worst = sorted([*self._suspects, suspect], key=lambda suspect: -suspect.difference)
        self._suspects = worst[:KEPT_SUSPECTS]

    def _gained(self, near: int | None) -> float:
        """Mean nats a token that the true text after the cut was worth. Raises RunFailed above the limit."""
        gains = np.array(self._gains[near])
        mean = float(gains.mean()) if len(gains) else 0.0
        error = float(gains.std(ddof=1)) / math.sqrt(len(gains)) if len(gains) > 1 else 0.0
        if mean > self._rules.nats_gained + ERRORS * error:
            where = f"the last {near} position(s) before each cut" if near else "all positions before the cuts"
            raise RunFailed(
                Failure.AUDIT,
                f"the model's answers depend on more than the row's own past: over {len(gains)} rows the unaltered "
                f"batch was worth {mean:.5f} nats a token at {where} (standard error {error:.5f}; limit "
                f"{self._rules.nats_gained}), while no logit moved by more than {self._largest:.2g}",
            )
        return mean

    # Judging what moved

    def _worst(self) -> Suspect:
        return self._suspects[0]

    def _is_unstable(self, suspect: Suspect) -> bool:
        """Whether the row comes out as scored beside other text too: then no text moved it, but rounding did."""
        kept = suspect.kept
        batch, length = self._windows.shape
        own = self._windows.inputs(kept.index)[kept.row, : kept.cut]
        for _ in range(REPLAYS):
            inputs = np.stack([self._other_text(length) for _ in range(batch)])
            inputs[kept.row, : kept.cut] = own
            if not self._moves(suspect, inputs):
                return True
        return False

    def _fail(self, suspect: Suspect) -> None:
        """Raises RunFailed; asks some more times, with one thing altered each, to say what the model does."""
        kept = suspect.kept
        raise RunFailed(
            Failure.AUDIT,
            f"the model's answers depend on more than the row's own past. In batch {kept.index}, row {kept.row}, with "
            f"the text from position {kept.cut} on replaced, beside other rows and after other batches, the logits at "
            f"position {suspect.position} moved by {suspect.difference:.3g} (tolerance {self._tolerance:g}); the "
            f"unaltered batch was worth {suspect.gained:+.3f} nats there. "
            f"{self._moved_rows} of {self._rows} rows moved. {self._name(suspect)}",
        )

    def _name(self, suspect: Suspect) -> str:
        kept = suspect.kept
        if self._moves(suspect, self._windows.inputs(kept.index)):
            return "What it does: the unaltered batch too comes out otherwise, so it remembers earlier batches or draws"
        ahead = any(self._moves(suspect, self._with_other_suffix(kept)) for _ in range(REPLAYS))
        mates = any(self._moves(suspect, self._with_other_mates(kept)) for _ in range(REPLAYS))
        done = ["reads ahead in the row"] * ahead + ["looks at the other rows of the batch"] * mates
        return "What it does: it " + (" and ".join(done) or "depends on the order of the rows or of the batches")

    def _with_other_suffix(self, kept: Kept) -> np.ndarray:
        inputs = self._windows.inputs(kept.index).copy()
        inputs[kept.row, kept.cut :] = self._other_text(self._windows.shape[1] - kept.cut)
        return inputs

    def _with_other_mates(self, kept: Kept) -> np.ndarray:
        batch, length = self._windows.shape
        inputs = np.stack([self._other_text(length) for _ in range(batch)])
        inputs[kept.row] = self._windows.inputs(kept.index)[kept.row]
        return inputs

    def _moves(self, suspect: Suspect, inputs: np.ndarray) -> bool:
        return not self._same(self._answer(inputs, suspect.kept), suspect)

    def _same(self, answer: Any, suspect: Suspect) -> bool:
        return bool(self._arithmetic.differences(suspect.kept.scored, answer).max() <= self._tolerance)
