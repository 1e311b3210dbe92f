"""The referee's side of the sequential stream: one thread a rank, tokens straight from the shard files.

The order of tokens and their count are the referee's own: `served` is what the run consumed, whatever the
script says. Ranks that ask for different counts in one round are a violation.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import socket
import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from harness.core.data.shards import HEADER_BYTES, prepared_shards
from harness.core.data.stream import END, REQUEST
from harness.core.free_memory import free_memory
from harness.core.task import Shard, Task
from harness.errors import UserError

TOKEN_BYTES = 2
COPY_BYTES = 1 << 20
PRE_READ_BYTES = 20 << 30  # ten billion tokens: more than any submission here reads


@dataclass(frozen=True)
class ShardFile:
    """An open training shard and how many tokens it holds."""

    descriptor: int
    tokens: int


def sealed_copy(path: Path, shard: Shard) -> int:
    """An open copy of a shard in memory that nobody can change, checked against the task. Raises UserError."""
    descriptor = os.memfd_create(shard.file, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        digest = _copy(path, descriptor, HEADER_BYTES + TOKEN_BYTES * shard.tokens)
        if digest != shard.sha256:
            raise UserError(f"{path}: changed since it was prepared", "speedrun data prepare, after removing it")
    except BaseException:
        os.close(descriptor)
        raise
    seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor


def _copy(path: Path, descriptor: int, size: int) -> str | None:
    """Copies a file of that size; its sha256, or None where its size is another. Raises UserError."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size != size:
                return None
            while block := file.read(COPY_BYTES):
                digest.update(block)
                if os.write(descriptor, block) < len(block):
                    raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}", "check the disk and the free memory") from None
    return digest.hexdigest()


def _require_memory(shards: list[Shard]) -> None:
    """Raises UserError where copies of these shards do not fit into memory: else the kernel would kill somebody."""
    needed, free = sum(HEADER_BYTES + TOKEN_BYTES * shard.tokens for shard in shards), free_memory()
    if needed > free:
        message = f"the {len(shards)} training shard(s) take {needed:,} bytes of memory, and {free:,} are free"
        raise UserError(message, "end other programs, raise the container's memory limit, or use a larger machine")


def open_training(stack: ExitStack, task: Task, folder: Path) -> list[ShardFile]:
    """The training shards in stream order: files to serve from, or sealed copies to hand out. `stack` closes them.

    Copies, because whoever holds an open file of ours can open it again for writing through /proc. Files are read
    through once, up to PRE_READ_BYTES, so that no run finds the disk colder than the one it is compared with.
    Raises UserError.
    """
    files = []
    room = PRE_READ_BYTES
    shards = [shard for shard in prepared_shards(task, folder) if shard.split == "train"]
    if task.order == "free":
        _require_memory(shards)
    for shard in shards:
        path = folder / shard.file
        if task.order == "sequential":
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            room -= _pre_read(descriptor, room)
        else:
            descriptor = sealed_copy(path, shard)
        stack.callback(os.close, descriptor)
        files.append(ShardFile(descriptor, shard.tokens))
    return files


def _pre_read(descriptor: int, limit: int) -> int:
    done = 0
    while done < limit and (block := os.pread(descriptor, COPY_BYTES, done)):
        done += len(block)
    return done


class StreamServer:
    """Serves the training tokens to `ranks` of `world_size`; `child_ends` are the sockets to hand out, by rank."""

    def __init__(
        self, shards: list[ShardFile], ranks: Iterable[int], world_size: int, on_violation: Callable[[str], None]
    ) -> None:
        self._shards = shards
        self._total = sum(shard.tokens for shard in shards)
        self._world_size = world_size
        self._on_violation = on_violation
        self._lock = threading.Lock()
        self._counts: list[int] = []  # the count of each round, set by the first rank to reach it
        self._bases: list[int] = [0]
        self._ends: dict[int, socket.socket] = {}
        self.child_ends: dict[int, socket.socket] = {}
        for rank in ranks:
            self._ends[rank], self.child_ends[rank] = socket.socketpair()

    @property
    def served(self) -> int:
        """Tokens granted so far, over all ranks, also those of other nodes, who ask in step."""
        return self._bases[-1]

    def start(self) -> None:
        """Begins to serve; before this call a request is left unanswered."""
        for rank, end in self._ends.items():
            threading.Thread(target=self._serve, args=(rank, end), daemon=True).start()

    def close(self) -> None:
        """Ends the threads; a rank that still asks sees the stream closed."""
        for end in [*self._ends.values(), *self.child_ends.values()]:
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # its other side is gone already
            end.close()

    def _serve(self, rank: int, end: socket.socket) -> None:
        try:
            number = 0
            while True:
                request = end.recv(REQUEST.size, socket.MSG_WAITALL)
                if len(request) < REQUEST.size:
                    return
                (count,) = REQUEST.unpack(request)
                start = self._grant(rank, number, count)
                if start is None:
                    end.sendall(REQUEST.pack(END))
                    continue  # fewer tokens may still be had
                number += 1
                end.sendall(REQUEST.pack(count))
                self._send(end, start, count + 1)
        except UserError as error:
            self._on_violation(error.message)
        except OSError:
            return  # the rank is gone; the referee sees that for itself

    def _grant(self, rank: int, number: int, count: int) -> int | None:
        """Where this rank's window of a round begins; None at the end of the data. Raises UserError."""
        with self._lock:
            if number == len(self._counts):
                if count < 1:
                    raise UserError(f"rank {rank} asked the stream for {count} tokens")
                if self._bases[-1] + self._world_size * count + 1 > self._total:
                    return None
                self._counts.append(count)
                self._bases.append(self._bases[-1] + self._world_size * count)
            elif self._counts[number] != count:
                raise UserError(
                    f"rank {rank} asked the stream for {count:,} tokens where another rank asked for "
                    f"{self._counts[number]:,} (round {number})"
                )
            return self._bases[number] + rank * count

    def _send(self, end: socket.socket, start: int, count: int) -> None:
        for shard in self._shards:
            if count and start < shard.tokens:
                part = min(count, shard.tokens - start)
                _send_file(end, shard.descriptor, HEADER_BYTES + TOKEN_BYTES * start, TOKEN_BYTES * part)
                start, count = start + part, count - part
            start -= shard.tokens


def _send_file(end: socket.socket, descriptor: int, offset: int, size: int) -> None:
    while size:
        sent = os.sendfile(end.fileno(), descriptor, offset, size)
        if sent == 0:
            raise OSError("the shard file ended early")
        offset, size = offset + sent, size - sent
