"""The audit counts copies exactly."""

from __future__ import annotations

import numpy as np
import pytest

from harness.core.data import audit as auditing
from harness.core.data.audit import RUN, STOCK_PHRASE, WINDOW, Corpus, count_shared_windows, nearest_documents

END = 99


def corpus(*documents: list[int]) -> Corpus:
    return Corpus.of(np.concatenate([[END, *document] for document in documents]).astype(np.uint16), END)


def text(seed: int, length: int = 60) -> list[int]:
    return np.random.default_rng(seed).integers(0, 90, length).tolist()


@pytest.mark.parametrize("block", [1, 7, 64, 1000])
@pytest.mark.parametrize("seed", range(4))
def test_shared_windows_are_counted_at_every_offset(seed: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(seed)
    training = random.integers(0, 3, 400)
    held = random.integers(0, 3, 300)
    for _ in range(3):
        length, source, target = random.integers(40, 120), random.integers(0, 280), random.integers(0, 180)
        held[target : target + length] = training[source : source + length]
    windows = {tuple(training[start : start + WINDOW]) for start in range(400 - WINDOW + 1)}
    expected = sum(tuple(held[start : start + WINDOW]) in windows for start in range(300 - WINDOW + 1))
    monkeypatch.setattr(auditing, "SCAN_BLOCK", block)
    for cuts in ([], [1, 2, 50, 130, 131, 399], [200]):
        parts = np.split(training.astype(np.uint16), cuts)
        assert count_shared_windows(held.astype(np.uint16), parts) == expected > 0


def test_splits_shorter_than_a_window_share_none() -> None:
    short, long = np.zeros(10, dtype=np.uint16), np.zeros(100, dtype=np.uint16)
    assert count_shared_windows(short, [short]) == count_shared_windows(short, [long]) == 0
    assert count_shared_windows(long, [short]) == 0


@pytest.mark.parametrize("block", [11, 1000])
def test_a_copy_is_found_with_the_document_it_copies(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auditing, "BLOCK", block)
    copied = text(1)
    training = corpus(text(2), [*text(3, 20), *copied, *text(4, 20)], text(5))
    held = corpus(text(6), copied, [*copied[:30], *text(7, 30)])
    nearest, shares = nearest_documents(held, training)
    assert nearest[1:].tolist() == [1, 1]
    assert shares[0] == 0
    assert shares[1] == 1
    assert shares[2] == pytest.approx((30 - RUN + 1) / (60 - RUN + 1))


def test_a_share_is_of_one_training_document_not_of_all() -> None:
    copied = text(1)
    training = corpus([*copied[:30], *text(2)], [*text(3), *copied[30:]])
    assert nearest_documents(corpus(copied), training)[1][0] < 0.5


def test_runs_across_two_documents_do_not_count() -> None:
    left, right = text(1), text(2)
    training = corpus([*left, *right])
    assert nearest_documents(corpus(left, right), training)[1].tolist() == [1, 1]
    straddling = corpus([*left[-4:], *right[:4], *text(3)])
    assert nearest_documents(straddling, corpus(left, right))[1].tolist() == [0]


def test_stock_phrases_and_short_documents_are_not_copies() -> None:
    phrase = text(1, 40)
    common = corpus(*([*phrase, number % 90, number // 90] for number in range(STOCK_PHRASE + 1)))
    assert nearest_documents(corpus(phrase), common)[1][0] == 0
    short = text(2, 20)
    assert nearest_documents(corpus(short), corpus(short))[1][0] == 0
