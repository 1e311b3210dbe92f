"""Locks that say who holds them, and that the system releases when the holder dies."""

from __future__ import annotations

import errno
import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.core.task import HardwareClass
from harness.errors import UserError
from harness.machine import fingerprint, require_gpus

HOLDER_BYTES = 500
REMEDY = "wait until it has ended, or end it with Ctrl-C: it can be resumed"


@contextmanager
def held(path: Path, holder: str, what: str, remedy: str, shared: bool = False) -> Iterator[None]:
    """Holds the lock file `path`, in which `holder` is written; raises UserError at once when another process has it.

    `what` begins that message. `shared`: with others that share it, of whom the file names the last one to begin. A
    lock of our own and not filelock's, which empties the file on every try: here the holder's name stays readable. The
    file of another user can be locked, too, but not written.
    """
    descriptor, writable = _open(path)
    try:
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            named = os.pread(descriptor, HOLDER_BYTES, 0).decode(errors="replace").strip() or "unknown"
            raise UserError(f"{what}: {named}", remedy) from None
        if writable:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()}, {holder}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _open(path: Path) -> tuple[int, bool]:
    """The lock file, and whether it can be written. Raises UserError."""
    flags = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        try:
            return os.open(path, flags | os.O_RDWR | os.O_CREAT, 0o644), True
        except PermissionError:
            return os.open(path, flags | os.O_RDONLY), False
    except OSError as error:
        found = "a link, not a lock" if error.errno == errno.ELOOP else error.strerror
        raise UserError(f"{path}: {found}", "remove the file, if no campaign of another user runs here") from None


@contextmanager
def timing_alone(holder: str) -> Iterator[None]:
    """Holds the lock of this machine that every timed campaign takes. Raises UserError when another one has it.

    A tuning shares it with other tunings, and counts as another one.
    """
    what = "a tuning runs or another campaign is being timed on this machine, and each would slow the other"
    with held(_machine_lock(), holder, what, REMEDY):
        yield


@contextmanager
def untimed(holder: str) -> Iterator[None]:
    """Keeps timed campaigns from this machine; several may do so side by side. Raises UserError while one is timed."""
    what = "a campaign is being timed on this machine, and would be slowed"
    with held(_machine_lock(), holder, what, REMEDY, shared=True):
        yield


def require_ready_machine(hardware: HardwareClass) -> None:
    """Raises UserError where no campaign of this class could be timed here now: before a plan is made for it."""
    require_gpus(hardware, fingerprint())
    with timing_alone("a campaign that is being planned"):
        pass


def _machine_lock() -> Path:
    return Path(tempfile.gettempdir()) / "speedrun-timed-campaign.lock"
