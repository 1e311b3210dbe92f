"""The journal as a file: locked against other writers, limited in size, appended to whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.errors import UserError

# About 400,000 lines of the usual 600 bytes; the whole file is read at each append.
MAX_JOURNAL_BYTES = 256 * 1024 * 1024
MAX_LINES = 1_000_000  # no entry is shorter than 250 bytes, so a file with more lines is no journal
LOCK_SECONDS = 60.0  # an append holds the lock for milliseconds
MOVE_ASIDE = "see `speedrun journal verify`; restore the file or move it aside, and the next run starts a new one"


def read_whole(path: Path) -> bytes:
    """The content of a journal that exists. Raises OSError and UserError."""
    with locked(path, write=False) as descriptor:
        return content_of(descriptor, path)


@contextmanager
def locked(path: Path, write: bool) -> Iterator[int]:
    """An open descriptor of the journal itself, locked against other processes.

    Nothing here waits for ever: O_NONBLOCK for a pipe, a limit for a lock that somebody keeps. A link is
    refused, since an append through it would write to a file that is no journal.
    """
    flags, lock = (os.O_RDWR | os.O_CREAT, fcntl.LOCK_EX) if write else (os.O_RDONLY, fcntl.LOCK_SH)
    if write:
        path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY | os.O_NOFOLLOW, 0o644)
        try:
            _lock_until(deadline, descriptor, lock, path)
            if _still_named(descriptor, path):
                yield descriptor
                return
        finally:
            os.close(descriptor)


def _lock_until(deadline: float, descriptor: int, lock: int, path: Path) -> None:
    while True:
        try:
            fcntl.flock(descriptor, lock | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                what = f"another process has kept it locked for {LOCK_SECONDS:.0f} s"
                raise UserError(f"{path}: {what}", f"find it with: fuser {path}") from None
            time.sleep(0.005)


def _still_named(descriptor: int, path: Path) -> bool:
    """Whether the file locked is the one that the path names: it may have been moved aside meanwhile."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turns any OSError inside into a UserError that names the journal."""
    try:
        yield
    except OSError as error:
        what = "a link, not a journal" if error.errno == errno.ELOOP else error.strerror
        raise UserError(f"{path}: {what}; nothing in it was changed", _remedy(error)) from None


def _remedy(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "make room on the disk, then start the run again"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "make the file and its folder accessible to this user, or use another --runs-dir"
    if error.errno == errno.ENOENT:
        return "check the path; the first run makes the journal"
    return "check the path and the disk"


def content_of(descriptor: int, path: Path) -> bytes:
    """The whole file, whose kind, size and count of lines are looked at before more memory is taken."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise UserError(f"{path}: not a file", "name the journal file itself, usually runs/journal.jsonl")
    if status.st_size > MAX_JOURNAL_BYTES:
        raise UserError(f"{path}: {status.st_size:,} bytes, more than {MAX_JOURNAL_BYTES:,}", MOVE_ASIDE)
    content = bytearray()
    while len(content) < status.st_size and (chunk := os.read(descriptor, status.st_size - len(content))):
        content += chunk
    if content.count(b"\n") > MAX_LINES:
        raise UserError(f"{path}: more than {MAX_LINES:,} lines", MOVE_ASIDE)
    return bytes(content)


def write_line(descriptor: int, line: bytes, offset: int, torn: bytes) -> None:
    """Puts the line over the torn one, on the disk when this returns; undone on any OSError."""
    try:
        if os.pwrite(descriptor, line, offset) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.ftruncate(descriptor, offset + len(line))
        os.fsync(descriptor)
    except OSError:
        os.pwrite(descriptor, torn, offset)
        os.ftruncate(descriptor, offset + len(torn))
        raise


def sync_folder(folder: Path) -> None:
    """Makes the name of a new journal survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
