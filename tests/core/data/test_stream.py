"""Both orders of the stream: no token lost, repeated or shared between ranks, for any world size and count."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.core.data.serve import ShardFile, StreamServer
from harness.core.data.shards import open_shard, write_shard
from harness.core.data.stream import EndOfData, FreeStream, SequentialStream, Stream
from harness.errors import UserError

Streams = Callable[[list[int], int], list[Stream]]


def free_streams(folder: Path, sizes: list[int], world_size: int) -> tuple[list[Stream], StreamServer | None]:
    """One free stream a rank over shards that hold 0, 1, 2, ... in order."""
    shards = [open_shard(path, None) for path in write_counting_shards(folder, sizes)]
    return [FreeStream(shards, rank, world_size, "cpu") for rank in range(world_size)], None


def sequential_streams(folder: Path, sizes: list[int], world_size: int) -> tuple[list[Stream], StreamServer | None]:
    """One served stream a rank over the same shards."""
    paths = write_counting_shards(folder, sizes)
    files = [ShardFile(os.open(path, os.O_RDONLY), size) for path, size in zip(paths, sizes, strict=True)]
    violations: list[str] = []
    server = StreamServer(files, range(world_size), world_size, violations.append)
    server.start()
    ends = [end.dup() for end in server.child_ends.values()]
    return [SequentialStream(end, rank, world_size, "cpu") for rank, end in enumerate(ends)], server


def write_counting_shards(folder: Path, sizes: list[int]) -> list[Path]:
    start, paths = 0, []
    for index, size in enumerate(sizes):
        paths.append(folder / f"{index}.bin")
        write_shard(paths[-1], np.arange(start, start + size, dtype=np.uint16))
        start += size
    return paths


@pytest.mark.parametrize("make", [free_streams, sequential_streams])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.integers(1, 300), min_size=1, max_size=4),
    world_size=st.integers(1, 5),
    counts=st.lists(st.integers(1, 60), min_size=1, max_size=20),
)
def test_inputs_are_the_stream_once_and_in_order(
    make: Callable, tmp_path: Path, sizes: list[int], world_size: int, counts: list[int]
) -> None:
    streams, server = make(tmp_path, sizes, world_size)
    inputs: list[int] = []
    for count in counts:
        if len(inputs) + world_size * count + 1 > sum(sizes):
            with pytest.raises(EndOfData):
                streams[0].take(count)
            break
        for stream in streams:
            window = stream.take(count)
            assert len(window) == count + 1
            assert (np.diff(window.astype(int)) == 1).all()
            inputs += window[:-1].tolist()
    assert inputs == list(range(len(inputs)))
    assert all(stream.position == len(inputs) for stream in streams[1:])
    if server is not None:
        assert server.served == len(inputs)
        server.close()


def test_next_gives_shifted_targets(tmp_path: Path) -> None:
    (stream,), _ = free_streams(tmp_path, [100], 1)
    inputs, targets = stream.next(3, 5)
    assert inputs.shape == targets.shape == (3, 5)
    assert inputs.flatten().tolist() == list(range(15))
    assert (targets == inputs + 1).all()


def test_free_order_can_seek(tmp_path: Path) -> None:
    (stream,), _ = free_streams(tmp_path, [40, 60], 1)
    assert isinstance(stream, FreeStream)
    stream.seek(38)
    assert stream.take(4).tolist() == [38, 39, 40, 41, 42]
    with pytest.raises(UserError, match="100 tokens"):
        stream.seek(101)


def test_ranks_that_disagree_are_a_violation(tmp_path: Path) -> None:
    paths = write_counting_shards(tmp_path, [1000])
    said: list[str] = []
    server = StreamServer([ShardFile(os.open(paths[0], os.O_RDONLY), 1000)], range(2), 2, said.append)
    server.start()
    first, second = (SequentialStream(end, rank, 2, "cpu") for rank, end in server.child_ends.items())
    first.take(10)
    second._connection.settimeout(0.2)
    with pytest.raises(TimeoutError):
        second.take(11)
    assert said == ["rank 1 asked the stream for 11 tokens where another rank asked for 10 (round 0)"]


@pytest.mark.parametrize("count", [0, -5])
def test_counts_below_one_are_refused(tmp_path: Path, count: int) -> None:
    (stream,), _ = free_streams(tmp_path, [100], 1)
    with pytest.raises(UserError):
        stream.take(count)


def test_fewer_tokens_can_be_had_after_the_end_was_met(tmp_path: Path) -> None:
    (stream,), server = sequential_streams(tmp_path, [100], 1)
    with pytest.raises(EndOfData):
        stream.take(100)
    assert stream.take(99).tolist() == list(range(100))
    assert server is not None
    server.close()


def test_tokens_taken_count_on_after_a_seek(tmp_path: Path) -> None:
    (stream,), _ = free_streams(tmp_path, [100], 1)
    assert isinstance(stream, FreeStream)
    stream.take(60)
    stream.seek(0)
    stream.take(50)
    assert (stream.position, stream.taken) == (50, 110)
