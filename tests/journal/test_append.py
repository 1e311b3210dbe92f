"""The journal keeps every line through kills, races and full disks, and refuses what it could not read again."""

from __future__ import annotations

import errno
import math
import multiprocessing
import os
import resource
import signal
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import UserError
from harness.journal import MAX_LINE_BYTES, Journal, verify
from tests.journal.chains import SHORT, fill

SPAWN = multiprocessing.get_context("spawn")


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
