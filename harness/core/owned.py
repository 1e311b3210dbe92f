"""Folders that know whether their owner lives, so that what a killed process left can be told from what is in use.

The owner keeps the file `owner.lock` in the folder locked. The kernel takes the lock away when the process ends,
however it ends, so whoever gets the lock may tidy up. Nothing is ever removed for its name or age alone: a folder
without that file, with the lock held, or of another user is left as it is.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

LOCK = "owner.lock"
PREFIX = "speedrun-"


class Claim:
    """Ownership of a folder by this process, while it lives and until `close` or `drop`."""

    def __init__(self, folder: Path) -> None:
        """Raises OSError."""
        self._path = folder / LOCK
        early = folder / f"{LOCK}.early"
        self._descriptor = os.open(early, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            # Locked before it has its name: nobody can find it there unlocked while its owner lives.
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            early.rename(self._path)
        except OSError:
            early.unlink(missing_ok=True)
            self.close()
            raise

    def close(self) -> None:
        """Gives the folder up as it is: the next command tidies it. Safe to call twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def drop(self) -> None:
        """Gives the folder up for good: there is nothing to tidy."""
        self._path.unlink(missing_ok=True)
        self.close()


class TemporaryFolder:
    """A private folder for temporary files that is removed by `close`, or later if this process is killed."""

    def __init__(self, prefix: str = PREFIX, inside: str | None = None) -> None:
        """`prefix` begins with PREFIX; `inside` is the folder to make it in, None for the usual one. Raises OSError."""
        self.path = Path(tempfile.mkdtemp(prefix=prefix, dir=inside))
        try:
            self._claim = Claim(self.path)
        except OSError:
            self.path.rmdir()
            raise

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Safe to call twice."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._claim.close()


def abandoned(folders: Iterable[Path]) -> Iterator[Path]:
    """Those of the folders whose owner is gone, each locked by this process while the caller has it."""
    for folder in folders:
        descriptor = _taken_over(folder)
        if descriptor is not None:
            try:
                yield folder
            finally:
                os.close(descriptor)


def remove_abandoned_temporaries() -> None:
    """Removes temporary folders of processes that were killed."""
    places = {Path(tempfile.gettempdir()), Path("/tmp")}
    for folder in abandoned(path for place in places for path in place.glob(f"{PREFIX}*")):
        shutil.rmtree(folder, ignore_errors=True)


def _taken_over(folder: Path) -> int | None:
    """The descriptor of the folder's lock, now ours; None where it is not for us to take."""
    path, user = folder / LOCK, os.geteuid()
    try:
        if folder.lstat().st_uid != user:
            return None
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None  # no folder of ours, or removed meanwhile
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Two commands may tidy at once; the slower one finds the file gone.
        if os.path.samestat(os.fstat(descriptor), path.lstat()):
            return descriptor
    except OSError:
        pass  # its owner lives
    os.close(descriptor)
    return None
