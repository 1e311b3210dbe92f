"""Which processes of a run still compute at the seal, when an honest one has nothing left to do.

Between the seal and the referee's answer every rank waits in `run.finish`. Who uses CPU time then works on something
that the clock no longer sees: it is named, for a person to look at. The clock has stopped, so watching costs nothing.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from harness.core.child import Child
from harness.core.protocol import plain_text

WATCH_SECONDS = 0.3
MIN_SECONDS = 0.02  # CPU time is counted in ticks of 10 ms; one of them falls to whoever wakes at the wrong moment
MIN_SHARE = 0.05  # of a longer watch: launchers and watchdogs poll, at a percent or two of a core
MAX_NAMED = 10
NAME_CHARACTERS = 100


@dataclass(frozen=True)
class StillComputing:
    """One process, its id as the referee saw it, and the CPU seconds it used while it was watched."""

    pid: int
    name: str
    cpu_seconds: float


class Watch:
    """Begins when it is made; `end` names who computed meanwhile, the busiest first."""

    def __init__(self, child: Child) -> None:
        self._child = child
        self._began = time.monotonic()
        self._before = {key: seconds for key, _, seconds in child.cpu_by_process()}

    def end(self) -> list[StillComputing]:
        """Waits until the watch was long enough."""
        time.sleep(max(0.0, self._began + WATCH_SECONDS - time.monotonic()))
        least = max(MIN_SECONDS, MIN_SHARE * (time.monotonic() - self._began))
        found = [
            StillComputing(key[0], plain_text(name, NAME_CHARACTERS), round(seconds - self._before.get(key, 0.0), 3))
            for key, name, seconds in self._child.cpu_by_process()
        ]
        busy = [process for process in found if process.cpu_seconds >= least]
        return sorted(busy, key=lambda process: -process.cpu_seconds)[:MAX_NAMED]
