"""Messages and file descriptors between the referee or judge and the processes they launch.

One packet is one JSON object with a `kind`, and may carry open descriptors (SCM_RIGHTS). Packets keep their
boundaries (SOCK_SEQPACKET), so a half-written message cannot exist. Neither side trusts the other's fields:
what does not parse is a `ProtocolError`.

Run to referee: hello, tensors, ready, log, finished, closing.   Referee to run: welcome, start, sealed.
Host to its client: hello, tensors, built, loaded, columns, done, failed.
Client to host: welcome, load, slots, forward.
"""

from __future__ import annotations

import array
import json
import os
import secrets
import socket
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from harness.core.owned import TemporaryFolder

SOCKET_VARIABLE = "SPEEDRUN_SOCKET"
NONCE_VARIABLE = "SPEEDRUN_NONCE"

# The kernel's default socket buffer is 208 KiB and a packet must fit into it whole.
MAX_PACKET = 128 * 1024
LOG_ROWS_PER_PACKET = 100
LOG_ROW_BYTES = 1000
MAX_DESCRIPTORS = 250  # the kernel refuses more than 253 in one packet
MAX_DEPTH = 8  # a message is a table of lists of tables of lists
MAX_SOCKET_PATH = 107  # bytes; what the address of a Unix socket holds


class ProtocolError(Exception):
    """The other side sent what this protocol does not know."""


@dataclass(frozen=True)
class ModelShape:
    """The shape of a model that the task fixes; see frozen_model.py."""

    width: int
    layers: int
    head_size: int

    def __post_init__(self) -> None:
        if min(self.width, self.layers, self.head_size) < 1 or self.width % self.head_size or self.head_size % 2:
            raise ValueError("width, layers and head_size are positive, head_size is even and divides width")


@dataclass(frozen=True)
class TaskFacts:
    """What a script may know of its task: `run.task`."""

    name: str
    vocab_size: int
    end_of_text: int
    order: str
    target_loss: float
    max_length: int
    document_tokens: tuple[int, ...]
    model: ModelShape | None = None  # None: the model is the submission's own affair


@dataclass(frozen=True)
class Context:
    """Everything a process needs to build the model: the same for the run, the fresh build and the model host."""

    task: TaskFacts
    seed: int
    world_size: int
    device: str
    methods: Mapping[str, bool]
    hparams: Mapping[str, Any]
    dry_steps: int | None = None  # end the run after that many batches; None: an ordinary run

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(table: dict[str, Any]) -> Context:
        facts = dict(table["task"])
        facts["document_tokens"] = tuple(facts["document_tokens"])
        facts["model"] = ModelShape(**facts["model"]) if facts["model"] else None
        return Context(**{**table, "task": TaskFacts(**facts)})


@dataclass
class Message:
    """One received packet; whoever receives descriptors closes them."""

    kind: str
    fields: dict[str, Any]
    descriptors: list[int] = field(default_factory=list)

    def get(self, name: str, kind: type | tuple[type, ...]) -> Any:
        """A field of the type expected. Raises ProtocolError. (A bool is not an int here.)"""
        value = self.fields.get(name)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise ProtocolError(f"message {self.kind!r} has no valid field {name!r}")
        return value


class Channel:
    """One end of a packet socket."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock

    def fileno(self) -> int:
        return self.socket.fileno()

    def send(self, kind: str, descriptors: Sequence[int] = (), **fields: Any) -> None:
        """Sends a packet, waiting while the other side's buffer is full. Raises OSError when it is gone."""
        self._send(_encode(kind, fields), descriptors, 0)

    def try_send(self, kind: str, **fields: Any) -> bool:
        """Sends a packet if that needs no waiting; False where it would."""
        try:
            self._send(_encode(kind, fields), (), socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        return True

    def receive(self, timeout: float | None = None, descriptors: bool = False) -> Message | None:
        """The next packet; None when the other side is gone. Raises TimeoutError and ProtocolError.

        Open descriptors are refused, and closed, unless `descriptors` says that they are expected.
        """
        self.socket.settimeout(timeout)
        try:
            data, ancillary, flags, _ = self.socket.recvmsg(
                MAX_PACKET, socket.CMSG_SPACE(MAX_DESCRIPTORS * array.array("i").itemsize)
            )
        except ConnectionError:
            return None
        finally:
            self.socket.settimeout(None)
        received = [fd for level, kind, raw in ancillary if _are_rights(level, kind) for fd in _unpack(raw)]
        try:
            if received and not descriptors:
                raise ProtocolError("a message carries open files where none are expected")
            if not data:
                return None
            if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                raise ProtocolError(f"a message is larger than {MAX_PACKET:,} bytes")
            return _decode(data, received)
        except ProtocolError:
            for descriptor in received:
                os.close(descriptor)
            raise

    def close(self) -> None:
        self.socket.close()

    def _send(self, data: bytes, descriptors: Sequence[int], flags: int) -> None:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        self.socket.sendmsg([data], rights, flags | socket.MSG_NOSIGNAL)


class Listener:
    """A listening socket in a private folder, and the nonce that a connecting process must know.

    The socket is a path, not an inherited descriptor, because torchrun closes what it did not open.
    """

    def __init__(self) -> None:
        self._folder = TemporaryFolder(inside=_folder_for_sockets())
        self.path = self._folder.path / "socket"
        self.nonce = secrets.token_hex(16)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.bind(str(self.path))
        self.socket.listen(64)

    def fileno(self) -> int:
        return self.socket.fileno()

    def accept(self) -> Channel:
        """The next connection, not yet trusted: its `hello` must carry the nonce."""
        connection, _ = self.socket.accept()
        return Channel(connection)

    def welcome(self, timeout: float) -> tuple[int, Channel]:
        """Accepts a connection and reads its hello: the rank it says and its channel. Raises ProtocolError."""
        channel = self.accept()
        try:
            message = channel.receive(timeout)
            if message is None or message.kind != "hello" or message.get("nonce", str) != self.nonce:
                raise ProtocolError("a process connected that was not launched for this run")
            return message.get("rank", int), channel
        except (ProtocolError, TimeoutError) as error:
            channel.close()
            raise ProtocolError(str(error) or "a process connected and said nothing") from None

    def close(self) -> None:
        """No further connection; the path is gone afterwards."""
        self.socket.close()
        self._folder.close()


def _folder_for_sockets() -> str | None:
    """The usual folder for temporary files, or /tmp where that one's path is too long for a socket in it."""
    name = len(os.fsencode(tempfile.gettempdir())) + len("/speedrun-12345678/socket")
    return "/tmp" if name > MAX_SOCKET_PATH else None


def connect(rank: int) -> Channel:
    """Connects to the socket named in the environment and says hello. Raises KeyError where none is named."""
    path, nonce = os.environ[SOCKET_VARIABLE], os.environ[NONCE_VARIABLE]
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.connect(path)
    channel = Channel(connection)
    channel.send("hello", nonce=nonce, rank=rank)
    return channel


def plain_text(value: Any, limit: int) -> str:
    """What a child sent as text, cut and without what no file can hold. A terminal needs `clean` as well."""
    return str(value)[:limit].encode("utf-8", "replace").decode()


def _encode(kind: str, fields: Mapping[str, Any]) -> bytes:
    data = json.dumps({"kind": kind, **fields}).encode()
    if len(data) > MAX_PACKET:
        raise ProtocolError(f"message {kind!r} has {len(data):,} bytes; the limit is {MAX_PACKET:,}")
    return data


def _decode(data: bytes, descriptors: list[int]) -> Message:
    try:
        fields = json.loads(data.decode())
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict) or not isinstance(fields.get("kind"), str) or _too_deep(fields):
        raise ProtocolError(f"not a message: {data[:80]!r}")
    return Message(fields.pop("kind"), fields, descriptors)


def _too_deep(value: Any) -> bool:
    """Whether a message nests further than any of ours: what repr and json do with it must not fail later."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for item in level
            if isinstance(item, dict | list)
            for inner in (item.values() if isinstance(item, dict) else item)
        ]
        if not level:
            return False
    return True


def _are_rights(level: int, kind: int) -> bool:
    return level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS


def _unpack(raw: bytes) -> list[int]:
    size = array.array("i").itemsize
    return array.array("i", raw[: len(raw) - len(raw) % size]).tolist()
