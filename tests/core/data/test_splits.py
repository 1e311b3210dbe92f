"""Which document goes where."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from harness.core.data.documents import Document
from harness.core.data.splits import RUN_WORDS, group_documents, side, split_documents
from harness.core.data.windows import window_hashes

# Two-word vocabularies and short runs make shared runs common.
texts = st.lists(st.sampled_from(["to", "be"]), min_size=0, max_size=RUN_WORDS + 4).map(" ".join)
documents = st.lists(st.builds(Document, st.text("abc", min_size=1, max_size=3), texts), max_size=12)


def runs(document: Document) -> set[tuple[str, ...]]:
    words = document.text.split()
    return {tuple(words[start : start + RUN_WORDS]) for start in range(len(words) - RUN_WORDS + 1)}


@given(documents)
def test_documents_with_a_common_run_or_headword_are_one_group(found: list[Document]) -> None:
    groups = group_documents(found)
    for left, first in enumerate(found):
        for right, second in enumerate(found):
            if first.headword == second.headword or runs(first) & runs(second):
                assert groups[left] == groups[right]


@given(documents)
def test_a_group_is_held_together_by_common_runs_or_headwords(found: list[Document]) -> None:
    groups = group_documents(found)
    reached = {group: {group} for group in groups}
    for group, members in reached.items():
        grown = True
        while grown:
            near = {
                index
                for index, document in enumerate(found)
                for member in members
                if document.headword == found[member].headword or runs(document) & runs(found[member])
            }
            grown = not near <= members
            members |= near
        assert members == {index for index, other in enumerate(groups) if other == group}


def test_no_run_of_words_stands_on_two_sides() -> None:
    words = [f"w{number}" for number in range(2000)]
    shared = " ".join(words[:RUN_WORDS])
    found = [Document(f"h{number}", f"{words[number]} {shared} {words[-number]}") for number in range(300)]
    sizes = sorted(len(part) for part in split_documents(found).values())
    assert sizes == [0, 0, 300]


def test_the_side_of_a_document_depends_on_its_headword_alone() -> None:
    found = [Document(f"h{number}", f"text {number}") for number in range(500)]
    for name, part in split_documents(found).items():
        assert all(side(document.headword) == name for document in part)
    assert side("aardvark") == "train"


def test_the_shares_are_three_percent_each() -> None:
    sides = [side(f"word {number}") for number in range(20_000)]
    assert abs(sides.count("validation") / 20_000 - 0.03) < 0.005
    assert abs(sides.count("holdout") / 20_000 - 0.03) < 0.005


@given(st.randoms(use_true_random=False))
def test_the_order_within_a_split_does_not_depend_on_the_order_of_the_corpus(random) -> None:
    found = [Document(f"h{number:03}", f"text {number}") for number in range(60)]
    expected = split_documents(found)
    shuffled = random.sample(found, len(found))
    assert split_documents(shuffled) == expected


def test_the_order_within_a_split_is_shuffled() -> None:
    train = split_documents([Document(f"h{number:03}", f"text {number}") for number in range(500)])["train"]
    rising = sum(left.headword < right.headword for left, right in pairwise(train))
    assert 0.4 < rising / len(train) < 0.6


@given(st.lists(st.integers(0, 2), max_size=40), st.integers(1, 9))
def test_windows_have_equal_hashes_where_they_are_equal_and_only_there(values: list[int], width: int) -> None:
    hashes = window_hashes(np.array(values, dtype=np.uint16), width)
    windows = [tuple(values[start : start + width]) for start in range(len(values) - width + 1)]
    assert len(hashes) == len(windows)
    assert len(set(hashes.tolist())) == len(set(windows))
    assert len(set(zip(hashes.tolist(), windows, strict=True))) == len(set(windows))
