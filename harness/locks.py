"""Locks that say who holds them, and that the system releases when the holder dies."""

from __future__ import annotations

import errno
import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.errors import UserError

HOLDER_BYTES = 500


@contextmanager
def held(path: Path, holder: str, what: str, remedy: str) -> Iterator[None]:
    """Holds the lock file `path`, in which `holder` is written; raises UserError at once when another process has it.

    `what` begins that message. A lock of our own and not filelock's, which empties the file on every try: here the
    holder's name stays readable.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
    except OSError as error:
        what = "a link, not a lock" if error.errno == errno.ELOOP else error.strerror
        raise UserError(f"{path}: {what}", "remove the file, if no race of another user runs on this machine") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            named = os.pread(descriptor, HOLDER_BYTES, 0).decode(errors="replace").strip() or "unknown"
            raise UserError(f"{what}: {named}", remedy) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()}, {holder}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def timing_alone(holder: str) -> Iterator[None]:
    """Holds the lock of this machine that every timed campaign takes. Raises UserError when another one has it."""
    path = Path(tempfile.gettempdir()) / "speedrun-timed-campaign.lock"
    what = "another campaign is being timed on this machine, and each would slow the other"
    with held(path, holder, what, "wait until it has ended, or end it with Ctrl-C: it can be resumed"):
        yield
