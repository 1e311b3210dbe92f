"""`speedrun journal verify` and `show`: exit codes, and what they say."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from harness.cli.journal import app
from harness.errors import UserError
from harness.journal import CANNOT_FIND, Journal
from tests.journal.chains import fill


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
