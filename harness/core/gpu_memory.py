"""GPU memory that two processes map, through the CUDA driver's virtual memory API.

Only a descriptor crosses between them, so it works from inside a sandbox and, unlike CUDA's own handles for
interprocess use, without both processes seeing each other. `cuda-bindings` gives the calls.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch


class NoGpuMemory(Exception):
    """GPU memory cannot be shared here; the text says why."""


class GpuMemory:
    """Bytes on the current GPU that another process can map too."""

    def __init__(self, handle: Any, size: int) -> None:
        """Maps an allocation of `size` bytes. Raises NoGpuMemory."""
        driver = _driver()
        properties, access = _properties(driver), driver.CUmemAccessDesc()
        access.location = properties.location  # belongs to the properties, and is gone with them
        access.flags = driver.CUmemAccess_flags.CU_MEM_ACCESS_FLAGS_PROT_READWRITE
        try:
            address = _call("cuMemAddressReserve", size, 0, 0, 0)
            _call("cuMemMap", address, size, 0, handle, 0)
            try:
                _call("cuMemSetAccess", address, size, [access], 1)
            except NoGpuMemory:
                _call("cuMemUnmap", address, size)
                raise
        finally:
            _call("cuMemRelease", handle)  # a mapping holds it from here on
        self.bytes = _tensor(int(address), size)  # uint8 [size]; unmapped when the process ends

    @classmethod
    def create(cls, size: int) -> tuple[GpuMemory, int]:
        """At least `size` new bytes and the descriptor to open them with. Raises NoGpuMemory."""
        driver = _driver()
        size = _rounded(driver, size)
        handle = _call("cuMemCreate", size, _properties(driver), 0)
        try:
            descriptor = int(_call("cuMemExportToShareableHandle", handle, _posix(driver), 0))
        except NoGpuMemory:
            _call("cuMemRelease", handle)
            raise
        try:
            return cls(handle, size), descriptor
        except NoGpuMemory:
            os.close(descriptor)
            raise

    @classmethod
    def open(cls, descriptor: int, size: int) -> GpuMemory:
        """What another process created of the same size, by its descriptor. Raises NoGpuMemory."""
        driver = _driver()
        handle = _call("cuMemImportFromShareableHandle", descriptor, _posix(driver))
        return cls(handle, _rounded(driver, size))


@dataclass(frozen=True)
class _Bytes:
    """A piece of GPU memory as torch takes it over: CUDA's array interface."""

    address: int
    size: int

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {"shape": (self.size,), "typestr": "|u1", "data": (self.address, False), "version": 3}


def _tensor(address: int, size: int) -> torch.Tensor:
    tensor = torch.as_tensor(_Bytes(address, size), device="cuda")
    if tensor.data_ptr() != address:  # made on another GPU: torch copied it to the current one
        raise NoGpuMemory("the memory is another GPU's")
    return tensor


def pin(address: int, size: int) -> None:
    """Lets the GPU read host memory without a detour. Raises NoGpuMemory."""
    _device()
    _call("cuMemHostRegister", address, size, 0)


def _properties(driver: Any) -> Any:
    """Pinned memory of the current GPU that can be exported as a descriptor."""
    properties = driver.CUmemAllocationProp()
    properties.type = driver.CUmemAllocationType.CU_MEM_ALLOCATION_TYPE_PINNED
    properties.requestedHandleTypes = _posix(driver)
    properties.location.type = driver.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE
    properties.location.id = _device()
    return properties


def _device() -> int:
    torch.cuda.synchronize()  # makes the driver's context, where there is none yet
    return torch.cuda.current_device()


def _rounded(driver: Any, size: int) -> int:
    """The multiple of what an allocation may have that holds `size` bytes."""
    minimum = driver.CUmemAllocationGranularity_flags.CU_MEM_ALLOC_GRANULARITY_MINIMUM
    unit = _call("cuMemGetAllocationGranularity", _properties(driver), minimum)
    return -(-size // unit) * unit


def _posix(driver: Any) -> Any:
    return driver.CUmemAllocationHandleType.CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR


def _driver() -> Any:
    try:
        from cuda.bindings import driver
    except ImportError:
        raise NoGpuMemory("cuda-bindings is not installed: pip install cuda-bindings") from None
    return driver


def _call(name: str, *arguments: Any) -> Any:
    """Calls the driver; its answer is an error code and at most one value."""
    try:
        error, *values = getattr(_driver(), name)(*arguments)
    except RuntimeError as failed:  # no libcuda, or one without this call
        raise NoGpuMemory(f"{name}: {failed}") from None
    if int(error) != 0:
        raise NoGpuMemory(f"{name}: {getattr(error, 'name', error)}")
    return values[0] if values else None
