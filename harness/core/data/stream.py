"""What a script reads: the training tokens in stream order, shared out between ranks.

All ranks call in step and ask for the same count. In every round rank r gets the tokens
[base + r * count, base + (r + 1) * count) and the one token that follows them, as the last target; the next
round's base is base + world_size * count. So as inputs no token is lost, repeated or shared between ranks.

`free` order: the script maps whole shards and may also read them as it likes (selection, order and repeats
are then methods). `sequential` order: the referee serves the tokens (see serve.py) and counts them.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from harness.errors import UserError

if TYPE_CHECKING:
    import torch

REQUEST = struct.Struct("<q")  # a count of tokens; the answer repeats it, or says END
END = -1


class EndOfData(UserError):
    """The stream has fewer tokens left than were asked for."""

    def __init__(self, count: int) -> None:
        super().__init__(
            f"run.stream has fewer than {count:,} tokens left",
            "train on fewer tokens; where the task's order is free, start again with run.stream.seek(0)",
        )


class Stream:
    """The training tokens as this rank sees them.

    `position` is the place in the stream, `taken` counts the tokens taken so far, both over all ranks; they
    differ once a script has used `seek`.
    """

    def __init__(self, rank: int, world_size: int, device: str) -> None:
        self.rank = rank
        self.world_size = world_size
        self.device = device
        self.position = 0
        self.taken = 0
        self.before_read: Callable[[], None] | None = None  # dry runs end there (see dry.py)

    def take(self, count: int) -> np.ndarray:
        """The next `count` tokens of this rank and the one after them: uint16 [count + 1].

        Inputs are `[:-1]`, targets `[1:]`. Raises EndOfData, and UserError where count is below 1.
        """
        if count < 1:
            raise UserError(f"run.stream: asked for {count} tokens", "ask for at least one")
        if self.before_read is not None:
            self.before_read()
        window = self._window(count)
        self.position += self.world_size * count
        self.taken += self.world_size * count
        return window

    def next(self, batch: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The next inputs and targets of this rank: two int64 tensors [batch, length] on the run's device.

        Rows follow each other in the stream. Raises EndOfData.
        """
        import torch

        tokens = torch.from_numpy(self.take(batch * length).astype(np.int64))
        if self.device != "cpu":
            tokens = tokens.pin_memory().to(self.device, non_blocking=True)
        return tokens[:-1].view(batch, length), tokens[1:].view(batch, length)

    def _window(self, count: int) -> np.ndarray:
        raise NotImplementedError


class FreeStream(Stream):
    """Reads mapped shards. `shards` are the whole training shards, read-only uint16 arrays."""

    def __init__(self, shards: list[np.ndarray], rank: int, world_size: int, device: str) -> None:
        super().__init__(rank, world_size, device)
        self.shards = shards
        self._starts = np.cumsum([0, *(len(shard) for shard in shards)])

    def seek(self, position: int) -> None:
        """Goes to a place in the stream; every rank must seek alike. Raises UserError outside of it."""
        if not 0 <= position <= self._starts[-1]:
            raise UserError(
                f"run.stream.seek({position}): the stream has {self._starts[-1]:,} tokens", "seek inside it"
            )
        self.position = position

    def _window(self, count: int) -> np.ndarray:
        # The whole round must fit, so that all ranks meet the end together.
        if self.position + self.world_size * count + 1 > self._starts[-1]:
            raise EndOfData(count)
        start = self.position + self.rank * count
        return self._read(start, start + count + 1)

    def _read(self, start: int, stop: int) -> np.ndarray:
        index = int(np.searchsorted(self._starts, start, side="right")) - 1
        parts = []
        while start < stop:
            offset = start - self._starts[index]
            part = self.shards[index][offset : offset + stop - start]
            parts.append(part)
            start, index = start + len(part), index + 1
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


class SequentialStream(Stream):
    """Asks the referee for each window over a stream socket; nothing can be read out of order."""

    def __init__(self, connection: socket.socket, rank: int, world_size: int, device: str) -> None:
        super().__init__(rank, world_size, device)
        self._connection = connection

    def _window(self, count: int) -> np.ndarray:
        self._connection.sendall(REQUEST.pack(count))
        (granted,) = REQUEST.unpack(receive_exactly(self._connection, REQUEST.size))
        if granted == END:
            raise EndOfData(count)
        data = receive_exactly(self._connection, 2 * (count + 1))
        return np.frombuffer(data, dtype=np.uint16)


def receive_exactly(connection: socket.socket, size: int) -> bytearray:
    """`size` bytes from a stream socket. Raises UserError when the other side closes first."""
    buffer = bytearray(size)
    view = memoryview(buffer)
    while len(view):
        received = connection.recv_into(view)
        if received == 0:
            raise UserError("run.stream: the referee closed the stream", "see the reason it gives for the run")
        view = view[received:]
    return buffer
