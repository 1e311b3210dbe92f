"""What an untrusted or failing process printed: a file of at most so many bytes, and the last lines at hand."""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

OUT_OF_MEMORY = "CUDA out of memory"  # how torch says it
ROWS_AT_ONCE = ("micro_batch", "batch")  # the field's names for them, the likelier one first
TAIL_LINES = 20
TAIL_BYTES = 1 << 15
TORCHRUN = re.compile(r"^[EW]\d{4} .*torch/distributed/elastic/", re.MULTILINE)


class Printed:
    """Takes what a process prints. Past `max_bytes`, or on a full disk, the rest is thrown away but for the tail."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        """Raises OSError."""
        self._file = path.open("wb", buffering=0)
        self._room = max_bytes
        self._tail = b""
        self.truncated = False

    def add(self, data: bytes) -> None:
        try:
            kept = self._file.write(data[: self._room])
        except OSError:
            kept = 0
        # A script may fill the disk itself. What it said about that is then in the tail, and the run ends in order.
        self.truncated |= kept < len(data)
        self._room = 0 if self.truncated else self._room - kept
        self._tail = (self._tail + data)[-TAIL_BYTES:]

    def tail(self, lines: int = TAIL_LINES) -> str:
        """The last lines, or that there are none. What torchrun adds when a rank fails comes after its reason."""
        said = self._tail.decode(errors="replace")
        launcher = TORCHRUN.search(said)
        own = said[: launcher.start()].strip() if launcher else ""
        return "\n".join((own or said.strip()).splitlines()[-lines:]) or "it printed nothing"

    def last_words(self, hparams: Mapping[str, Any]) -> str:
        """The last lines in a sentence, and what to lower where the GPU was full; several ranks may have said so."""
        remedy = smaller_batch(self._tail.decode(errors="replace"), hparams)
        return f"its last lines:\n{self.tail()}" + (f"\n{remedy}" if remedy else "")

    def close(self) -> None:
        self._file.close()


def smaller_batch(said: str, hparams: Mapping[str, Any]) -> str:
    """Which hyperparameter to lower where a script says that its GPU is full; empty where it does not."""
    if OUT_OF_MEMORY not in said:
        return ""
    for name in ROWS_AT_ONCE:
        if isinstance(rows := hparams.get(name), int) and rows > 1:
            return f"the GPU's memory is full: try --set {name}={rows // 2}"
    return "the GPU's memory is full: train on fewer rows at once"


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
