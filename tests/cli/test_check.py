"""`speedrun check` as people and programs meet it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.checks.cheats import kinds
from harness.checks.rules import RULES
from harness.cli.main import app
from tests.conftest import Toy
from tests.toy_submission import SCRIPT, write_submission


def check(toy: Toy, folder: Path, *options: str):
    return CliRunner().invoke(app, ["check", str(folder), "--task", str(toy.task.path), *options])


def test_a_good_submission_passes(toy: Toy, tmp_path: Path) -> None:
    done = check(toy, write_submission(tmp_path / "bigram"), "--json")
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert said["status"] == "passed"
    assert [rule["id"] for rule in said["rules"]] == [rule.id for rule in RULES]
    assert {rule["status"] for rule in said["rules"]} == {"ok", "skipped"}


def test_a_failure_names_rule_place_and_remedy_in_80_columns(toy: Toy, tmp_path: Path) -> None:
    done = check(toy, write_submission(tmp_path / "bigram", SCRIPT + "import socket, ctypes\n" + "# " + "word " * 40))
    assert done.exit_code == 1
    lines = done.stdout.splitlines()
    assert any(line.startswith("FAILED   imports") for line in lines)
    assert any(line.startswith("skipped  dry-run") for line in lines)
    assert "imports socket" in done.stdout
    assert "imports ctypes" in done.stdout
    assert "remedy: allowed: harness, torch" in done.stdout
    assert lines[-1].startswith("FAILED: imports")
    assert max(map(len, lines)) <= 80


def test_a_failure_in_json(toy: Toy, tmp_path: Path) -> None:
    done = check(toy, write_submission(tmp_path / "bigram", "def ("), "--json")
    assert done.exit_code == 1
    said = json.loads(done.stdout)
    failed = [rule for rule in said["rules"] if rule["status"] == "FAILED"]
    assert said["status"] == "failed"
    assert [rule["id"] for rule in failed] == ["valid-python"]
    assert failed[0]["failures"][0]["remedy"]


def test_a_hostile_message_cannot_steer_the_terminal(toy: Toy, tmp_path: Path) -> None:
    folder = write_submission(tmp_path / "bigram")
    (folder / "\x1b[2Jowned").write_text("")
    done = check(toy, folder)
    assert done.exit_code == 1
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize("width", [80, 120])
def test_explain_prints_every_rule_and_every_cheat_whole(width: int) -> None:
    done = CliRunner().invoke(app, ["check", "--explain"], env={"COLUMNS": str(width)})
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert width - 10 < max(map(len, lines)) <= width
    assert all(any(line.startswith(f"{rule.id} ") for line in lines) for rule in RULES)
    assert all(any(line.startswith(f"{kind.id} ") and line.endswith(kind.status) for line in lines) for kind in kinds())
    text = "".join(done.stdout.split())
    for kind in kinds():
        for part in (kind.what, kind.defence.replace("`", ""), ", ".join(kind.shown_by).replace("::", ": ")):
            assert "".join(part.split()) in text


def test_without_a_submission_it_is_a_usage_error() -> None:
    assert CliRunner().invoke(app, ["check"]).exit_code == 2
