"""The guard: runs a command and makes sure that nothing of it outlives the run, where no namespace can.

`python -m harness.core.guard PARENT COMMAND...`, PARENT being the process id to end with. It
adopts orphans (child subreaper), is told by the kernel when its
parent dies, and kills every descendant before it ends, with the command's own exit status.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from types import FrameType

import psutil

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def die_with_parent(parent: int, sign: int = signal.SIGKILL) -> None:
    """Asks the kernel to signal this process when its parent dies; ends it if that has happened already."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, sign, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def kill_descendants() -> None:
    """Kills every descendant, again until none is left: a process may fork while it is being killed."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the kernel may say twice that the parent died
    me = psutil.Process()
    while descendants := me.children(recursive=True):
        for process in descendants:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(descendants, timeout=1)


def main() -> int:
    """Runs the command of the command line; returns its exit status."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def stop(number: int, _frame: FrameType | None) -> None:
        kill_descendants()
        os._exit(128 + number)

    signal.signal(signal.SIGTERM, stop)
    die_with_parent(int(sys.argv[1]), signal.SIGTERM)
    command = subprocess.Popen(sys.argv[2:])
    status = command.wait()
    kill_descendants()
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main())
