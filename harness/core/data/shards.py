"""The `.bin` shard format of llm.c: 256 int32 (20240520, version 1, token count), then uint16 tokens.

Everything is little-endian. An end-of-text token stands before every document, so a shard begins with one.
Source of the format: `dev/data/data_common.py` of github.com/karpathy/llm.c.
"""

from __future__ import annotations

import mmap
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from harness.core.files import open_regular
from harness.errors import UserError

if TYPE_CHECKING:
    from harness.core.task import Shard, Task

MAGIC = 20240520
VERSION = 1
HEADER_BYTES = 256 * 4
TOKEN = np.dtype("<u2")
_REMEDY = "prepare the data again: speedrun data prepare TASK"


def write_shard(path: Path, tokens: np.ndarray) -> None:
    """Writes a shard of `tokens` [n], integers below 65,536, whole or not at all. Raises UserError."""
    if tokens.ndim != 1 or tokens.size == 0:
        raise UserError(f"{path}: a shard needs a row of at least one token", "give it some text")
    if tokens.dtype != TOKEN:
        if tokens.min() < 0 or tokens.max() > 0xFFFF:
            raise UserError(f"{path}: a token does not fit in 16 bits", "use a vocabulary of at most 65,536")
        tokens = tokens.astype(TOKEN)
    header = np.zeros(256, dtype="<i4")
    header[:3] = MAGIC, VERSION, tokens.size
    with replace_whole(path) as file:
        file.write(header.tobytes())
        file.write(np.ascontiguousarray(tokens).data)


@contextmanager
def replace_whole(path: Path) -> Iterator[IO[bytes]]:
    """A binary file that appears under `path` complete and on disk, or not at all. Raises UserError."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise cannot_write(path, error) from None
    finally:
        with suppress(OSError):
            temporary.unlink()


def cannot_write(path: Path, error: OSError) -> UserError:
    """The one message for a full disk, a read-only folder and their like."""
    return UserError(
        f"{path}: cannot be written: {error.strerror or error}",
        "free some space or make the folder writable, or use another one with --data-dir",
    )


def read_header(source: Path | int) -> int:
    """The token count of a shard given by path or descriptor, checked against its size. Raises UserError."""
    if isinstance(source, int):
        return _token_count(source, f"descriptor {source}")
    with _opened(source) as descriptor:
        return _token_count(descriptor, str(source))


def open_shard(path: Path, expect: Shard | None) -> np.ndarray:
    """The tokens [n], uint16, as a read-only map; `expect` is what the task pins. Raises UserError."""
    with _opened(path) as descriptor:
        count = _token_count(descriptor, str(path))
        if expect is not None and count != expect.tokens:
            raise UserError(f"{path}: holds {count:,} tokens, the task pins {expect.tokens:,}", _REMEDY)
        return _map(descriptor, count, str(path))


def prepared_shards(task: Task, folder: Path) -> list[Shard]:
    """The shards that count as prepared: all of the task; of one with [hub] the first of training that are there.

    Its stream is served in order, so that a part of the corpus is the same data as long as it lasts.
    """
    if task.hub is None:
        return task.shards
    training = task.of_split("train")
    there = next((index for index, shard in enumerate(training) if not (folder / shard.file).exists()), len(training))
    return [*(shard for shard in task.shards if shard.split != "train"), *training[:there]]


def scored_tokens(task: Task, folder: Path, split: str) -> np.ndarray:
    """The tokens [n], uint16, of a held-out split that the loss is taken over: n - 1 targets. Raises UserError."""
    tokens = np.concatenate([open_shard(folder / shard.file, shard) for shard in task.of_split(split)])
    limit = task.evaluation.tokens
    return tokens if limit is None or split != "validation" else tokens[: limit + 1]


def map_shard_fd(descriptor: int) -> np.ndarray:
    """The tokens [n], uint16, of an open shard as a read-only map that outlives the descriptor.

    The file offset, which processes share with the descriptor, is left alone. Raises UserError.
    """
    return _map(descriptor, read_header(descriptor), f"descriptor {descriptor}")


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """One descriptor for header and tokens: a file put in place of another between the two is not taken for it."""
    try:
        descriptor = open_regular(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}", _REMEDY) from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _map(descriptor: int, count: int, name: str) -> np.ndarray:
    try:
        mapped = mmap.mmap(descriptor, HEADER_BYTES + TOKEN.itemsize * count, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:  # ValueError: it became shorter since its header was read
        raise UserError(f"{name}: cannot be mapped: {error}", _REMEDY) from None
    return np.frombuffer(mapped, dtype=TOKEN, count=count, offset=HEADER_BYTES)


def _token_count(descriptor: int, name: str) -> int:
    try:
        header = np.frombuffer(os.pread(descriptor, HEADER_BYTES, 0), dtype=np.uint8)
        size = os.fstat(descriptor).st_size
    except OSError as error:
        raise UserError(f"{name}: cannot be read: {error.strerror}", _REMEDY) from None
    if header.size < HEADER_BYTES:
        raise UserError(f"{name}: truncated: {size:,} bytes do not hold the header", _REMEDY)
    magic, version, count = (int(value) for value in header.view("<i4")[:3])
    if magic != MAGIC:
        raise UserError(f"{name}: wrong magic number {magic}, a shard has {MAGIC}", _REMEDY)
    if version != VERSION:
        raise UserError(f"{name}: wrong version {version}, only {VERSION} is known", _REMEDY)
    if count < 1:
        raise UserError(f"{name}: the header gives {count:,} tokens", _REMEDY)
    expected = HEADER_BYTES + TOKEN.itemsize * count
    if size < expected:
        raise UserError(f"{name}: truncated: {size:,} bytes, {count:,} tokens need {expected:,}", _REMEDY)
    if size > expected:
        raise UserError(f"{name}: {size - expected:,} bytes follow its {count:,} tokens", _REMEDY)
    return count
