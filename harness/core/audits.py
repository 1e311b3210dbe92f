"""The audit: a second model host answers altered batches, and its answers must be those of the first.

At least `share` of the batches go to a *shadow host*, in the shape they are scored in, with the rows permuted, a
quarter of the rows replaced, and the end of every other row, from a random cut on, replaced by text from
elsewhere in the validation split. What stands before a cut is unchanged, so there the logits must be the same.
A model that reads ahead, looks at its batch mates, remembers earlier batches or answers by chance gives others. One
mechanism for all of them; how a model computes is its own affair, caches included.

Which batches are audited is drawn by the judge, and batches are scored in a random order, so that a host cannot
tell an audited batch from another.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from harness.core.failures import Failure, RunFailed
from harness.core.scoring import Answerer, Windows, token_nats
from harness.core.slots import Slots
from harness.core.task import Audit

NEAR = 8  # positions before a cut on which nats gained are looked at: what reads ahead gains there first
REPLACED_ROWS = 0.25  # share of rows replaced whole, so that what looks at batch mates sees others
ERRORS = 4.0  # standard errors by which nats gained must exceed the limit: rounding in low precision is no gain
RARE_ROWS = 0.02  # up to this share of rows (or two) may be looked at again for being numerically unstable
REPLAYS = 8  # an unstable position, as at a tie of a router, comes out as scored in about half of them
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


@dataclass(frozen=True)
class Altered:
    """A batch as the shadow host is asked it: its row j shows row `rows[j]`, unchanged before `cuts[rows[j]]`."""

    inputs: np.ndarray
    rows: np.ndarray
    cuts: np.ndarray


@dataclass(frozen=True)
class Suspect:
    """A row whose logits moved: where, by how much, and what the text after the cut was worth there."""

    index: int
    row: int
    cut: int
    position: int
    difference: float
    gained: float
    scored: np.ndarray  # the scoring host's logits before the cut: float32 [cut, V]


class ShadowAudit:
    """Watches the scoring of one model; `conclude` passes or raises RunFailed."""

    def __init__(
        self, rules: Audit, tolerance: float, host: Answerer, slots: Slots, windows: Windows, seed: int
    ) -> None:
        self._rules = rules
        self._tolerance = tolerance
        self._host = host
        self._slots = slots
        self._windows = windows
        self._seed = seed
        self._random = np.random.default_rng(seed)
        batch = windows.shape[0]
        full = (windows.scored // (batch * windows.shape[1])) or windows.batches
        count = min(full, max(math.ceil(rules.share * windows.batches), math.ceil(rules.rows / batch)))
        self.chosen = frozenset(self._random.choice(full, count, replace=False).tolist())
        self.order = self._random.permutation(windows.batches).tolist()
        self._asked: tuple[int, np.ndarray, Altered] | None = None
        self._rows = self._positions = 0
        self._largest = 0.0
        self._gains: dict[int | None, list[float]] = {1: [], NEAR: [], None: []}
        self._suspects: list[Suspect] = []
        self._moved_rows = 0

    def wants(self, index: int) -> bool:
        """Whether this batch is one of the audited ones."""
        return index in self.chosen

    def take(self, index: int, logits: np.ndarray) -> None:
        """Notes the scored logits [B, T, V] of a batch and asks the shadow host the altered one."""
        self._settle()
        altered = self._alter(index)
        self._slots.tokens[0][:] = altered.inputs
        self._host.forward(0)
        self._asked = (index, logits, altered)

    def conclude(self) -> AuditReport:
        """Passes, or raises RunFailed that says what was done, where, and what it moved and gained."""
        self._settle()
        if self._moved_rows > max(2, RARE_ROWS * self._rows):
            self._fail(self._worst())
        for suspect in self._suspects:
            if not self._is_unstable(suspect):
                self._fail(suspect)
        gained = max(self._gained(near) for near in self._gains)
        return AuditReport(
            seed=self._seed, batches=len(self.chosen), rows=self._rows, positions=self._positions,
            largest_difference=float(self._largest), tolerance=self._tolerance, nats_gained=gained,
            unstable_rows=self._moved_rows,
        )  # fmt: skip

    # Asking

    def _alter(self, index: int) -> Altered:
        batch, length = self._windows.shape
        inputs = self._windows.inputs(index)
        cuts = self._random.integers(1, max(2, length), batch)
        cuts[self._random.random(batch) < REPLACED_ROWS] = 0
        if not cuts.any():
            cuts[self._random.integers(batch)] = max(1, length // 2)
        for row, cut in enumerate(cuts):
            inputs[row, cut:] = self._other_text(length - cut)
        rows = self._random.permutation(batch)
        return Altered(inputs[rows], rows, cuts)

    def _other_text(self, count: int) -> np.ndarray:
        tokens = self._windows.tokens
        start = int(self._random.integers(max(1, len(tokens) - count)))
        return np.resize(tokens[start : start + count], count)

    def _answer(self, inputs: np.ndarray, row: int, cut: int) -> np.ndarray:
        """The shadow host's logits of one row before the cut, asked now."""
        self._slots.tokens[0][:] = inputs
        self._host.forward(0)
        self._host.wait(0)
        return self._slots.logits[0][row, :cut].copy()

    # Comparing

    def _settle(self) -> None:
        """Waits for the shadow's answer and compares every row before its cut."""
        if self._asked is None:
            return
        (index, scored, altered), self._asked = self._asked, None
        self._host.wait(0)
        known = self._windows.targets(index)
        targets = np.zeros(scored.shape[0] * scored.shape[1], np.int64)
        targets[: len(known)] = known
        targets = targets.reshape(scored.shape[:2])
        for place, row in enumerate(altered.rows.tolist()):
            cut = int(altered.cuts[row])
            if cut:
                shadow = self._slots.logits[0][place, :cut].copy()
                self._compare(index, row, scored[row, :cut], shadow, targets[row, :cut])

    def _compare(self, index: int, row: int, scored: np.ndarray, shadow: np.ndarray, targets: np.ndarray) -> None:
        cut = len(scored)
        differences = _differences(scored, shadow)
        gains = token_nats(shadow, targets) - token_nats(scored, targets)
        for near, rows in self._gains.items():
            rows.append(float(gains[-near:].mean()) if near else float(gains.mean()))
        self._rows += 1
        self._positions += cut
        position = int(differences.argmax())
        self._largest = max(self._largest, differences[position])
        if differences[position] <= self._tolerance:
            return
        self._moved_rows += 1
        suspect = Suspect(
            index, row, cut, position, float(differences[position]), float(gains[position]), scored.copy()
        )
        kept = sorted([*self._suspects, suspect], key=lambda suspect: -suspect.difference)
        self._suspects = kept[:KEPT_SUSPECTS]

    def _gained(self, near: int | None) -> float:
        """Mean nats a token that the true text after the cut was worth. Raises RunFailed above the limit."""
        gains = np.array(self._gains[near])
        mean = float(gains.mean())
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
        batch, length = self._windows.shape
        own = self._windows.inputs(suspect.index)[suspect.row, : suspect.cut]
        for _ in range(REPLAYS):
            inputs = np.stack([self._other_text(length) for _ in range(batch)])
            inputs[suspect.row, : suspect.cut] = own
            if self._same(self._answer(inputs, suspect.row, suspect.cut), suspect):
                return True
        return False

    def _fail(self, suspect: Suspect) -> None:
        """Raises RunFailed; asks three more times, with one thing altered each, to say what the model does."""
        raise RunFailed(
            Failure.AUDIT,
            f"the model's answers depend on more than the row's own past. In batch {suspect.index}, row "
            f"{suspect.row}, with the text from position {suspect.cut} on replaced, rows in another order and other "
            f"batches before, the logits at position {suspect.position} moved by {suspect.difference:.3g} "
            f"(tolerance {self._tolerance:g}); the unaltered batch was worth {suspect.gained:+.3f} nats there. "
            f"{self._moved_rows} of {self._rows} rows moved. {self._name(suspect)}",
        )

    def _name(self, suspect: Suspect) -> str:
        batch, length = self._windows.shape
        true = self._windows.inputs(suspect.index)
        other_suffix, other_mates = true.copy(), true.copy()
        other_suffix[suspect.row, suspect.cut :] = self._other_text(length - suspect.cut)
        other_mates[:] = np.stack([self._other_text(length) for _ in range(batch)])
        other_mates[suspect.row] = true[suspect.row]
        ahead, mates, history = (
            not self._same(self._answer(inputs, suspect.row, suspect.cut), suspect)
            for inputs in (other_suffix, other_mates, true)
        )
        if history:
            return "What it does: the unaltered batch too comes out otherwise, so it remembers earlier batches or draws"
        done = ["reads ahead in the row"] * ahead + ["looks at the other rows of the batch"] * mates
        return "What it does: it " + (" and ".join(done) or "depends on the order of the rows or of the batches")

    def _same(self, answer: np.ndarray, suspect: Suspect) -> bool:
        return bool(_differences(suspect.scored, answer).max() <= self._tolerance)


def _differences(scored: np.ndarray, shadow: np.ndarray) -> np.ndarray:
    """The largest difference of logits a position: float32 [N]; infinite where one of them is not a number."""
    with np.errstate(invalid="ignore"):
        apart = np.where(scored == shadow, np.float32(0), np.abs(scored - shadow))
    return np.nan_to_num(apart.max(axis=1), nan=np.inf, posinf=np.inf)
