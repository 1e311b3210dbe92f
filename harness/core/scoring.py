"""Validation loss from logits: the windows, the cross-entropy, and the loop that keeps host and judge busy."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from harness.core.failures import Failure, RunFailed
from harness.core.slots import Slots

SLOTS = 2
CHUNK_TOKENS = 2048  # rows of logits scored at once: at 1,024 columns the temporaries stay at 8 MB


class Answerer(Protocol):
    """What scoring needs of a model host."""

    def forward(self, slot: int) -> None: ...
    def wait(self, slot: int) -> None: ...


class Watcher(Protocol):
    """Sees batches beside the scoring: the audit."""

    def wants(self, index: int) -> bool: ...
    def take(self, index: int, logits: Any) -> None: ...


class Windows:
    """Validation tokens cut into batches of exactly [batch, length]: windows do not overlap.

    Every token but the first (the leading end-of-text) is a target once. The tail is padded with
    end-of-text; padded positions are not scored.
    """

    def __init__(self, tokens: np.ndarray, batch: int, length: int, end_of_text: int) -> None:
        self.tokens = tokens
        self.shape = (batch, length)
        self._end_of_text = end_of_text
        self.scored = len(tokens) - 1
        self.batches = math.ceil(self.scored / (batch * length))

    def fill(self, index: int, out: np.ndarray) -> None:
        """Writes the inputs of a batch: int64 [batch, length]."""
        inputs = self._cut(index, 0)
        flat = out.reshape(-1)
        flat[: len(inputs)] = inputs
        flat[len(inputs) :] = self._end_of_text

    def inputs(self, index: int) -> np.ndarray:
        """The inputs of a batch: int64 [batch, length]."""
        out = np.empty(self.shape, np.int64)
        self.fill(index, out)
        return out

    def targets(self, index: int) -> np.ndarray:
        """The targets of a batch in row order; in the last batch there may be fewer than batch * length."""
        return self._cut(index, 1)

    def _cut(self, index: int, shift: int) -> np.ndarray:
        size = self.shape[0] * self.shape[1]
        start = index * size
        return self.tokens[start + shift : min(start + size, self.scored) + shift]


def token_nats(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The cross-entropy of float32 logits [N, V] against targets [N], a token: float32 [N]."""
    # Of a private copy of the host's answer (see `score`), which stays as it is: the audit compares it.
    shifted = logits.copy()
    with np.errstate(invalid="ignore", over="ignore"):
        shifted -= shifted.max(axis=1, keepdims=True)
        correct = shifted[np.arange(len(targets)), targets.astype(np.int64)]
        np.exp(shifted, out=shifted)
        return np.log(shifted.sum(axis=1)) - correct


def nats(logits: np.ndarray, targets: np.ndarray) -> float:
    """The summed cross-entropy of float32 logits [N, V] against targets [N]; not finite where a row is not."""
    total = 0.0
    for start in range(0, len(targets), CHUNK_TOKENS):
        part = token_nats(logits[start : start + CHUNK_TOKENS], targets[start : start + CHUNK_TOKENS])
        total += float(part.sum(dtype=np.float64))
    return total


def score(
    host: Answerer, slots: Slots, windows: Windows, order: Sequence[int], watcher: Watcher | None = None,
    on_batch: Callable[[int], None] = lambda done: None, nats: Callable[[Any, np.ndarray], float] = nats,
) -> float:  # fmt: skip
    """Total nats over all windows, asked for in `order`; `nats` is what sums a batch. Raises RunFailed."""
    total = 0.0
    for place in range(len(order) + 1):
        if place < len(order):
            windows.fill(order[place], slots.tokens[place % SLOTS])
            host.forward(place % SLOTS)
        if place == 0:
            continue
        slot, index = (place - 1) % SLOTS, order[place - 1]
        host.wait(slot)
        # One private copy is scored and audited. Of every batch: were only audited ones copied at once, a host that
        # overwrites its answer a moment later would be seen by the scoring and never by the audit.
        logits = None  # of the batch before: on a GPU two at a time would take gigabytes
        logits = slots.answer(slot)
        if watcher is not None and watcher.wants(index):
            watcher.take(index, logits)
        targets = windows.targets(index)
        part = nats(logits.reshape(-1, logits.shape[2])[: len(targets)], targets)
        if not math.isfinite(part):
            raise RunFailed(Failure.NOT_FINITE, f"the model's logits are not finite (batch {index})")
        total += part
        on_batch(place)
    return total
