"""The memory that model host and judge share: tokens go one way, logits come back."""

from __future__ import annotations

import fcntl
import mmap
import os
from typing import Any

import numpy as np


class Slots:
    """Slots in shared host memory: each has tokens [B, T] int64 and logits [B, T, V] float32.

    The host may write at any time. So the judge looks at private copies only: `answer` and `rows` make them.
    """

    descriptors: list[int]  # what the other process needs to open the same memory
    dtype = "float32"

    def __init__(self, descriptor: int, count: int, batch: int, length: int, columns: int) -> None:
        size = slot_bytes(batch, length, columns)
        self.descriptors = [descriptor]
        self._map = mmap.mmap(descriptor, count * size)
        tokens_bytes = batch * length * 8
        self.tokens: list[np.ndarray] = []
        self.logits: list[Any] = []  # of arrays here, of tensors on a GPU (gpu_slots.py)
        for slot in range(count):
            raw = np.frombuffer(self._map, np.uint8, size, slot * size)
            self.tokens.append(raw[:tokens_bytes].view(np.int64).reshape(batch, length))
            self.logits.append(raw[tokens_bytes:].view(np.float32).reshape(batch, length, columns))

    def answer(self, slot: int) -> Any:
        """A private copy of a slot's logits, where they are scored: [B, T, V]."""
        return self.logits[slot].copy()

    def rows(self, slot: int, row: int, count: int) -> Any:
        """A private copy of the first `count` positions of a row's logits, where they are scored: [count, V]."""
        return self.logits[slot][row, :count].copy()


def slot_bytes(batch: int, length: int, columns: int) -> int:
    """Bytes of one slot in host memory."""
    return batch * length * (8 + 4 * columns)


def sealed_memory(size: int) -> int:
    """The descriptor of `size` bytes to share. A host that could shrink them would make reading them fatal."""
    descriptor = os.memfd_create("slots", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, size)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return descriptor
