"""A launched process tree: its capped output, its CPU time and memory, and a kill that leaves nothing behind."""

from __future__ import annotations

import os
import select
import signal
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

TAIL_LINES = 20
TAIL_BYTES = 8192
KILL_SECONDS = 10.0
CHILDREN_FILES = Path("/proc/thread-self/children").exists()  # a kernel option, on in the usual distributions


class Child:
    """One process tree, started pinned to `cpus`. Its output goes to a file of at most `output_bytes`."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], folder: Path, output: Path,
        output_bytes: int, cpus: Sequence[int] | None = None,
    ) -> None:  # fmt: skip
        self._file = output.open("wb")
        self._room = output_bytes
        self._tail = b""
        self.output_truncated = False
        self._seen: dict[tuple[int, float], float] = {}
        self._cpu_seconds = 0.0
        with _affinity(cpus):
            self._process = subprocess.Popen(
                list(command), env=dict(environment), cwd=folder, stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        assert self._process.stdout is not None
        self._pipe = self._process.stdout
        os.set_blocking(self._pipe.fileno(), False)
        self.exit_descriptor = os.pidfd_open(self._process.pid)

    @property
    def output_descriptor(self) -> int:
        return self._pipe.fileno()

    def pump_output(self) -> bool:
        """Takes what the child has printed; False at its end. Past the cap it is read and thrown away."""
        try:
            data = os.read(self._pipe.fileno(), 1 << 16)
        except BlockingIOError:
            return True
        kept = data[: self._room]
        self._file.write(kept)
        self._room -= len(kept)
        self.output_truncated |= len(kept) < len(data)
        self._tail = (self._tail + data)[-TAIL_BYTES:]
        return bool(data)

    def tail(self) -> str:
        """The last lines it printed."""
        lines = self._tail.decode(errors="replace").strip().splitlines()
        return "\n".join(lines[-TAIL_LINES:])

    def exit_status(self) -> int | None:
        """The exit status; negative for a signal; None while it runs."""
        return self._process.poll()

    def cpu_seconds(self) -> float:
        """CPU time of the whole tree so far; it never falls. Resolution 10 ms a process.

        Two lower bounds, the larger counts: the living with their waited-for children, and the last that was
        seen of every process, which keeps those whose parent never waited for them.
        """
        living = 0.0
        for process in self._tree():
            try:
                times, key = process.cpu_times(), (process.pid, process.create_time())
            except psutil.Error:
                continue
            self._seen[key] = times.user + times.system
            living += times.user + times.system + times.children_user + times.children_system
        self._cpu_seconds = max(self._cpu_seconds, living, sum(self._seen.values()))
        return self._cpu_seconds

    def memory_bytes(self) -> int:
        """Resident memory of the whole tree; pages shared between its processes count in each."""
        total = 0
        for process in self._tree():
            try:
                total += process.memory_info().rss
            except psutil.Error:
                continue
        return total

    def kill(self) -> None:
        """Ends the whole tree and waits for it. Safe to call twice."""
        if self._process.poll() is None:
            # The guard kills what it guards on SIGTERM; bubblewrap's namespace dies with bubblewrap.
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(KILL_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def close(self) -> None:
        """Ends the tree, takes its last output and closes its files."""
        self.kill()
        while not self._pipe.closed and self._drainable() and self.pump_output():
            pass
        self._pipe.close()
        self._file.close()
        if self.exit_descriptor >= 0:
            os.close(self.exit_descriptor)
            self.exit_descriptor = -1

    def _drainable(self) -> bool:
        return bool(select.select([self._pipe], [], [], 0)[0])

    def _tree(self) -> list[psutil.Process]:
        """The process and its descendants; 0.4 ms. Asking psutil reads every process of the machine, 3 ms here."""
        if not CHILDREN_FILES:
            try:
                return [psutil.Process(self._process.pid), *psutil.Process(self._process.pid).children(recursive=True)]
            except psutil.Error:
                return []
        found: list[psutil.Process] = []
        pids = [self._process.pid]
        while pids:
            pid = pids.pop()
            try:
                found.append(psutil.Process(pid))
                for task in Path(f"/proc/{pid}/task").iterdir():
                    pids += map(int, (task / "children").read_text().split())
            except (psutil.Error, OSError):
                continue  # it ended while we looked
        return found


@contextmanager
def _affinity(cpus: Sequence[int] | None) -> Iterator[None]:
    """Sets this thread's CPUs for what it starts meanwhile: a child inherits them."""
    if cpus is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def pinned_process(cpus: Sequence[int]) -> Iterator[None]:
    """Keeps all threads of this process on `cpus` meanwhile: the referee must not take time on the run's own core."""
    before = os.sched_getaffinity(0)
    _pin_threads(cpus)
    try:
        yield
    finally:
        _pin_threads(before)


def _pin_threads(cpus: Iterable[int]) -> None:
    for thread in Path("/proc/self/task").iterdir():
        try:
            os.sched_setaffinity(int(thread.name), cpus)
        except ProcessLookupError:
            continue  # it ended meanwhile


def split_cpus(cores: int) -> tuple[list[int], list[int]]:
    """CPUs for the run and for everything else: the last `cores` allowed ones, and the others (or the same)."""
    allowed = sorted(os.sched_getaffinity(0))
    mine = allowed[-cores:]
    return mine, allowed[: len(allowed) - len(mine)] or allowed
