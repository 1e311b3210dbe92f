"""What the GPU benchmarks share: the device, its data sheet, and the time of a call on it."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class DataSheet:
    """What the maker states: dense bfloat16 operations and bytes of memory traffic, a second."""

    bf16_flops: float
    memory_bytes: float


# https://www.nvidia.com/en-us/data-center/h100/ and .../h200/, SXM; dense, which is half of what is printed large.
DATA_SHEETS = {
    "NVIDIA H100 80GB HBM3": DataSheet(989.4e12, 3.35e12),
    "NVIDIA H200": DataSheet(989.4e12, 4.8e12),
}


def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def device_name() -> str:
    return torch.cuda.get_device_name() if device() == "cuda" else platform.processor() or "CPU"


def data_sheet() -> DataSheet | None:
    return DATA_SHEETS.get(device_name())


def heading(title: str, tiny: bool) -> str:
    """Where and with what a table was made, on top of it."""
    made_up = "\n\n**Tiny shapes, made to see that the script works: these numbers say nothing.**" if tiny else ""
    return f"# {title}\n\n{device_name()}, torch {torch.__version__}.{made_up}\n"


def milliseconds(call: Callable[[], object], rounds: int) -> float:
    """The median time of a call after three that are not counted."""
    for _ in range(3 if rounds > 3 else 1):
        call()
    return statistics.median(_timed(call) for _ in range(rounds))


def _timed(call: Callable[[], object]) -> float:
    if device() == "cpu":
        began = time.perf_counter()
        call()
        return 1e3 * (time.perf_counter() - began)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.empty(64 << 20, dtype=torch.uint8, device="cuda").zero_()  # the caches hold nothing of the last round
    start.record()
    call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end)


def share(value: float, limit: float | None) -> str:
    """A value as a percentage of a limit, where the limit is known."""
    return "no data sheet" if limit is None else f"{value / limit:.1%}"
