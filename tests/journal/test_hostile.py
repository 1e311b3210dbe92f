"""A journal that somebody prepared, and one that somebody changes or keeps while it is being used."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness import journal_file
from harness.bundle import changed_bundles
from harness.cli.journal import app
from harness.errors import UserError
from harness.journal import MAX_PROBLEMS, Journal, verify
from tests.journal.chains import fill, forge, problems_of

START = {"event": "start", "run": "a"}


@pytest.mark.parametrize("content", [b"precious", b'{"bundle_digest" ', b'{"bundle_digest":' + b"x" * 70_000, b" \0"])
def test_an_end_that_no_writer_left_is_reported_and_kept(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "journal.jsonl"
    before = fill(path) + content
    path.write_bytes(before)
    with pytest.raises(UserError, match="no writer of the journal left"):
        Journal(path).start("next")
    assert path.read_bytes() == before
    assert "takes no further line" in verify(path).problems[-1].what


def test_zeros_that_a_power_cut_left_are_removed(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(fill(path) + b'{"bundle' + bytes(100))
    Journal(path).start("next")
    assert Journal(path).entries()[-1].recovered_bytes == 108


def test_a_link_is_refused_and_what_it_names_is_kept(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("")
    path = tmp_path / "journal.jsonl"
    path.symlink_to(tmp_path / "precious")
    for act in (lambda: Journal(path).start("a"), Journal(path).entries, lambda: verify(path)):
        with pytest.raises(UserError, match="a link"):
            act()
    assert (tmp_path / "precious").read_text() == ""


def test_a_journal_moved_aside_before_it_is_locked_gets_no_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, aside = tmp_path / "journal.jsonl", tmp_path / "aside.jsonl"
    before = fill(path)
    lock = fcntl.flock

    def move_first(descriptor: int, kind: int) -> None:
        if not aside.exists():
            path.rename(aside)
        lock(descriptor, kind)

    monkeypatch.setattr(fcntl, "flock", move_first)
    Journal(path).start("next")
    assert aside.read_bytes() == before
    assert [entry.run for entry in Journal(path).entries()] == ["next"]


def test_a_lock_that_somebody_keeps_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "journal.jsonl"
    fill(path)
    monkeypatch.setattr(journal_file, "LOCK_SECONDS", 0.0)
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        for act in (lambda: Journal(path).start("a"), lambda: verify(path)):
            with pytest.raises(UserError, match="locked"):
                act()


def test_a_line_of_100_mb_is_a_problem_and_not_an_entry(tmp_path: Path) -> None:
    assert any("longer than a line" in what for what in problems_of(tmp_path, b'"' + b"x" * 100_000_000 + b'"\n'))


def test_a_sparse_file_of_a_terabyte_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    fill(path)
    os.truncate(path, 1 << 40)
    for act in (lambda: Journal(path).start("a"), Journal(path).entries, lambda: verify(path)):
        with pytest.raises(UserError, match="1,099,511,627,776 bytes"):
            act()


def test_a_file_of_line_breaks_does_not_fill_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b"\n" * (journal_file.MAX_LINES + 1))
    with pytest.raises(UserError, match="1,000,000 lines"):
        verify(path)


def test_noise_is_reported_up_to_a_limit(tmp_path: Path) -> None:
    problems = problems_of(tmp_path, b"noise\n" * 5000)
    assert len(problems) == MAX_PROBLEMS + 1
    assert "stopped at line 1,000 of 5,000" in problems[-1]
    result = CliRunner().invoke(app, ["verify", str(tmp_path / "tampered.jsonl")])
    assert result.exit_code == 1
    assert "and 981 more" in result.output


@pytest.mark.parametrize(
    "wrong",
    [
        {"sequence": 10**4299},
        {"sequence": 0},
        {"sequence": 2**64},
        {"recovered_bytes": -1},
        {"facts": {"deep": json.loads("[" * 500 + "]" * 500)}},
        {"facts": {"huge": 10**300}},
    ],
)
def test_a_forged_line_that_would_break_what_reads_it_is_a_problem(tmp_path: Path, wrong: dict) -> None:
    assert any("not an entry" in what for what in problems_of(tmp_path, forge(START, {**START, "run": "b", **wrong})))
    path = tmp_path / "tampered.jsonl"
    for act in (lambda: Journal(path).start("next"), Journal(path).entries):
        with pytest.raises(UserError, match="line 2"):
            act()


@pytest.mark.parametrize("value", [10**30, json.loads("[" * 100 + "]" * 100), b"bytes", {1, 2}])
def test_facts_that_could_not_be_read_again_are_not_written(tmp_path: Path, value: object) -> None:
    path = tmp_path / "journal.jsonl"
    before = fill(path)
    with pytest.raises(UserError, match="facts that the journal cannot hold"):
        Journal(path).start("next", value=value)
    assert path.read_bytes() == before


def relinked(folder: Path, run: str, content: bytes) -> Path:
    """A chain made again so that it closes a run with whatever its run.json holds now."""
    digest = hashlib.sha256(content).hexdigest()
    end = {"event": "end", "run": run, "status": "judged", "bundle_digest": digest}
    (folder / "journal.jsonl").write_bytes(forge({**START, "run": run}, end))
    return folder / "journal.jsonl"


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b'{"digests": 5}', b"[" * 5000, b'{"digests": {"log": []}}', b"\xff"]
)
def test_a_bundle_that_a_relinked_chain_vouches_for_is_still_looked_at(tmp_path: Path, content: bytes) -> None:
    path = relinked(tmp_path, "a", content)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "run.json").write_bytes(content)
    result = CliRunner().invoke(app, ["verify", str(path)])
    assert result.exit_code == 1
    assert "no harness wrote it" in result.output


@pytest.mark.parametrize("run", ["../outside", "..", ".", "/etc", "a/b", "", "a\0b"])
def test_a_run_whose_name_leads_out_of_the_runs_folder_is_a_problem(tmp_path: Path, run: str) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "run.json").write_bytes(b"{}")
    path = relinked(tmp_path, run, b"{}")
    result = CliRunner().invoke(app, ["verify", str(path)])
    assert result.exit_code == 1
    assert "not the name of a folder" in result.output


@pytest.mark.parametrize("kind", ["pipe", "link", "folder", "sparse", "missing"])
def test_parts_of_a_bundle_that_are_no_plain_files_are_changes(tmp_path: Path, kind: str) -> None:
    kept = {"digests": {"log": hashlib.sha256(b"").hexdigest(), "output": hashlib.sha256(b"").hexdigest()}}
    content = json.dumps(kept).encode()
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "run.json").write_bytes(content)
    (tmp_path / "a" / "output.txt").write_bytes(b"")
    closed = {"a": hashlib.sha256(content).hexdigest()}
    log = tmp_path / "a" / "log.jsonl"
    if kind == "pipe":
        os.mkfifo(log)
    elif kind == "link":
        log.symlink_to("output.txt")
    elif kind == "folder":
        log.mkdir()
    elif kind == "sparse":
        log.touch()
        os.truncate(log, 1 << 40)
    assert changed_bundles(tmp_path, closed) == ["a: log.jsonl was changed after the run"]


def test_names_in_a_journal_cannot_steer_the_terminal(tmp_path: Path) -> None:
    name = "\x1b]0;owned\x07\x1b[2J\u202e[red]\nok: every line continues the one before\ud800"
    (tmp_path / "journal.jsonl").write_bytes(forge({"event": "start", "run": name, "facts": {name: name}}))
    for verb in ("verify", "show"):
        output = CliRunner().invoke(app, [verb, str(tmp_path / "journal.jsonl")]).output
        assert not {"\x1b", "\x07", "\u202e", "\ud800"} & set(output)
        assert r"\x1b]0;owned\x07\x1b[2J\u202e[red]\nok: every" in output.replace("\n", "")
        said = CliRunner().invoke(app, [verb, str(tmp_path / "journal.jsonl"), "--json"]).output
        assert said.isascii()
        assert json.loads(said)
