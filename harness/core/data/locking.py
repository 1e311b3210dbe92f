"""One process at a time, across processes, released by the system when its holder dies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.core.data.shards import cannot_write


@contextmanager
def exclusive(folder: Path, name: str) -> Iterator[None]:
    """Holds the lock `name` of a folder, made if missing; waits for another holder. Raises UserError."""
    from filelock import FileLock

    lock = FileLock(folder / f".{name}.lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise cannot_write(folder, error) from None
    try:
        yield
    finally:
        lock.release()
