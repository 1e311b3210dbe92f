"""The guard: runs a command and makes sure that nothing of it outlives the run, where no PID namespace can.

`python -m harness.core.guard PARENT USER COMMAND...`, PARENT being the process id to end with and USER the user id
that the command takes on, or -. It adopts orphans (child subreaper), is told by the kernel when its parent dies,
and kills every descendant before it ends, with the command's own exit status.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import psutil

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
CHILDREN_FILES = Path("/proc/thread-self/children").exists()  # a kernel option, on in the usual distributions
SHARED_MEMORY = Path("/dev/shm")
FEW = 10


def die_with_parent(parent: int, sign: int = signal.SIGKILL) -> None:
    """Asks the kernel to signal this process when its parent dies; ends it if that has happened already."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, sign, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def descendants(root: int) -> Iterator[int]:
    """Process ids below `root`, as they are found: whoever takes them may stop, for a crowd grows while it is read.

    0.4 ms for a few processes; asking psutil reads every process of the machine, 3 ms here.
    """
    if not CHILDREN_FILES:
        try:
            yield from (process.pid for process in psutil.Process(root).children(recursive=True))
        except psutil.Error:
            return
    parents = [root]
    while parents:
        parent = parents.pop()
        try:
            tasks = list(Path(f"/proc/{parent}/task").iterdir())
            children = [int(pid) for task in tasks for pid in (task / "children").read_text().split()]
        except OSError:
            continue  # it ended while we looked
        yield from children
        parents += children


def kill_descendants(root: int, user: int | None = None, seconds: float = float("inf")) -> None:
    """Kills every descendant, again until none is left: a process may fork while it is being killed.

    With the run's own `user` id the kernel kills all its processes in one act, which no fork can outrun.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if user is not None:
            kill_user(user)
        alive = 0
        for pid in descendants(root):
            if _is_zombie(pid):
                continue  # only its parent can take it away
            alive += 1
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if not alive:
            return
        if alive < FEW:
            time.sleep(0.002)  # the kernel needs a moment to end them; a crowd is given none


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True  # gone altogether


def kill_user(user: int) -> None:
    """Kills every process of a user id."""
    command = ["/bin/sh", "-c", "kill -9 -1"]
    subprocess.run(command, user=user, group=user, extra_groups=[], stderr=subprocess.DEVNULL, check=False)


def _remove_shared_memory(user: int) -> None:
    """The next run must not find what this one left."""
    for file in SHARED_MEMORY.iterdir():
        try:
            if file.lstat().st_uid == user:
                file.unlink()
        except OSError:
            continue  # a folder, which no run can make there by shm_open, or already gone


def main() -> int:
    """Runs the command of the command line; returns its exit status."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    parent, user = int(sys.argv[1]), None if sys.argv[2] == "-" else int(sys.argv[2])

    def clean() -> None:
        kill_descendants(os.getpid(), user)
        if user is not None:
            _remove_shared_memory(user)

    def stop(number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the kernel may say twice that the parent died
        clean()
        os._exit(128 + number)

    signal.signal(signal.SIGTERM, stop)
    die_with_parent(parent, signal.SIGTERM)
    command = subprocess.Popen(sys.argv[3:])
    status = command.wait()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    clean()
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main())
