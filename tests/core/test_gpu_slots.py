"""Logits in memory that two processes share on a GPU: with the real driver where there is one, else with a toy driver.

The toy driver has the calls of cuda.bindings.driver and their answers. Its allocations are files in memory, so what one
mapping writes the other reads, as on a GPU.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from harness.core.scoring import SLOTS, Windows, nats, score
from harness.core.slots import Slots, sealed_memory, slot_bytes
from tests.conftest import needs_gpu

torch = pytest.importorskip("torch")
pytest.importorskip("triton")
from harness.core import gpu_memory, gpu_nats, gpu_slots, model_host  # noqa: E402

SHAPE = (3, 7, 64)  # batch, length, columns
UNIT = 4096


class ToyDriver:
    """Allocations by handle, mappings by address. `refuses` names a call that fails."""

    def __init__(self) -> None:
        self.refuses = ""
        self.made: list[int] = []
        self.released: list[int] = []
        self.calls: list[str] = []
        self._maps: list[Any] = []
        self.CUmemAllocationProp = lambda: SimpleNamespace(location=SimpleNamespace())
        self.CUmemAccessDesc = SimpleNamespace
        self.CUmemAccess_flags = SimpleNamespace(CU_MEM_ACCESS_FLAGS_PROT_READWRITE=3)
        self.CUmemAllocationGranularity_flags = SimpleNamespace(CU_MEM_ALLOC_GRANULARITY_MINIMUM=0)
        self.CUmemAllocationType = SimpleNamespace(CU_MEM_ALLOCATION_TYPE_PINNED=1)
        self.CUmemAllocationHandleType = SimpleNamespace(CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR=1)
        self.CUmemLocationType = SimpleNamespace(CU_MEM_LOCATION_TYPE_DEVICE=1)

    def __getattr__(self, name: str) -> Any:
        own = object.__getattribute__(self, name.replace("cu", "do_", 1))

        def call(*arguments: Any) -> tuple[Any, ...]:
            self.calls.append(name)
            if name == self.refuses:
                return (2, None)  # CUDA_ERROR_OUT_OF_MEMORY
            value = own(*arguments)
            return (0,) if value is None else (0, value)

        return call

    def do_MemGetAllocationGranularity(self, properties: Any, option: int) -> int:
        assert (properties.type, properties.requestedHandleTypes, properties.location.type) == (1, 1, 1)
        return UNIT

    def do_MemCreate(self, size: int, properties: Any, flags: int) -> int:
        assert size % UNIT == 0
        handle = os.memfd_create("toy")
        os.ftruncate(handle, size)
        self.made.append(handle)
        return handle

    def do_MemExportToShareableHandle(self, handle: int, kind: int, flags: int) -> int:
        return os.dup(handle)

    def do_MemImportFromShareableHandle(self, descriptor: int, kind: int) -> int:
        self.made.append(os.dup(descriptor))
        return self.made[-1]

    def do_MemAddressReserve(self, size: int, alignment: int, address: int, flags: int) -> SimpleNamespace | int:
        self._reserved = size
        return 1 << 40

    def do_MemMap(self, address: int, size: int, offset: int, handle: int, flags: int) -> None:
        assert size == self._reserved == os.fstat(handle).st_size
        self._maps.append(mmap.mmap(handle, size))

    def do_MemSetAccess(self, address: int, size: int, access: list[Any], count: int) -> None:
        assert access[0].flags == 3 and access[0].location.id == 0 and count == len(access)

    def do_MemUnmap(self, address: int, size: int) -> None:
        self._maps.pop()

    def do_MemRelease(self, handle: int) -> None:
        self.released.append(handle)

    def tensor(self, address: int, size: int) -> torch.Tensor:
        """The mapping made last, as gpu_memory makes a tensor of an address."""
        assert self.calls[-2:] == ["cuMemSetAccess", "cuMemRelease"]
        place = (ctypes.c_ubyte * size).from_buffer(self._maps[-1])
        return torch.frombuffer(place, dtype=torch.uint8)


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[ToyDriver]:
    toy = ToyDriver()
    monkeypatch.setattr(gpu_memory, "_driver", lambda: toy)
    monkeypatch.setattr(gpu_memory, "_device", lambda: 0)
    monkeypatch.setattr(gpu_memory, "_tensor", toy.tensor)
    monkeypatch.setattr(gpu_slots, "DEVICE", "cpu")
    monkeypatch.setattr(gpu_slots, "_pin", lambda memory: None)
    yield toy
    assert sorted(toy.released) == sorted(toy.made)


class Host:
    """Answers as a model host does, through its own mapping: the next token gets `value`."""

    def __init__(self, judges: Slots, value: float, dtype: torch.dtype) -> None:
        descriptors = [os.dup(descriptor) for descriptor in judges.descriptors]
        self._slots = gpu_slots.open_slots(descriptors, len(judges.tokens), *SHAPE, judges.dtype)
        self._value, self._dtype = value, dtype

    def forward(self, slot: int) -> None:
        following = torch.from_numpy((self._slots.tokens[slot] + 1) % SHAPE[2])
        logits = self._value * torch.nn.functional.one_hot(following, SHAPE[2]).to(self._dtype)
        model_host._put(logits, self._slots.logits[slot])

    def wait(self, slot: int) -> None:
        pass


def judged(value: float, dtype: torch.dtype) -> float:
    windows = Windows((np.arange(1001) % 50).astype(np.uint16), *SHAPE[:2], 0)
    slots, _ = gpu_slots.make_slots(SLOTS, *SHAPE, str(dtype).removeprefix("torch."))
    host = Host(slots, value, dtype)
    assert slots.logits[0].dtype in (torch.bfloat16, torch.float16, torch.float32, np.dtype("float32"))

    def summed(logits: torch.Tensor, targets: np.ndarray) -> float:
        return nats(logits.float().numpy(), targets)

    return score(host, slots, windows, range(windows.batches), nats=summed)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("refuses", ["", "cuMemExportToShareableHandle"], ids=["on-the-gpu", "through-host-memory"])
def test_the_loss_is_the_same_wherever_the_logits_lie(driver: ToyDriver, dtype: torch.dtype, refuses: str) -> None:
    driver.refuses = refuses
    windows = Windows((np.arange(1001) % 50).astype(np.uint16), *SHAPE[:2], 0)
    odds = np.log(1 + 63 * np.exp(-4.0))  # in nats, where the right token has 4 and each of 63 others 0
    right = windows.scored - windows.scored // 50  # 49 is followed by 0, which the host does not guess
    wrong = windows.scored - right
    assert judged(4.0, dtype) == pytest.approx(right * odds + wrong * (4.0 + odds), rel=1e-5)


def test_two_mappings_see_the_same_bytes_in_whole_units(driver: ToyDriver) -> None:
    here, descriptor = gpu_memory.GpuMemory.create(UNIT + 1)
    there = gpu_memory.GpuMemory.open(descriptor, UNIT + 1)
    assert here.bytes.shape == there.bytes.shape == (2 * UNIT,)
    there.bytes[UNIT] = 77
    assert here.bytes[UNIT] == 77


def test_what_the_judge_holds_does_not_change_when_the_host_writes_again(driver: ToyDriver) -> None:
    slots, detour = gpu_slots.make_slots(1, *SHAPE, "bfloat16")
    host = gpu_slots.open_slots(slots.descriptors, 1, *SHAPE, slots.dtype)
    host.logits[0].fill_(1.0)
    answer, rows = slots.answer(0), slots.rows(0, 2, 5)
    host.logits[0].fill_(2.0)
    assert detour is None
    assert (answer == 1).all() and (rows == 1).all() and rows.shape == (5, SHAPE[2])
    assert (slots.answer(0) == 2).all()


@pytest.mark.parametrize("call", ["cuMemCreate", "cuMemExportToShareableHandle", "cuMemMap", "cuMemSetAccess"])
def test_what_the_driver_refuses_is_the_reason_for_the_detour(driver: ToyDriver, call: str) -> None:
    driver.refuses = call
    slots, detour = gpu_slots.make_slots(1, *SHAPE, "bfloat16")
    assert detour is not None and detour.startswith(f"{call}: 2")
    assert isinstance(slots, gpu_slots.PinnedSlots) and len(slots.descriptors) == 1


def test_a_host_that_cannot_map_the_memory_says_why(driver: ToyDriver) -> None:
    slots, detour = gpu_slots.make_slots(1, *SHAPE, "bfloat16")
    driver.refuses = "cuMemImportFromShareableHandle"
    opened, refused = model_host._open("cuda", slots.descriptors, (1, *SHAPE), slots.dtype)
    assert detour is None and opened is None and refused.startswith("cuMemImportFromShareableHandle: 2")


def test_without_cuda_bindings_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_slots, "_pin", lambda memory: None)
    monkeypatch.setitem(__import__("sys").modules, "cuda.bindings", None)
    _, detour = gpu_slots.make_slots(1, *SHAPE, "float32")
    assert detour == "cuda-bindings is not installed: pip install cuda-bindings"


def test_slots_in_host_memory_give_private_copies_too() -> None:
    slots = Slots(sealed_memory(slot_bytes(*SHAPE)), 1, *SHAPE)
    answer, rows = slots.answer(0), slots.rows(0, 0, 3)
    slots.logits[0][:] = 5.0
    assert not answer.any() and not rows.any()


def test_the_driver_has_every_name_that_is_used() -> None:
    driver = pytest.importorskip("cuda.bindings.driver")
    toy = ToyDriver()
    for name, values in vars(toy).items():
        if name.startswith("CU"):
            assert all(hasattr(getattr(driver, name), value) for value in vars(values) if value.startswith("CU"))
    for name in [name for name in dir(ToyDriver) if name.startswith("do_")]:
        assert hasattr(driver, name.replace("do_", "cu"))
    properties, access = driver.CUmemAllocationProp(), driver.CUmemAccessDesc()
    properties.type = driver.CUmemAllocationType.CU_MEM_ALLOCATION_TYPE_PINNED
    properties.requestedHandleTypes = gpu_memory._posix(driver)
    properties.location.type = driver.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE
    properties.location.id = 3
    access.location = properties.location
    access.flags = driver.CUmemAccess_flags.CU_MEM_ACCESS_FLAGS_PROT_READWRITE
    assert access.location.id == 3


@pytest.mark.gpu
@needs_gpu
def test_a_batch_is_scored_where_the_gpu_holds_it() -> None:
    slots, detour = gpu_slots.make_slots(1, 8, 1024, 50_304, "bfloat16")
    assert detour is None
    host = gpu_slots.open_slots(slots.descriptors, 1, 8, 1024, 50_304, "bfloat16")
    host.logits[0].normal_()
    torch.cuda.synchronize()
    assert slots.answer(0).is_cuda and torch.equal(slots.logits[0], host.logits[0])
    targets = np.zeros(8 * 1024, np.uint16)
    expected = torch.nn.functional.cross_entropy(host.logits[0].flatten(0, 1).double(), torch.zeros(8192).long().cuda())
    assert gpu_nats.nats(slots.answer(0).flatten(0, 1), targets) / 8192 == pytest.approx(expected.item(), rel=1e-5)
