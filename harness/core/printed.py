"""What an untrusted or failing process printed: a file of at most so many bytes, and the last lines at hand."""

from __future__ import annotations

import signal
from pathlib import Path

TAIL_LINES = 20
TAIL_BYTES = 8192


class Printed:
    """Takes what a process prints. Past `max_bytes` only the tail is kept up to date; the rest is thrown away."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._file = path.open("wb")
        self._room = max_bytes
        self._tail = b""
        self.truncated = False

    def add(self, data: bytes) -> None:
        """Raises OSError where the disk takes no more."""
        kept = data[: self._room]
        self._file.write(kept)
        self._room -= len(kept)
        self.truncated |= len(kept) < len(data)
        self._tail = (self._tail + data)[-TAIL_BYTES:]

    def tail(self, lines: int = TAIL_LINES) -> str:
        """The last lines, or that there are none."""
        last = self._tail.decode(errors="replace").strip().splitlines()[-lines:]
        return "\n".join(last) or "it printed nothing"

    def close(self) -> None:
        self._file.close()


def ended_how(status: int | None) -> str:
    """An exit status in words; None is that of a process that still runs.

    A sandbox passes the death of what it holds on as 128 + the signal's number.
    """
    if status is None:
        return "closed its connection"
    number = -status if status < 0 else status - 128
    try:
        return f"was killed ({signal.Signals(number).name})"
    except ValueError:
        return f"ended with status {status}"
