"""A seconds-sized task: 64 token ids, text from a small Markov chain, in the same files as a real one."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from harness.core.data.prepare import verify
from harness.core.data.shards import write_shard
from harness.core.task import Task, load_task
from tests import GPU

needs_gpu = pytest.mark.skipif(not GPU, reason="there is no NVIDIA GPU here")
DEVICE = "cuda" if GPU else "cpu"  # of tests of kernels: compiled there, interpreted here

VOCABULARY = 64
END_OF_TEXT = 63

TASK = """
name = "toy"
title = "A Markov chain"
order = "{order}"
imports = ["harness", "torch", "math", "threading"]

[target]
val_loss = 3.9
provisional = true
reason = "a little below the loss of a uniform guess, 4.16"

[tokenizer]
file = "toy.tiktoken"
sha256 = "{tokenizer_sha256}"
pattern = "."
vocab_size = 64
end_of_text = 63

[synthetic]
document_tokens = [1, 20, 40]

[evaluation]
max_length = 128
max_batch_tokens = 8192
[audit]
share = 0.1
rows = 32
tolerance = {{ cpu = 0.001 }}
nats_gained = 0.0005
{shards}
[caps.cpu]
setup_cpu_seconds = 60
compile_cpu_seconds = 0
timeout_seconds = {timeout}
host_load_cpu_seconds = 10
judging_seconds = 60
judging_cpu_seconds = 60
source_bytes = 65536
line_bytes = 2048
numeric_literals = 512
weights_bytes = 10000000
memory_bytes = 8589934592
output_bytes = 65536
log_lines = 1000
"""

SHARD = """
[[shards]]
file = "{file}"
split = "{split}"
tokens = {tokens}
documents = {documents}
text_bytes = {tokens}
sha256 = "{sha256}"
"""


@dataclass(frozen=True)
class Toy:
    """The task and where its prepared data lies."""

    task: Task
    data_dir: Path


def markov_tokens(count: int, seed: int) -> np.ndarray:
    """Tokens [count], uint16: each is mostly its predecessor plus one; an end-of-text begins every 40th."""
    random = np.random.default_rng(seed)
    steps = np.where(random.random(count) < 0.8, 1, random.integers(0, 62, count))
    tokens = (np.cumsum(steps) % 62).astype(np.uint16)
    tokens[::40] = END_OF_TEXT
    return tokens


def make_toy(folder: Path, order: str = "free", timeout: float = 60) -> Toy:
    """Writes the task file, its tokenizer and its shards."""
    tokenizer = b"".join(base64.b64encode(bytes([i])) + f" {i}\n".encode() for i in range(VOCABULARY - 1))
    (folder / "toy.tiktoken").write_bytes(tokenizer)
    data = folder / "data" / "toy"
    data.mkdir(parents=True)
    shards = ""
    for index, (split, count) in enumerate(
        [("train", 30_000), ("train", 20_001), ("validation", 3_000), ("holdout", 2_000)]
    ):
        file = f"toy_{split}_{index:06d}.bin"
        write_shard(data / file, markov_tokens(count, seed=index))
        sha256 = hashlib.sha256((data / file).read_bytes()).hexdigest()
        shards += SHARD.format(file=file, split=split, tokens=count, documents=-(-count // 40), sha256=sha256)
    path = folder / "toy.toml"
    tokenizer_sha256 = hashlib.sha256(tokenizer).hexdigest()
    path.write_text(TASK.format(order=order, timeout=timeout, tokenizer_sha256=tokenizer_sha256, shards=shards))
    task = load_task(path)
    assert verify(task, folder / "data") == []
    return Toy(task, folder / "data")


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    return make_toy(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="session")
def sequential_toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    return make_toy(tmp_path_factory.mktemp("sequential"), order="sequential")
