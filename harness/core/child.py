"""A launched process tree: its capped output, its CPU time, what it takes, and a kill that leaves nothing behind.

Counted exactly by a control group of its own where one can be made (cgroup.py), else sampled from /proc.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import psutil

from harness.core.cgroup import Cgroup, find_parent
from harness.core.failures import Failure, RunFailed
from harness.core.guard import descendants, kill_descendants, kill_user
from harness.core.limits import Limits
from harness.core.printed import Printed

KILL_SECONDS = 10.0
LIMITS_SECONDS = 0.5  # how often memory and processes are looked at
SCRATCH_SECONDS = 5.0  # how often the scratch folder is; thousands of small files take milliseconds to add up


class Child:
    """One process tree in `folder`, started pinned to `cpus`. `printed` holds its output, at most `output_bytes`.

    `user` is the user id that it takes on, if it has one of its own.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], folder: Path, output: Path, output_bytes: int,
        cpus: Sequence[int] | None = None, limits: Limits | None = None, user: int | None = None,
    ) -> None:  # fmt: skip
        self._folder = folder
        self._limits = limits
        self._user = user
        self._cgroup = new_cgroup(limits)
        if self._cgroup is not None:
            command = self._cgroup.command(command)
        self._next_look = self._next_scratch_look = time.monotonic()
        self.printed = Printed(output, output_bytes)
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
        self.printed.add(data)
        return bool(data)

    def exit_status(self) -> int | None:
        """The exit status; negative for a signal; None while it runs."""
        return self._process.poll()

    def cpu_seconds(self) -> float:
        """CPU time of the whole tree so far; it never falls. Resolution 10 ms a process, exact in a control group.

        Sampled, the larger of two lower bounds counts: the living with their waited-for children, and the last that
        was seen of every process, which keeps those whose parent never waited for them.
        """
        exact = self._cgroup.cpu_seconds() if self._cgroup is not None else None
        if exact is not None:
            self._cpu_seconds = max(self._cpu_seconds, exact)
            return self._cpu_seconds
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

    def cpu_by_process(self) -> list[tuple[tuple[int, float], str, float]]:
        """Every living process: its id and when it began, its name, and its own CPU seconds in ticks of 10 ms."""
        found = []
        for process in self._tree():
            try:
                times, key = process.cpu_times(), (process.pid, process.create_time())
                found.append((key, process.name(), times.user + times.system))
            except psutil.Error:
                continue
        return found

    def memory_bytes(self) -> int:
        """Memory of the whole tree. Sampled, it is resident memory; pages shared between processes count in each."""
        exact = self._cgroup.memory_bytes() if self._cgroup is not None else None
        if exact is not None:
            return exact
        total = 0
        for process in self._tree():
            try:
                total += process.memory_info().rss
            except psutil.Error:
                continue
        return total

    def tasks(self) -> int:
        """Processes and threads of the whole tree."""
        exact = self._cgroup.tasks() if self._cgroup is not None else None
        return sum(map(_threads, self._pids())) if exact is None else exact

    def check_limits(self) -> None:
        """Raises RunFailed for a tree past its limits. Looks only every so often, so it may be called at any time."""
        limits, now = self._limits, time.monotonic()
        if limits is None or now < self._next_look:
            return
        self._next_look = now + LIMITS_SECONDS
        tasks = self.tasks()
        if tasks > limits.tasks or (self._cgroup is not None and self._cgroup.refused_forks()):
            message = f"it started more than the {limits.tasks:,} processes and threads that are allowed"
            raise RunFailed(Failure.PROCESS_CAP, message)
        if self.memory_bytes() > limits.memory_bytes or (self._cgroup is not None and self._cgroup.ran_out_of_memory()):
            raise RunFailed(Failure.MEMORY_CAP, f"it took more than {limits.memory_bytes:,} bytes of memory")
        if now >= self._next_scratch_look:
            self._next_scratch_look = now + SCRATCH_SECONDS
            written = _folder_bytes(self._folder)
            if written > limits.scratch_bytes:
                message = f"it keeps {written:,} bytes in its scratch folder; {limits.scratch_bytes:,} are allowed"
                raise RunFailed(Failure.DISK_CAP, message)

    def kill(self) -> None:
        """Ends the whole tree and waits for it. Safe to call twice."""
        if self._process.poll() is None:
            if self._cgroup is not None:
                self._cgroup.kill()
            # Bubblewrap's namespace dies with bubblewrap. The guard kills what it guards, and is helped from here,
            # where no crowd of processes shares the core.
            self._process.send_signal(signal.SIGTERM)
            kill_descendants(self._process.pid, self._user, KILL_SECONDS)
            try:
                self._process.wait(KILL_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        else:
            self._kill_orphans()
        if self._cgroup is not None:
            self.cpu_seconds()  # the last reading; it stays after the group is gone
            self._cgroup.kill()
            self._cgroup.remove()

    def _kill_orphans(self) -> None:
        """Ends what outlived its guard, which a script on the lowest rung can kill: all that was ever seen of it."""
        if self._user is not None:
            kill_user(self._user)
        for pid, began in self._seen:
            try:
                process = psutil.Process(pid)
                if process.create_time() == began:
                    process.kill()
            except psutil.Error:
                continue  # ended, as nearly all have

    def close(self) -> None:
        """Ends the tree, takes its last output and closes its files."""
        self.kill()
        while not self._pipe.closed and self._drainable() and self.pump_output():
            pass
        self._pipe.close()
        self.printed.close()
        if self.exit_descriptor >= 0:
            os.close(self.exit_descriptor)
            self.exit_descriptor = -1

    def _drainable(self) -> bool:
        return bool(select.select([self._pipe], [], [], 0)[0])

    def _pids(self) -> list[int]:
        """The process and its descendants; of a crowd past its limit only the first, and one more than allowed."""
        below = descendants(self._process.pid)
        return [self._process.pid, *islice(below, self._limits.tasks if self._limits is not None else None)]

    def _tree(self) -> list[psutil.Process]:
        found: list[psutil.Process] = []
        for pid in self._pids():
            try:
                found.append(psutil.Process(pid))
            except psutil.Error:
                continue  # it ended while we looked
        return found


def new_cgroup(limits: Limits | None) -> Cgroup | None:
    """A control group with these limits, None where none can be made."""
    parent = find_parent() if limits is not None else None
    if limits is None or parent is None:
        return None
    try:
        return Cgroup(parent, limits)
    except OSError:
        return None  # some hierarchies look writable and refuse; sampling takes over


def _threads(pid: int) -> int:
    try:
        return sum(1 for _ in Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return 0


def _folder_bytes(folder: Path) -> int:
    """Bytes that the files below a folder take on disk; links are not followed."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += Path(place, name).lstat().st_blocks * 512
            except OSError:
                continue  # removed while we looked
    return total


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
