"""The journal keeps every line through kills and races, and verify finds what was done to it afterwards."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import multiprocessing
import os
import resource
import signal
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from harness.cli.journal import app
from harness.errors import UserError
from harness.journal import CANNOT_FIND, MAX_LINE_BYTES, Journal, verify

SPAWN = multiprocessing.get_context("spawn")
SHORT = settings(max_examples=150, deadline=None)


def fill(path: Path, runs: int = 4) -> bytes:
    journal = Journal(path)
    for number in range(runs):
        journal.start(f"run-{number}", task="gcide", seed=number)
        journal.end(f"run-{number}", "judged", f"{number:064x}", val_loss=3.25 + number)
    return path.read_bytes()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("journals")


@pytest.fixture(scope="module")
def written(folder: Path) -> bytes:
    """A sound journal of four finished runs, eight lines."""
    return fill(folder / "sound.jsonl")


def problems_of(folder: Path, content: bytes) -> list[str]:
    path = folder / "tampered.jsonl"
    path.write_bytes(content)
    return [finding.what for finding in verify(path).problems]


def forge(*tables: dict) -> bytes:
    """A chain made again as a whole from these fields, as somebody who knows the format would."""
    lines: list[bytes] = []
    for table in tables:
        defaults = {
            "version": 1,
            "time": "2026-01-01T00:00:00.000+00:00",
            "status": None,
            "bundle_digest": None,
        }
        previous = hashlib.sha256(lines[-1]).hexdigest() if lines else "0" * 64
        chain = {"sequence": len(lines) + 1, "previous": previous, "facts": {}, "recovered_bytes": 0}
        lines.append(seal({**defaults, **chain, **table}))
    return b"".join(line + b"\n" for line in lines)


def seal(table: dict) -> bytes:
    """The line of a table, with a hash that fits it."""
    table = {name: value for name, value in table.items() if name != "hash"}
    digest = hashlib.sha256(json.dumps(table, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    return json.dumps({**table, "hash": digest}, sort_keys=True, separators=(",", ":")).encode()


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


@SHORT
@given(facts=st.dictionaries(st.text(max_size=20), st.text(st.characters(), max_size=200), max_size=5))
def test_facts_come_back_whatever_text_they_hold(folder: Path, facts: dict[str, str]) -> None:
    path = folder / "facts.jsonl"
    path.unlink(missing_ok=True)
    Journal(path).start("\n\ud800run", facts=facts)
    entry = Journal(path).entries()[0]
    assert (entry.run, entry.facts) == ("\n\ud800run", {"facts": facts})
    assert verify(path).ok


def test_a_diverged_loss_is_kept_as_text(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.start("run", losses=(1.0, math.inf), by_step={10: math.nan, 9: 1})
    assert journal.entries()[0].facts == {"losses": [1.0, "inf"], "by_step": {"10": "nan", "9": 1}}
    assert verify(journal.path).ok


def test_a_line_over_the_limit_is_refused_and_nothing_changes(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    before = fill(journal.path)
    with pytest.raises(UserError, match="65,536"):
        journal.start("run", output="\x00" * (MAX_LINE_BYTES // 6))
    assert journal.path.read_bytes() == before


def test_the_longest_line_allowed_is_read_back(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.start("run", output="")
    room = MAX_LINE_BYTES - len(journal.path.read_bytes())
    other = Journal(tmp_path / "full.jsonl")
    other.start("run", output="x" * room)
    assert len(other.path.read_bytes()) == MAX_LINE_BYTES
    assert verify(other.path).ok
    with pytest.raises(UserError):
        Journal(tmp_path / "over.jsonl").start("run", output="x" * (room + 1))


def test_the_api_refuses_what_verify_would_call_a_problem(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    with pytest.raises(UserError, match="never started"):
        journal.end("a", "judged", None)
    journal.start("a", parent={"run": "b"})
    journal.start("b")
    with pytest.raises(UserError, match="already there"):
        journal.start("a")
    journal.end("a", "crash", None)
    with pytest.raises(UserError, match="already there"):
        journal.end("a", "judged", None)
    assert [(entry.run, entry.event) for entry in journal.entries()] == [
        ("a", "start"),
        ("b", "start"),
        ("a", "end"),
    ]


def append_many(path: str, name: str, count: int) -> None:
    for number in range(count):
        Journal(path).start(f"{name}-{number}", text=name * 50)


def test_processes_appending_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "new" / "journal.jsonl"
    processes = [SPAWN.Process(target=append_many, args=(str(path), name, 25)) for name in "abcd"]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    found = verify(path)
    assert found.ok
    assert set(found.unfinished) == {f"{name}-{number}" for name in "abcd" for number in range(25)}


def append_until_killed(path: str, name: str, done: Connection) -> None:
    for number in range(100_000):
        run = f"{name}-{number}"
        Journal(path).start(run, text="x" * 20_000)
        done.send(run)


def test_a_killed_writer_loses_no_line_it_had_finished(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    finished = set()
    for name, lines in (("a", 1), ("b", 7), ("c", 12)):
        receiver, sender = SPAWN.Pipe(duplex=False)
        process = SPAWN.Process(target=append_until_killed, args=(str(journal.path), name, sender))
        process.start()
        sender.close()
        for _ in range(lines):
            finished.add(receiver.recv())
        assert process.pid
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        journal.start(f"after-{name}")
        assert verify(journal.path).ok
    assert finished <= {entry.run for entry in journal.entries()}


def append_with_room(path: str, room: int, answer: Connection) -> None:
    """Appends where the file can grow by `room` bytes: the kernel cuts the write short, as on a full disk."""
    size = Path(path).stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + room, resource.RLIM_INFINITY))
    try:
        Journal(path).start("refused")
        answer.send("written")
    except UserError as error:
        answer.send(str(error))


@pytest.mark.parametrize("torn", [b"", b'{"bundle_digest":"' + b"x" * 30])
@pytest.mark.parametrize("room", [0, 17])
def test_a_full_disk_changes_nothing(tmp_path: Path, torn: bytes, room: int) -> None:
    path = tmp_path / "journal.jsonl"
    before = fill(path, runs=1) + torn
    path.write_bytes(before)
    receiver, sender = SPAWN.Pipe(duplex=False)
    process = SPAWN.Process(target=append_with_room, args=(str(path), room, sender))
    process.start()
    assert "make room" in receiver.recv()
    process.join()
    assert path.read_bytes() == before


def test_a_write_cut_short_without_an_error_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "journal.jsonl"
    before = fill(path, runs=1)
    whole = os.pwrite
    monkeypatch.setattr(
        os, "pwrite", lambda descriptor, line, offset: whole(descriptor, line[: len(line) // 2], offset)
    )
    with pytest.raises(UserError, match="No space left"):
        Journal(path).start("refused")
    assert path.read_bytes() == before


@pytest.mark.parametrize("torn", [b"", b'{"bundle_digest":"x', b'{"bundle_digest":"' + b"x" * 3000])
def test_a_line_that_cannot_be_synced_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, torn: bytes
) -> None:
    path = tmp_path / "journal.jsonl"
    before = fill(path, runs=1) + torn
    path.write_bytes(before)

    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(UserError, match="Input/output error"):
        Journal(path).start("refused")
    assert path.read_bytes() == before


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EIO])
def test_a_journal_that_cannot_be_opened_is_an_error_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    path = tmp_path / "journal.jsonl"
    before = fill(path, runs=1)

    def refuse(*args: object, **options: object) -> int:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        for act in (Journal(path).entries, lambda: Journal(path).start("a"), lambda: verify(path)):
            with pytest.raises(UserError, match=str(path)) as caught:
                act()
            assert caught.value.remedy
    assert path.read_bytes() == before


def test_what_is_not_a_file_is_refused_and_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "file" / "journal.jsonl", Path("/dev/zero")):
        for act in (
            Journal(path).entries,
            lambda path=path: Journal(path).start("a"),
            lambda path=path: verify(path),
        ):
            with pytest.raises(UserError):
                act()


def test_no_journal_yet_means_no_entries_but_nothing_to_verify(tmp_path: Path) -> None:
    assert Journal(tmp_path / "none.jsonl").entries() == []
    with pytest.raises(UserError, match="No such file"):
        verify(tmp_path / "none.jsonl")


def test_the_verb_says_ok_and_what_it_cannot_find(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    fill(path)
    result = CliRunner().invoke(app, ["verify", str(path)])
    assert result.exit_code == 0
    assert CANNOT_FIND in result.output


def test_the_verb_exits_1_and_names_the_edited_line(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(fill(path).replace(b"5.25", b"3.25"))
    result = CliRunner().invoke(app, ["verify", str(path), "--json"])
    report = json.loads(result.output)
    assert result.exit_code == 1
    assert report["ok"] is False
    assert report["problems"][0]["line"] == 6


def test_the_verb_takes_a_published_hash_only_where_the_chain_has_it(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    fill(path)
    known = Journal(path).entries()[3].hash
    assert CliRunner().invoke(app, ["verify", str(path), "--expect", known]).exit_code == 0
    assert CliRunner().invoke(app, ["verify", str(path), "--expect", "f" * 64]).exit_code == 1
    for unusable in ("short", ""):
        refused = CliRunner().invoke(app, ["verify", str(path), "--expect", unusable])
        assert isinstance(refused.exception, UserError)


def test_show_lists_runs_with_their_state(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    fill(path, runs=2)
    Journal(path).start("still-going", submission="mine")
    report = json.loads(CliRunner().invoke(app, ["show", str(path), "--json"]).output)
    assert [(run["run"], run["status"]) for run in report["runs"]] == [
        ("run-0", "judged"),
        ("run-1", "judged"),
        ("still-going", "unfinished"),
    ]
    assert report["runs"][1]["facts"] == {"task": "gcide", "seed": 1, "val_loss": 4.25}
    assert "still-going" in CliRunner().invoke(app, ["show", str(path)]).output
