"""verify finds whatever was done to a journal after it was written, as far as a chain of hashes can tell."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import UserError
from harness.journal import Journal, verify
from tests.journal.chains import SHORT, forge, problems_of, seal


def test_a_sound_journal_has_no_problems(folder: Path, written: bytes) -> None:
    found = verify(folder / "sound.jsonl")
    assert (found.ok, found.lines, found.runs, found.unfinished) == (True, 8, 4, [])
    assert found.last_hash == Journal(folder / "sound.jsonl").entries()[-1].hash


@SHORT
@given(data=st.data())
def test_any_changed_byte_is_found(folder: Path, written: bytes, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(written) - 1))
    change = data.draw(st.integers(1, 255))
    assert problems_of(folder, written[:place] + bytes([written[place] ^ change]) + written[place + 1 :])


@SHORT
@given(data=st.data())
def test_any_dropped_line_before_the_last_is_found(folder: Path, written: bytes, data: st.DataObject) -> None:
    lines = written.splitlines(keepends=True)
    del lines[data.draw(st.integers(0, len(lines) - 2))]
    assert problems_of(folder, b"".join(lines))


@SHORT
@given(places=st.lists(st.integers(0, 7), min_size=2, max_size=2, unique=True))
def test_any_two_swapped_lines_are_found(folder: Path, written: bytes, places: list[int]) -> None:
    lines = written.splitlines(keepends=True)
    first, second = places
    lines[first], lines[second] = lines[second], lines[first]
    assert problems_of(folder, b"".join(lines))


@SHORT
@given(source=st.integers(0, 7), place=st.integers(0, 8))
def test_any_repeated_line_is_found(folder: Path, written: bytes, source: int, place: int) -> None:
    lines = written.splitlines(keepends=True)
    assert problems_of(folder, b"".join([*lines[:place], lines[source], *lines[place:]]))


@SHORT
@given(place=st.integers(0, 8), inserted=st.binary(max_size=40))
def test_any_inserted_bytes_that_make_a_line_are_found(
    folder: Path, written: bytes, place: int, inserted: bytes
) -> None:
    lines = written.splitlines(keepends=True)
    assert problems_of(folder, b"".join([*lines[:place], inserted + b"\n", *lines[place:]]))


@SHORT
@given(place=st.integers(0, 6), value=st.text(max_size=8))
def test_a_rewritten_line_with_a_fitting_hash_is_found_by_the_line_after_it(
    folder: Path, written: bytes, place: int, value: str
) -> None:
    lines = written.splitlines(keepends=True)
    lines[place] = seal({**json.loads(lines[place]), "facts": {"val_loss": value}}) + b"\n"
    assert any("does not continue" in what for what in problems_of(folder, b"".join(lines)))


def test_lines_cut_off_the_end_are_found_only_with_the_published_hash(folder: Path, written: bytes) -> None:
    published = verify(folder / "sound.jsonl").last_hash
    path = folder / "cut.jsonl"
    path.write_bytes(b"".join(written.splitlines(keepends=True)[:-2]))
    assert verify(path).ok
    assert not verify(path, expect=published).ok
    assert verify(folder / "sound.jsonl", expect=published).ok


@pytest.mark.parametrize(
    ("events", "what"),
    [
        ([("end", "a")], "without a start"),
        ([("start", "a"), ("start", "a")], "second start"),
        ([("start", "a"), ("end", "a"), ("end", "a")], "second end"),
    ],
)
def test_a_run_that_does_not_start_once_and_end_once_is_found(
    folder: Path, events: list[tuple[str, str]], what: str
) -> None:
    content = forge(*({"event": event, "run": run} for event, run in events))
    assert any(what in problem for problem in problems_of(folder, content))


def test_a_forged_sequence_is_found_though_every_hash_fits(folder: Path) -> None:
    content = forge({"event": "start", "run": "a"}, {"event": "start", "run": "b", "sequence": 5})
    assert any("sequence 5 where 2 belongs" in problem for problem in problems_of(folder, content))


@pytest.mark.parametrize(
    "wrong",
    [{"event": "pause", "run": "a"}, {"status": 5}, {"recovered_bytes": True}, {"version": 2}, {"extra": 1}],
)
def test_a_forged_line_with_a_wrong_field_is_found(folder: Path, wrong: dict) -> None:
    assert problems_of(folder, forge({"event": "start", "run": "a"}, {"event": "start", "run": "b", **wrong}))


def test_the_same_entry_written_with_other_spaces_is_found(folder: Path, written: bytes) -> None:
    *lines, last = written.splitlines(keepends=True)
    assert problems_of(folder, b"".join([*lines, last.replace(b",", b", ")]))


def test_an_unfinished_run_is_information_and_not_a_problem(tmp_path: Path) -> None:
    Journal(tmp_path / "journal.jsonl").start("killed")
    found = verify(tmp_path / "journal.jsonl")
    assert found.ok
    assert found.unfinished == ["killed"]


@SHORT
@given(content=st.one_of(st.binary(max_size=300), st.text('{}[]",:0123456789e-\n', max_size=300).map(str.encode)))
def test_arbitrary_bytes_are_reported_and_never_changed_by_a_refused_append(folder: Path, content: bytes) -> None:
    path = folder / "noise.jsonl"
    path.write_bytes(content)
    assert verify(path).ok == (content == b"")
    try:
        Journal(path).start("run")
    except UserError:
        assert path.read_bytes() == content
    else:
        assert b"\n" not in content
        assert Journal(path).entries()[0].recovered_bytes == len(content)


@pytest.mark.parametrize("line", [b"[" * 60_000, b"9" * 5_000, b'{"a":' * 10_000, b"NaN", b"\xff\xfe{}", b""])
def test_lines_that_break_parsers_are_problems(folder: Path, line: bytes) -> None:
    assert problems_of(folder, line + b"\n")


@SHORT
@given(cut=st.integers(1, 400), data=st.data())
def test_a_torn_last_line_is_no_entry_and_the_next_append_removes_it(
    folder: Path, written: bytes, cut: int, data: st.DataObject
) -> None:
    last = written.splitlines(keepends=True)[-1]
    kept = data.draw(st.integers(1, len(last) - 1))
    path = folder / "torn.jsonl"
    path.write_bytes(written[: len(written) - len(last) + kept])
    journal = Journal(path)
    assert len(journal.entries()) == 7
    assert [finding.line for finding in verify(path).problems] == [8]
    journal.start("next", text="x" * cut)
    assert verify(path).ok
    assert journal.entries()[-1].recovered_bytes == kept
    assert path.read_bytes().startswith(written[: len(written) - len(last)])
