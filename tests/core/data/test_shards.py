"""The `.bin` format: what is written is read back, and every damage is named."""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from harness.core.data.shards import HEADER_BYTES, map_shard_fd, open_shard, read_header, write_shard
from harness.core.task import Shard
from harness.errors import UserError

anything = arrays(np.uint16, st.integers(1, 200))
reuse_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)


def mapped(path: Path) -> np.ndarray:
    with path.open("rb") as file:
        return map_shard_fd(file.fileno())


@reuse_folder
@given(tokens=anything)
def test_tokens_survive_the_file(tokens: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    write_shard(path, tokens)
    assert read_header(path) == len(tokens)
    assert np.array_equal(open_shard(path, None), tokens)
    assert np.array_equal(mapped(path), tokens)


def test_the_bytes_are_those_of_llm_c(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.bin", np.array([1023, 7, 513]))
    header = struct.pack("<256i", 20240520, 1, 3, *[0] * 253)
    assert (tmp_path / "a.bin").read_bytes() == header + struct.pack("<3H", 1023, 7, 513)


DAMAGE = {
    "truncated: 900 bytes": lambda content: content[:900],
    "truncated: 1,029 bytes": lambda content: content[:-1],
    "2 bytes follow": lambda content: content + b"\0\0",
    "wrong magic number 7": lambda content: struct.pack("<i", 7) + content[4:],
    "wrong version 2": lambda content: content[:4] + struct.pack("<i", 2) + content[8:],
    "gives 0 tokens": lambda content: content[:8] + struct.pack("<i", 0) + content[12:],
    "gives -3 tokens": lambda content: content[:8] + struct.pack("<i", -3) + content[12:],
    "truncated: 0 bytes": lambda content: b"",
}


@pytest.mark.parametrize("message", DAMAGE)
@pytest.mark.parametrize("read", [lambda path: open_shard(path, None), mapped])
def test_damage_is_named(read, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    write_shard(path, np.array([1, 2, 3]))
    path.write_bytes(DAMAGE[message](path.read_bytes()))
    with pytest.raises(UserError, match=message):
        read(path)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "b.bin").write_bytes(b"short")
    with pytest.raises(UserError, match=r"b\.bin: truncated"):
        open_shard(tmp_path / "b.bin", None)
    with pytest.raises(UserError, match=r"c\.bin: cannot be read"):
        open_shard(tmp_path / "c.bin", None)


def test_a_count_other_than_the_pinned_one_is_refused(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.bin", np.array([1, 2, 3]))
    pinned = Shard(file="a.bin", split="train", tokens=4, documents=1, text_bytes=1, sha256="0" * 64)
    with pytest.raises(UserError, match="holds 3 tokens, the task pins 4"):
        open_shard(tmp_path / "a.bin", pinned)


def test_a_map_is_read_only_and_leaves_the_file_offset_alone(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.bin", np.array([1, 2, 3]))
    with (tmp_path / "a.bin").open("rb") as file:
        tokens = map_shard_fd(file.fileno())
        assert file.tell() == os.lseek(file.fileno(), 0, os.SEEK_CUR) == 0
    with pytest.raises(ValueError, match="read-only"):
        tokens[0] = 9


@pytest.mark.parametrize("tokens", [np.array([], dtype=np.uint16), np.array([65536]), np.array([-1])])
def test_what_does_not_fit_the_format_is_not_written(tokens: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.bin"):
        write_shard(tmp_path / "a.bin", tokens)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.bin"
    write_shard(path, np.array([1]))

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"a\.bin: cannot be written: No space left"):
        write_shard(path, np.array([2, 2]))
    assert list(tmp_path.iterdir()) == [path]
    assert path.stat().st_size == HEADER_BYTES + 2
