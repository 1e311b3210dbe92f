"""How much memory can be taken before the kernel kills somebody for it: the machine's, or a control group's."""

from __future__ import annotations

from pathlib import Path

import psutil

from harness.core.cgroup import containing_groups

CGROUPS = Path("/sys/fs/cgroup")
# Limit, usage, and the entry of memory.stat with the file cache that is given up first: version 2, version 1.
NAMES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def free_memory() -> int:
    """Bytes free on this machine, or in the tightest control group that this process is in."""
    membership = Path("/proc/self/cgroup")
    text = membership.read_text() if membership.exists() else ""
    return min([psutil.virtual_memory().available, *group_rooms(CGROUPS, text)])


def group_rooms(root: Path, membership: str) -> list[int]:
    """Bytes left in each control group with a limit. `root`: where they are mounted; see `containing_groups`."""
    rooms = []
    for folder in containing_groups("memory", root, membership):
        for limit_name, usage_name, cache_name in NAMES:
            limit, usage = _number(folder / limit_name), _number(folder / usage_name)
            if limit is not None and usage is not None:
                rooms.append(max(0, limit - usage + _entry(folder / "memory.stat", cache_name)))
    return rooms


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None  # no such file in this version, or "max"


def _entry(file: Path, key: str) -> int:
    try:
        return int(dict(line.split() for line in file.read_text().splitlines())[key])
    except (OSError, ValueError, KeyError):
        return 0
