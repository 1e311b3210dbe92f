"""`speedrun tune` and `speedrun budget` as people type them."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.cli.main import app
from harness.paths import ROOT
from harness.submission import load_submission
from harness.tuning.worker import Order
from tests.conftest import Toy
from tests.tuning.fake_workers import FakeWorkers, answer
from tests.tuning.toy_tuning import PROTOCOL, write_tuning


def speedrun(toy: Toy, folder: Path, verb: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(toy, folder, verb, *arguments), capture_output=True, text=True, cwd=ROOT, check=False)


def command(toy: Toy, folder: Path, verb: str, *arguments: object) -> list[str]:
    places = ["--task", toy.task.path, "--data-dir", toy.data_dir, "--runs-dir", folder.parent / "runs"]
    return [sys.executable, "-m", "harness.cli.main", *map(str, [verb, folder, *places, *arguments])]


def test_a_plan_prints_what_it_costs_and_runs_nothing(toy: Toy, tmp_path: Path) -> None:
    folder = write_tuning(toy, tmp_path / "bigram", PROTOCOL.replace("seconds = 5", "seconds = 3600")).folder
    done = speedrun(toy, folder, "tune", "--plan")
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert (
        ["scout", "2", "2", "1.0"] in rows and ["search", "2", "2", "2.0"] in rows and ["all", "4", "4", "3.0"] in rows
    )
    assert not (tmp_path / "runs").exists()


def test_a_stage_is_run_with_its_progress_and_reported(toy: Toy, tmp_path: Path) -> None:
    folder = write_tuning(toy, tmp_path / "bigram").folder
    early = speedrun(toy, folder, "tune", "--report")
    assert early.returncode == 1 and "no trial yet" in early.stderr
    done = speedrun(toy, folder, "tune", "--stage", "scout")
    assert done.returncode == 0, done.stderr
    assert "2 of 2" in done.stdout and "best" in done.stdout and "0.0 h left" in done.stdout
    reported = speedrun(toy, folder, "tune", "--report")
    assert reported.returncode == 0, reported.stderr
    assert "| scout | 2 | 0 |" in (folder / "tuning" / "report.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stage", "confirm"], "--stage confirm: not in the protocol"),
        (["--workers", "0"], "--workers 0"),
        (["--adopt"], "no finalist has run on every seed"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_a_remedy(
    toy: Toy, tmp_path: Path, arguments: list[str], message: str
) -> None:
    done = speedrun(toy, write_tuning(toy, tmp_path / "bigram").folder, "tune", *arguments)
    assert done.returncode == 1
    assert message in done.stderr and "remedy:" in done.stderr and "Traceback" not in done.stderr


def test_being_asked_to_end_keeps_what_was_run(toy: Toy, tmp_path: Path) -> None:
    folder = write_tuning(toy, tmp_path / "bigram").folder
    process = subprocess.Popen(
        command(toy, folder, "tune"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout is not None
    while "1 of 2" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate()
    assert process.returncode == 130, said
    assert "the same command goes on" in said
    assert len((folder / "tuning" / "trials.csv").read_text().splitlines()) == 2
    journal = [json.loads(line) for line in (tmp_path / "runs" / "journal.jsonl").read_text().splitlines()]
    assert sum(entry["event"] == "start" for entry in journal) == sum(entry["event"] == "end" for entry in journal)


def test_the_smallest_budget_is_one_object(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def say(order: Order) -> str:
        steps = int(dict(setting.split("=") for setting in order.settings)["steps"])
        return answer(3.9 - 0.1 * math.log(steps / 40))

    FakeWorkers(monkeypatch, say)
    folder = write_tuning(toy, tmp_path / "bigram").folder
    verb = command(toy, folder, "budget", "--margin=0.01")[3:]
    said = json.loads(CliRunner().invoke(app, [*verb, "--json"], catch_exceptions=False).output)
    assert said["name"] == "steps" and said["margin"] == 0.01
    assert said["budget"] == pytest.approx(40 * math.exp(0.1), abs=1)
    assert len((folder / "tuning" / "budget.csv").read_text().splitlines()) == said["runs"] + 1
    again = CliRunner().invoke(app, verb, catch_exceptions=False).output  # nothing is left to run
    assert f"smallest budget: steps = {said['budget']}" in again and "seed" not in again
    assert load_submission(folder, toy.task).hparams([])["steps"] == 30
    adopted = CliRunner().invoke(app, [*verb, "--adopt"], catch_exceptions=False)
    assert adopted.exit_code == 0 and load_submission(folder, toy.task).hparams([])["steps"] == said["budget"]


CHECKED = """
[stages.finalists]
points = 1
seeds = 1

[stages.checks]
knobs = ["lr"]
seeds = 1
"""


def test_checks_wait_until_the_best_finalist_is_declared(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def say(order: Order) -> str:
        lr = float(dict(setting.split("=") for setting in order.settings)["lr"])
        return answer(3.9 + abs(math.log(lr / 20)))

    workers = FakeWorkers(monkeypatch, say)
    folder = write_tuning(toy, tmp_path / "bigram", PROTOCOL + CHECKED).folder

    def tune(*arguments: str) -> str:
        return CliRunner().invoke(app, command(toy, folder, "tune", *arguments)[3:], catch_exceptions=False).output

    said = " ".join(tune().split())
    assert "checks wait: they are about the declared point, which is not the best finalist" in said
    assert len(workers.orders) == 2 + 2 + 2  # scouts, search, the declared point and the best of the search
    assert "declared now: lr = " in tune("--adopt")
    assert "checks wait" not in tune()
    assert len(workers.orders) == 2 + 2 + 2 + 3
