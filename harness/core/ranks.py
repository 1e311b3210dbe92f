"""What each process of a run has said so far: the book that the referee checks before every step."""

from __future__ import annotations

import json
import re
import select
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from harness.core.failures import Failure, RunFailed
from harness.core.protocol import LOG_ROW_BYTES, LOG_ROWS_PER_PACKET, Channel, Message, ProtocolError, plain_text
from harness.core.weights import MAX_TENSORS, TensorSpec, WeightsError

# What may follow what; `log` and `finished` also wait for the release of the data. Rows may come late, after
# `finished`; everything else comes once.
ORDER = {
    "hello": ("tensors", "ready"),
    "tensors": ("tensors", "ready"),
    "ready": ("log", "finished"),
    "log": ("log", "finished"),
    "finished": ("closing",),
    "closing": (),
}


DIGEST = r"[0-9a-z]{1,64}"  # it goes into run.json as it is
MAX_CONSULTED = 1000


class RankLog:
    """The log rows of rank 0, up to the task's cap; later rows are counted and dropped."""

    def __init__(self, limit: int) -> None:
        self.rows: list[dict[str, float | None]] = []
        self.dropped = 0
        self._latest: list[dict[str, float | None]] = []
        self._limit = limit

    def add(self, message: Message) -> None:
        """Takes the rows of a `log` message. Raises ProtocolError for what is not rows of numbers."""
        rows = message.get("rows", list)
        if len(rows) > LOG_ROWS_PER_PACKET:
            raise ProtocolError("too many log rows in one message")
        clean = [_clean_row(row) for row in rows]
        # run.log refuses half of this; all rows stay in the referee's memory, whoever sent them.
        small = [row for row in clean if len(json.dumps(row)) <= 2 * LOG_ROW_BYTES]
        kept = small[: self._limit - len(self.rows)]
        self.rows += kept
        self.dropped += len(rows) - len(kept)
        self._latest = kept

    def latest(self) -> list[dict[str, float | None]]:
        """The rows of the message just added, as they were kept."""
        return self._latest


class Ranks:
    """The channels of all ranks and their messages. Methods raise RunFailed or ProtocolError."""

    def __init__(self, ranks: Iterable[int], log: RankLog) -> None:
        """`ranks`: those of this node."""
        self._channels: dict[int, Channel | None] = dict.fromkeys(ranks)
        self._last = dict.fromkeys(self._channels, "")
        self._sent: dict[int, dict[str, Message]] = {rank: {} for rank in self._channels}
        self._specs: dict[int, list[TensorSpec]] = {rank: [] for rank in self._channels}
        self._closed: dict[int, float | None] = dict.fromkeys(self._channels)
        self.released = False
        self._log = log

    def __iter__(self) -> Iterator[int]:
        return iter(self._channels)

    @property
    def complete(self) -> bool:
        """Every rank has connected."""
        return all(channel is not None for channel in self._channels.values())

    @property
    def open(self) -> bool:
        """Some rank has not closed its channel."""
        return not all(self._closed.values())

    def left_early(self, seconds: float) -> int | None:
        """A rank that closed its channel that long ago without having finished."""
        for rank, closed in self._closed.items():
            if closed and time.monotonic() - closed > seconds and "finished" not in self._sent[rank]:
                return rank
        return None

    def add(self, rank: int, channel: Channel) -> None:
        if self._channels.get(rank, channel) is not None:
            channel.close()
            raise ProtocolError(f"a process connected as rank {rank}: unknown, or connected already")
        self._channels[rank] = channel
        self._last[rank] = "hello"

    def send(self, rank: int, kind: str, descriptors: Sequence[int] = (), **fields: Any) -> None:
        """Sends to a rank; one that has gone away is noticed when its exit is."""
        channel = self._channels[rank]
        assert channel is not None
        try:
            channel.send(kind, descriptors, **fields)
        except OSError:
            self.closed(rank)

    def take(self, rank: int, message: Message) -> None:
        """Enters a message; one that is out of order is a violation."""
        last = self._last[rank]
        late_log = message.kind == "log" and last == "finished"
        early = message.kind in ("log", "finished") and not self.released
        if early or (message.kind not in ORDER[last] and not late_log):
            raise ProtocolError(f"sent {message.kind[:40]!r} after {last!r}")
        if message.kind == "tensors":
            self._take_tensors(rank, message)
        elif message.kind == "log":
            if rank == 0:
                self._log.add(message)
        else:
            self._sent[rank][message.kind] = message
        if not late_log:
            self._last[rank] = message.kind

    def closed(self, rank: int) -> None:
        """A rank's channel has ended. Before `finished` that ends the run (see `left_early`)."""
        self._closed[rank] = self._closed[rank] or time.monotonic()

    def release(self) -> None:
        """From here on `log` and `finished` may come. What was sent before its time is a violation."""
        early, _, _ = select.select([channel for channel in self._channels.values() if channel], [], [], 0)
        if early:
            raise RunFailed(Failure.PROTOCOL, "a rank went on before run.start had returned")
        self.released = True

    def all_sent(self, kind: str) -> bool:
        return all(kind in sent for sent in self._sent.values())

    def behind(self, kind: str) -> str:
        """For messages: which ranks have not called what others have; empty where none has."""
        call = {"ready": "run.start", "finished": "run.finish"}[kind]
        missing = [str(rank) for rank, sent in self._sent.items() if kind not in sent]
        if len(missing) == len(self._sent):
            return ""
        return f"; {call} was called on some ranks but not on rank {', '.join(missing)}"

    def check_start(self, specs: list[TensorSpec], digest: str) -> None:
        """Every rank must start from the weights of the fresh build. Raises RunFailed."""
        if not re.fullmatch(DIGEST, digest):
            raise RunFailed(Failure.HOST_PROTOCOL, "the fresh build gave a digest that is none")
        for rank, sent in self._sent.items():
            if self._specs[rank] != specs:
                raise RunFailed(
                    Failure.WEIGHTS_CHANGED,
                    f"rank {rank} starts with other tensors than build_model(run) gives in a fresh process",
                )
            if _text(sent["ready"], "digest") != digest:
                raise RunFailed(
                    Failure.WEIGHTS_CHANGED,
                    f"the weights of rank {rank} at run.start are not those that build_model(run) gives in a fresh "
                    "process: begin build_model with torch.manual_seed(run.seed), and restore the weights after "
                    "a warm-up that changes them",
                )

    def tokens(self) -> int:
        """Tokens that the script says it took, over all ranks."""
        return max(self._count(sent["finished"], "tokens") for sent in self._sent.values())

    def export_seconds(self) -> float:
        """Seconds of the export on rank 0, by its own clock; they are part of the run's seconds."""
        value = self._sent[0]["finished"].fields.get("export_seconds")
        return float(value) if isinstance(value, int | float) and 0 <= value < 1e9 else 0.0

    def consulted(self) -> list[str]:
        """Methods and hyperparameters that some rank asked for."""
        names: set[str] = set()
        for sent in self._sent.values():
            for message in sent.values():
                said = message.fields.get("consulted", [])
                names |= {plain_text(name, 100) for name in said[:MAX_CONSULTED]} if isinstance(said, list) else set()
        return sorted(names)

    def close(self) -> None:
        for channel in self._channels.values():
            if channel is not None:
                channel.close()

    def _take_tensors(self, rank: int, message: Message) -> None:
        try:
            self._specs[rank] += [TensorSpec.from_json(item) for item in message.get("items", list)]
        except WeightsError as error:
            raise ProtocolError(str(error)) from None
        if len(self._specs[rank]) > MAX_TENSORS:
            raise ProtocolError(f"the model has more than {MAX_TENSORS:,} tensors")

    def _count(self, message: Message, name: str) -> int:
        value = message.fields.get(name)
        return value if type(value) is int and 0 <= value < 2**60 else 0


def _text(message: Message, name: str) -> str:
    value = message.fields.get(name)
    return value if isinstance(value, str) else ""


def _clean_row(row: Any) -> dict[str, float | None]:
    if not isinstance(row, dict):
        raise ProtocolError("a log row is not a table")
    clean: dict[str, float | None] = {}
    for name, value in row.items():
        if type(value) not in (int, float):
            raise ProtocolError("a log row holds something that is not a number")
        # Divergence is logged as null: NaN and infinities are not JSON, nor are numbers that no float can hold.
        clean[plain_text(name, 100)] = value if abs(value) < 1e300 else None
    return clean
