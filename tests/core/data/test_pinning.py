"""What a maintainer pins is what anyone builds."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from harness.core.data.pinning import PINNED, pin_shards, pin_tokenizer, pinned_tables
from harness.core.data.prepare import Built
from harness.core.task import Task, load_task
from harness.errors import UserError
from tests.core.data.small_corpus import SmallCorpus


@pytest.fixture
def task(small_corpus: SmallCorpus, tmp_path: Path) -> Task:
    """The small task in a folder of this test's own."""
    for path in (small_corpus.task.path, small_corpus.task.tokenizer_path):
        shutil.copy(path, tmp_path)
    return load_task(tmp_path / "small.toml")


def silent(message: str) -> None:
    """Progress that nobody reads."""


def test_pinning_again_changes_nothing(task: Task, small_corpus: SmallCorpus) -> None:
    assert pin_shards(task, small_corpus.wheel.read_bytes(), silent).digest == task.digest
    assert pin_tokenizer(task).digest == task.digest


def test_pinning_replaces_stale_shards_and_nothing_above_them(task: Task, small_corpus: SmallCorpus) -> None:
    text = task.path.read_text()
    task.path.write_text(text.replace(task.shards[0].sha256, "0" * 64))
    pin_shards(load_task(task.path), small_corpus.wheel.read_bytes(), silent)
    assert task.path.read_text() == text


def test_the_lengths_are_the_quantiles_of_training_documents(small_corpus: SmallCorpus) -> None:
    built = Built(small_corpus.task.shards, np.arange(1001))
    assert pinned_tables(built).splitlines()[1] == (
        "document_tokens = [0, 100, 200, 300, 400, 500, 600, 700, 800, 900, 1000]"
    )


def test_a_task_file_without_the_line_is_left_alone(task: Task, small_corpus: SmallCorpus) -> None:
    text = task.path.read_text().replace(PINNED, "")
    task.path.write_text(text)
    with pytest.raises(UserError, match=r"small\.toml: has no line"):
        pin_shards(task, small_corpus.wheel.read_bytes(), silent)
    assert task.path.read_text() == text


def test_a_tokenizer_table_without_sha256_is_named(task: Task) -> None:
    task.path.write_text(task.path.read_text().replace(task.tokenizer.sha256, "none"))
    with pytest.raises(UserError, match=r"no line `sha256 = ...` under \[tokenizer\]"):
        pin_tokenizer(task)
