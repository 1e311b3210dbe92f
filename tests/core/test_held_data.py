"""Weights that carry the training data along are found, whatever their dtype; weights that learned from it are not."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.core import weights
from harness.core.data.serve import ShardFile
from harness.core.data.shards import write_shard
from harness.core.held_data import tensors_holding_tokens
from harness.core.weights import WeightsFile

TOKENS = np.random.default_rng(3).integers(0, 1000, 100_000).astype(np.uint16)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[ShardFile]:
    folder = tmp_path_factory.mktemp("shards")
    files = []
    for index, part in enumerate(np.split(TOKENS, 2)):
        path: Path = folder / f"{index}.bin"
        write_shard(path, part)
        files.append(ShardFile(os.open(path, os.O_RDONLY), len(part)))
    return files


def held(shards: list[ShardFile], **tensors: torch.Tensor) -> list[str]:
    model = torch.nn.Module()
    for name, tensor in tensors.items():
        model.register_buffer(name, tensor)
    specs, values = weights.describe(model)
    file = WeightsFile(specs, max_bytes=1 << 30)
    weights.write(file.descriptor, specs, values)
    file.seal()
    try:
        return tensors_holding_tokens(file, shards)
    finally:
        file.close()


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int16, torch.float32, torch.float64, torch.float16])
def test_tokens_stored_as_numbers_are_found(shards: list[ShardFile], dtype: torch.dtype) -> None:
    kept = torch.from_numpy(TOKENS[20_000:40_000].astype(np.int64)).to(dtype)
    assert held(shards, weight=torch.randn(100, 100), kept=kept) == ["kept"]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bfloat16, torch.float32])
def test_tokens_stored_as_raw_bytes_are_found(shards: list[ShardFile], dtype: torch.dtype) -> None:
    kept = torch.from_numpy(TOKENS[:40_000].view(np.uint8).copy()).view(dtype)
    assert held(shards, kept=kept) == ["kept"]


def test_a_part_of_a_tensor_is_enough(shards: list[ShardFile]) -> None:
    mostly_zero = torch.zeros(200_000, dtype=torch.int32)
    mostly_zero[50_000:70_000] = torch.from_numpy(TOKENS[:20_000].astype(np.int32))
    assert held(shards, kept=mostly_zero) == ["kept"]


def test_honest_buffers_pass(shards: list[ShardFile]) -> None:
    counts = torch.from_numpy(np.bincount(TOKENS[:-1].astype(np.int64) * 1000 + TOKENS[1:], minlength=10**6))
    positions, mask = torch.arange(100_000), torch.tril(torch.ones(512, 512, dtype=torch.bool))
    assert held(shards, weight=torch.randn(300, 300), counts=counts, positions=positions, mask=mask) == []
    assert held(shards, zeros=torch.zeros(100_000), ones=torch.ones(100_000), small=torch.randn(3)) == []


def test_other_text_of_the_same_kind_passes(shards: list[ShardFile]) -> None:
    other = np.random.default_rng(4).integers(0, 1000, 50_000)
    assert held(shards, kept=torch.from_numpy(other)) == []
