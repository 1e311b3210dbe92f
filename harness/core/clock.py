"""The clock of a run, and what tells whether its time was a fair one.

It is CLOCK_MONOTONIC_RAW: CLOCK_MONOTONIC is slewed while the date is being corrected, by chrony by up to 8%.
A run that is slow because it idles and a run that is slow because something else had its core both take more
wall-clock than CPU time. Only the second is not its own affair, so the kernel's counters of the run's CPUs are read
as well: time that was neither idle nor the run's own was somebody else's.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

STAT = Path("/proc/stat")
BUSY_SHARE = 0.03  # of the time of its CPUs that others may have had before a run counts as disturbed
BLAMED_SHARE = 0.5  # from which on its time-out is theirs: caps are many times what a run takes
IDLE, WAITING_FOR_DISK, STOLEN = 3, 4, 7  # columns of a cpuN line, proc_stat(5)


@dataclass(frozen=True)
class Counters:
    """Seconds since boot, over some CPUs: idle, and taken by a hypervisor for its other guests."""

    idle: float
    stolen: float


@dataclass(frozen=True)
class Timing:
    """A run on the clock, in seconds. `cpu`: of its whole process tree. `suspended`: the machine slept.

    `lost`: neither idle nor the run's own, over all CPUs of the run; also while the machine as a whole stood still:
    the clock goes on and the counters do not. `stolen`: of these, what a hypervisor took. None: nothing is counted.
    """

    wall: float
    cpu: float
    suspended: float
    lost: float | None
    stolen: float | None


class Clock:
    """Runs from its making on. The clock is read last then, and first in `read`."""

    def __init__(self, cpus: Sequence[int], cpu_seconds: Callable[[], float]) -> None:
        """`cpus`: those of the run; `cpu_seconds` answers the CPU time of the run's process tree so far."""
        self._cpus, self._cpu_seconds = cpus, cpu_seconds
        self._cpu, self._counters, self._suspended = cpu_seconds(), read_counters(cpus), suspended()
        self._start = nanoseconds()

    def read(self) -> Timing:
        """The run so far."""
        wall = (nanoseconds() - self._start) / 1e9
        counters = read_counters(self._cpus)
        cpu = self._cpu_seconds() - self._cpu
        lost = stolen = None
        if counters is not None and self._counters is not None:
            lost = max(0.0, len(self._cpus) * wall - (counters.idle - self._counters.idle) - cpu)
            stolen = max(0.0, counters.stolen - self._counters.stolen)
        slept = suspended() - self._suspended
        return Timing(wall, round(cpu, 3), round(slept, 3), lost and round(lost, 3), stolen and round(stolen, 3))

    def share_lost(self) -> float:
        """Of the time of the run's CPUs so far; 0 where nothing is counted."""
        timing = self.read()
        return (timing.lost or 0.0) / (len(self._cpus) * timing.wall)


def nanoseconds() -> int:
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)


def read_counters(cpus: Sequence[int], stat: Path = STAT) -> Counters | None:
    """The counters of these CPUs; None where the kernel shows none, or not of each."""
    try:
        lines = [line.split() for line in stat.read_text().splitlines() if line.startswith("cpu")]
        rows = {name: [int(number) for number in numbers] for name, *numbers in lines}
        counted = [rows[f"cpu{cpu}"] for cpu in cpus]
        idle = sum(row[IDLE] + row[WAITING_FOR_DISK] for row in counted)
        stolen = sum(row[STOLEN] for row in counted)
    except (OSError, ValueError, LookupError):
        return None
    ticks = os.sysconf("SC_CLK_TCK")
    return Counters(idle / ticks, stolen / ticks)


def suspended() -> float:
    """Seconds this machine has slept since boot: CLOCK_BOOTTIME counts them, CLOCK_MONOTONIC does not."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)
