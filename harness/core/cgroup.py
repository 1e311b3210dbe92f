"""A control group (version 2) of its own for a process tree, where this process may make one.

Its numbers are exact and its kill reaches every process at once, however fast they fork. Where a group has no
memory or pids controller the caller samples those itself. Files: the kernel's Documentation/admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.core.limits import Limits

CONTROLLERS = {"memory", "pids"}
REMOVE_SECONDS = 5.0  # a killed process leaves its group when it is reaped, not before
ABANDONED_SECONDS = 1.0  # the same, for orphans that the system reaps
MEMORY_ROOM = 1.25  # the kernel's limit lies this much above ours, so that ours is seen first and named
NAME = re.compile(r"speedrun-(\d+)-(\d+)-[0-9a-f]{8}")


class Cgroup:
    """One group, made below `parent`, which must be writable. `kill` and `remove` are safe to call twice."""

    def __init__(self, parent: Path, limits: Limits) -> None:
        self.folder = parent / f"speedrun-{os.getpid()}-{process_began(os.getpid())}-{secrets.token_hex(4)}"
        self.folder.mkdir()
        self._set("memory.max", int(limits.memory_bytes * MEMORY_ROOM))
        self._set("memory.swap.max", 0)
        self._set("memory.oom.group", 1)
        # Room for the guard and the launcher, which are in the group too.
        self._set("pids.max", limits.tasks + 16)

    def command(self, command: Sequence[str]) -> list[str]:
        """The command line that enters the group and then is `command`: no process is ever outside it."""
        return ["/bin/sh", "-c", 'echo 0 >"$0" && exec "$@"', str(self.folder / "cgroup.procs"), *command]

    def cpu_seconds(self) -> float | None:
        """CPU time of everything that ever ran in it."""
        microseconds = self._entry("cpu.stat", "usage_usec")
        return None if microseconds is None else microseconds / 1e6

    def memory_bytes(self) -> int | None:
        """Memory charged to it: pages once, memory files and tmpfs too. None without the controller."""
        return self._number("memory.current")

    def tasks(self) -> int | None:
        """Processes and threads in it now. None without the controller."""
        return self._number("pids.current")

    def refused_forks(self) -> bool:
        """Whether a process could not be started because of the limit."""
        return bool(self._entry("pids.events", "max"))

    def ran_out_of_memory(self) -> bool:
        """Whether the kernel killed it for memory."""
        return bool(self._entry("memory.events", "oom_kill"))

    def kill(self) -> None:
        """Kills every process in it at once."""
        self._set("cgroup.kill", 1)

    def remove(self) -> None:
        """Takes the empty group away; waits a moment for the last process to leave."""
        _remove(self.folder, REMOVE_SECONDS)

    def _set(self, name: str, value: int) -> None:
        file = self.folder / name
        if file.exists():
            file.write_text(f"{value}\n")

    def _number(self, name: str) -> int | None:
        try:
            return int((self.folder / name).read_text())
        except (OSError, ValueError):
            return None

    def _entry(self, name: str, key: str) -> int | None:
        try:
            table = dict(line.split() for line in (self.folder / name).read_text().splitlines())
            return int(table[key])
        except (OSError, ValueError, KeyError):
            return None


def find_parent(mount: Path | None = None, own: str | None = None) -> Path | None:
    """Where a group can be made: of this process's group and those above it the first with both controllers,
    else the first that is writable at all, else None. `mount` and `own` are the mounted hierarchy and our path in it.
    """
    mount, own = mount or _mount(), own or _own_path()
    if mount is None or own is None:
        return None
    here = mount / own.strip("/")
    writable = [folder for folder in _upwards(here, mount) if os.access(folder / "cgroup.procs", os.W_OK)]
    full = [folder for folder in writable if _controllers(folder) >= CONTROLLERS]
    usable = [folder for folder in full or writable if os.access(folder, os.W_OK)]
    return usable[0] if usable else None


def containing_groups(controller: str, root: Path, membership: str) -> list[Path]:
    """The groups whose limits on a controller apply, version 2 and 1: each one in `membership` and all above it.

    `root` is where hierarchies are mounted, `membership` the text of /proc/self/cgroup.
    """
    folders: list[Path] = []
    for row in membership.splitlines():
        number, _, rest = row.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" or controller in controllers.split(","):
            top = root if number == "0" else root / controller
            own = top / path.strip("/")
            folders += [folder for folder in (own, *own.parents) if folder.is_relative_to(top)]
    return folders


def _controllers(folder: Path) -> set[str]:
    try:
        return set((folder / "cgroup.subtree_control").read_text().split())
    except OSError:
        return set()


def _upwards(folder: Path, top: Path) -> Iterable[Path]:
    yield folder
    while folder != top and top in folder.parents:
        folder = folder.parent
        yield folder


def _mount() -> Path | None:
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        fields, _, kind = line.partition(" - ")
        if kind.split()[0] == "cgroup2":
            return Path(fields.split()[4])
    return None


def _own_path() -> str | None:
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    return next((line[3:] for line in lines if line.startswith("0::")), None)


def remove_abandoned(parent: Path | None = None) -> None:
    """Removes the empty groups of this user whose maker is gone. A killed referee leaves its own, and what ran in it
    has ended with it: the guard and bubblewrap see to that.
    """
    parent = parent or find_parent()
    for folder in parent.glob("speedrun-*") if parent is not None else ():
        match = NAME.fullmatch(folder.name)
        try:
            if match and process_began(int(match[1])) != int(match[2]) and folder.stat().st_uid == os.geteuid():
                _remove(folder, ABANDONED_SECONDS)
        except OSError:
            continue  # another process was faster


def _remove(folder: Path, seconds: float) -> None:
    """Removes a group when it is empty; leaves one that does not get empty in that time."""
    deadline = time.monotonic() + seconds
    while folder.exists():
        try:
            folder.rmdir()
        except OSError:
            if time.monotonic() > deadline:
                return
            time.sleep(0.01)


def process_began(pid: int) -> int | None:
    """When a process began, in clock ticks since boot: with its id it names one process. None if it has ended."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state == "Z" else int(fields[18])
