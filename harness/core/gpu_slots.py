"""Slots whose logits are scored on a GPU. Imported only where the hardware class has GPUs: it needs torch.

The validation logits of FineWeb are 1 TB: they should not leave the GPU. `GpuSlots` keep them there. Where GPU memory
cannot be shared, `PinnedSlots` bring every batch through host memory, at the speed of the bus.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import numpy as np
import torch

from harness.core.gpu_memory import GpuMemory, NoGpuMemory, pin
from harness.core.slots import Slots, sealed_memory, slot_bytes

DEVICE = "cuda"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class GpuSlots(Slots):
    """Tokens [B, T] int64 in shared host memory, logits [B, T, V] of the model's own dtype in shared GPU memory."""

    def __init__(
        self,
        descriptors: Sequence[int],
        memory: GpuMemory,
        dtype: str,
        count: int,
        batch: int,
        length: int,
        columns: int,
    ) -> None:
        super().__init__(descriptors[0], count, batch, length, 0)
        self.descriptors, self.dtype = list(descriptors), dtype
        size = count * _logits_bytes(batch, length, columns, dtype)
        self.logits = list(memory.bytes[:size].view(DTYPES[dtype]).view(count, batch, length, columns))

    def answer(self, slot: int) -> torch.Tensor:
        """A private copy of a slot's logits, on the GPU."""
        return self.logits[slot].clone()

    def rows(self, slot: int, row: int, count: int) -> torch.Tensor:
        return self.logits[slot][row, :count].clone()


class PinnedSlots(Slots):
    """Slots in host memory that the GPU reads without a detour."""

    def __init__(self, descriptor: int, count: int, batch: int, length: int, columns: int) -> None:
        super().__init__(descriptor, count, batch, length, columns)
        _pin(np.frombuffer(self._map, np.uint8))

    def answer(self, slot: int) -> torch.Tensor:
        """A private copy of a slot's logits, on the GPU."""
        return torch.from_numpy(self.logits[slot]).to(DEVICE, copy=True)

    def rows(self, slot: int, row: int, count: int) -> torch.Tensor:
        return torch.from_numpy(self.logits[slot][row, :count]).to(DEVICE, copy=True)


def make_slots(count: int, batch: int, length: int, columns: int, dtype: str) -> tuple[Slots, str | None]:
    """The judge's side; beside the slots why the logits cannot stay on the GPU, if they cannot."""
    dtype = dtype if dtype in DTYPES else Slots.dtype
    try:
        memory, logits = GpuMemory.create(count * _logits_bytes(batch, length, columns, dtype))
    except NoGpuMemory as reason:
        return host_memory(count, batch, length, columns), str(reason)
    descriptors = [sealed_memory(count * slot_bytes(batch, length, 0)), logits]
    return GpuSlots(descriptors, memory, dtype, count, batch, length, columns), None


def host_memory(count: int, batch: int, length: int, columns: int) -> Slots:
    """The judge's side where the logits cannot stay on the GPU."""
    return PinnedSlots(sealed_memory(count * slot_bytes(batch, length, columns)), count, batch, length, columns)


def open_slots(descriptors: Sequence[int], count: int, batch: int, length: int, columns: int, dtype: str) -> Slots:
    """The host's side of what `make_slots` made. Raises NoGpuMemory."""
    if len(descriptors) == 1:
        return PinnedSlots(descriptors[0], count, batch, length, columns)
    memory = GpuMemory.open(descriptors[1], count * _logits_bytes(batch, length, columns, dtype))
    return GpuSlots(descriptors, memory, dtype, count, batch, length, columns)


def _pin(memory: np.ndarray) -> None:
    with suppress(NoGpuMemory):  # slower yet
        pin(memory.ctypes.data, memory.nbytes)


def _logits_bytes(batch: int, length: int, columns: int, dtype: str) -> int:
    return batch * length * columns * DTYPES[dtype].itemsize
