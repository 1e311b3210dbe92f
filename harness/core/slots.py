"""The shared memory between model host and judge."""

from __future__ import annotations

import mmap

import numpy as np


class Slots:
    """The shared memory between host and judge: each slot has tokens [B, T] int64 and logits [B, T, V] float32."""

    def __init__(self, descriptor: int, count: int, batch: int, length: int, columns: int) -> None:
        size = slot_bytes(batch, length, columns)
        self._map = mmap.mmap(descriptor, count * size)
        tokens_bytes = batch * length * 8
        self.tokens = []
        self.logits = []
        for slot in range(count):
            raw = np.frombuffer(self._map, np.uint8, size, slot * size)
            self.tokens.append(raw[:tokens_bytes].view(np.int64).reshape(batch, length))
            self.logits.append(raw[tokens_bytes:].view(np.float32).reshape(batch, length, columns))


def slot_bytes(batch: int, length: int, columns: int) -> int:
    """Bytes of one slot."""
    return batch * length * (8 + 4 * columns)
