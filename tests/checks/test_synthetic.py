"""The made-up task has the shape of the real one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from harness.checks import synthetic
from harness.checks.synthetic import make_task, noise
from harness.core.data.shards import open_shard
from harness.core.task import load_task
from harness.submission import EvaluationShape
from tests.conftest import Toy

SHAPE = EvaluationShape(batch=8, length=32)


def test_everything_but_the_data_is_the_tasks(tmp_path: Path) -> None:
    real = load_task("gcide")
    made = make_task(real, EvaluationShape(batch=64, length=128), tmp_path)
    other = {"corpus", "shards"}
    assert made.model_dump(exclude=other) == real.model_dump(exclude=other)
    assert [shard.tokens for shard in made.of_split("train")] == [shard.tokens for shard in real.of_split("train")]
    assert made.of_split("validation")[0].tokens == 4 * 64 * 128 + 32 * 128 + 1
    for shard in made.shards:
        tokens = open_shard(made.data_folder(tmp_path) / shard.file, shard)
        assert tokens[0] == real.tokenizer.end_of_text
        assert tokens.max() < real.tokenizer.vocab_size


def test_documents_are_as_long_as_the_tasks() -> None:
    task = load_task("gcide")
    tokens = noise(task, 1_000_000, np.random.default_rng(0))
    lengths = np.diff(np.flatnonzero(tokens == task.tokenizer.end_of_text)) - 1
    quantiles = task.synthetic.document_tokens
    assert lengths.min() >= quantiles[0]
    assert lengths.max() <= quantiles[-1]
    assert np.median(lengths) == pytest.approx(quantiles[5], rel=0.1)


def test_a_large_corpus_is_cut(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "MAX_TRAIN_TOKENS", 40_000)
    made = make_task(toy.task, SHAPE, tmp_path)
    assert [shard.tokens for shard in made.of_split("train")] == [30_000, 10_000]


def test_a_task_for_gpus_alone_can_be_dry_run_on_a_cpu(toy: Toy, tmp_path: Path) -> None:
    only_cuda = toy.task.model_copy(
        update={
            "caps": {"cuda": toy.task.caps["cpu"]},
            "audit": toy.task.audit.model_copy(update={"tolerance": {"cuda": 0.5}}),
        }
    )
    assert make_task(only_cuda, SHAPE, tmp_path).caps["cpu"] == toy.task.caps["cpu"]
