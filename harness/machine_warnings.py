"""The closed list of warnings about a machine: an id, a sentence with the numbers, and a remedy. All pure."""

from __future__ import annotations

from dataclasses import dataclass

from harness.core.clock import BUSY_SHARE
from harness.core.task import HardwareClass
from harness.machine import MIB, Load, Machine

# Cores in use by others that already show in the clock: boost frequency and memory bandwidth are shared.
BUSY_SHARE_OF_CORES = 0.1
BUSY_CORES = 0.25
# Less than this is the kernel putting away idle pages: 256 reads of 4 KiB, some 25 ms on a solid-state disk.
SWAPPED_BYTES = MIB
# A script of the smallest task with torch takes about 1 GiB, the referee and the judge 300 MB each.
MEMORY_BYTES_PER_PROCESS = 2 * 1024 * MIB
# An idle GPU shows up to about 600 MiB of the driver's own.
GPU_USED_BYTES = 1024 * MIB
# The two clocks are read one after the other; only a suspended machine moves them apart by more than this.
CLOCKS_APART_SECONDS = 0.01

_LIST: dict[str, tuple[str, str]] = {
    "machine-busy": (
        "other work slows this machine: {what}",
        "end other programs or wait until they are done, then run again",
    ),
    "swapping": (
        "memory is being swapped: {swapped} moved",
        "end other programs that hold memory, or run on a machine with more",
    ),
    "other-processes-on-gpu": (
        "a GPU is in use by others: {what}; {used} of memory taken",
        "end what `nvidia-smi` lists, or wait until it is done",
    ),
    "clock-skew": (
        "the clock is not to be trusted: {what}",
        "keep the machine from suspending, and its clock synchronized, as by `timedatectl set-ntp true`",
    ),
    "governor-not-performance": (
        "the CPU frequency governor is {governor}, so speed follows load and heat",
        "`sudo cpupower frequency-set -g performance`",
    ),
    "few-cores": (
        "this process may use {allowed} of the {needed} cores that the run and its referee keep busy",
        "allow more cores (taskset, cgroup or container settings), or use a larger machine",
    ),
    "low-memory": (
        "{free} of memory is free, less than the {needed} a run may need",
        "end other programs that hold memory, or run on a machine with more",
    ),
    "no-sandbox": (
        "trust level {level}: the script is not fully kept from the rest of this machine; the run is no evidence",
        "`speedrun doctor` says what is missing and how to install it",
    ),
}
WARNING_IDS = tuple(_LIST)


@dataclass(frozen=True)
class MachineWarning:
    """One warning of the closed list, its numbers filled in."""

    id: str
    text: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.id}: {self.text}; remedy: {self.remedy}"


def warnings_before_run(
    machine: Machine, load: Load, hardware: HardwareClass, trust: str | None = None
) -> list[MachineWarning]:
    """What to put right before a run is started. `trust` is the sandbox's level; None leaves it out."""
    found = []
    if load.other_cores > max(BUSY_CORES, BUSY_SHARE_OF_CORES * machine.logical_cores):
        # Not the load average: for a minute it still holds our own last run.
        names = ", ".join(f"{process.name} {process.cores:.2f}" for process in load.others) or "not visible"
        found.append(_warning("machine-busy", what=f"{load.other_cores:.2f} cores in use ({names})"))
    if load.swapped_bytes > SWAPPED_BYTES:
        found.append(_warning("swapping", swapped=size(load.swapped_bytes)))
    used = max(load.gpu_used_bytes, default=0)
    if hardware.device == "cuda" and (load.gpu_processes or used > GPU_USED_BYTES):
        what = ", ".join(load.gpu_processes) or "processes not visible from here"
        found.append(_warning("other-processes-on-gpu", what=what, used=size(used)))
    if load.clock_synchronized is False:
        found.append(_warning("clock-skew", what="not synchronized, so dates in the journal may be off"))
    if machine.governor not in (None, "performance"):
        found.append(_warning("governor-not-performance", governor=machine.governor))
    needed = (hardware.cores if hardware.device == "cpu" else hardware.devices) + 1
    if machine.allowed_cores < needed:
        found.append(_warning("few-cores", allowed=machine.allowed_cores, needed=needed))
    needed_bytes = hardware.devices * MEMORY_BYTES_PER_PROCESS
    free_bytes = min(load.free_bytes, machine.memory_bytes)
    if free_bytes < needed_bytes:
        found.append(_warning("low-memory", free=size(free_bytes), needed=size(needed_bytes)))
    if trust not in (None, "isolated"):
        found.append(_warning("no-sandbox", level=trust))
    return found


def warnings_after_run(
    *,
    wall_seconds: float,
    lost_seconds: float | None,
    cores: int,
    swapped_bytes: int = 0,
    clocks_apart_seconds: float = 0.0,
) -> list[MachineWarning]:
    """What disturbed the timed part of a run.

    `lost_seconds` is what others had of the run's CPUs, None where that is not counted; `cores` those it was to keep
    busy, 0 on a GPU class, where the time of CPUs says little. `swapped_bytes` is the difference of two
    `total_swapped_bytes()`, `clocks_apart_seconds` how far CLOCK_BOOTTIME moved from CLOCK_MONOTONIC.
    """
    found = []
    share = (lost_seconds or 0.0) / (cores * wall_seconds) if cores else 0.0
    if share > BUSY_SHARE:
        what = f"others had {share:.1%} of the time of the run's cores, where less than {BUSY_SHARE:.0%} is undisturbed"
        found.append(_warning("machine-busy", what=what))
    if swapped_bytes > SWAPPED_BYTES:
        found.append(_warning("swapping", swapped=size(swapped_bytes)))
    if abs(clocks_apart_seconds) > CLOCKS_APART_SECONDS:
        what = f"the machine was suspended for {clocks_apart_seconds:.2f} s"
        found.append(_warning("clock-skew", what=what))
    return found


def size(count: float) -> str:
    """Bytes for people: "512 MiB" below one GiB, "23.5 GiB" above."""
    return f"{count / MIB:.0f} MiB" if count < 1024 * MIB else f"{count / (1024 * MIB):.1f} GiB"


def _warning(name: str, **numbers: object) -> MachineWarning:
    sentence, remedy = _LIST[name]
    return MachineWarning(name, sentence.format(**numbers), remedy)
