"""`calibrate`, `race` and `resume` as people type them, with real runs of the seconds-sized task."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness.evidence.course import Ending
from harness.evidence.folder import read_campaign
from harness.journal import verify
from harness.paths import ROOT
from tests.conftest import Toy
from tests.toy_submission import write_submission


class Workshop:
    """Folders for runs and records, and a machine lock, of its own."""

    def __init__(self, toy: Toy, folder: Path) -> None:
        self.toy, self.folder, self.runs = toy, folder, folder / "runs"
        self.submission = write_submission(folder / "bigram")
        self.places = ["--data-dir", str(toy.data_dir), "--runs-dir", str(self.runs)]
        self.places += ["--records-dir", str(folder / "records")]
        self.environment = {**os.environ, "TMPDIR": str(folder)}

    def command(self, *arguments: object) -> list[str]:
        return [sys.executable, "-m", "harness.cli.main", *map(str, arguments), *self.places]

    def speedrun(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments), capture_output=True, text=True, cwd=ROOT, check=False, env=self.environment
        )

    def race(self, *arguments: object) -> list[str]:
        return self.command("race", self.submission, self.submission, "--task", self.toy.task.path, *arguments)


@pytest.fixture(scope="module")
def workshop(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """A workshop in which the toy task has been calibrated."""
    made = Workshop(toy, tmp_path_factory.mktemp("workshop"))
    done = made.speedrun("calibrate", toy.task.path, "--quick", "--with", made.submission, "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["calibration"]["runs"] == 6
    assert said["calibration"]["slope"]["nats_per_efold"] > 0
    assert Path(said["path"]).is_file()
    return made


def test_an_interrupted_race_is_resumed_to_a_verdict(workshop: Workshop) -> None:
    started = subprocess.Popen(
        workshop.race("--set", "steps=60", "--pairs", 4), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        cwd=ROOT, env=workshop.environment,
    )  # fmt: skip
    assert started.stderr is not None
    said = []
    for line in started.stderr:
        said.append(line)
        if "1 of 4: reference" in line:
            started.send_signal(signal.SIGINT)
            break
    rest = started.communicate()
    assert started.returncode == 130, "".join(said) + rest[1]
    assert "go on with: speedrun resume" in rest[1]
    assert "to resolve 1% here takes about" in "".join(said)

    done = workshop.speedrun("resume", "--json")
    assert done.returncode == 0, done.stderr
    verdict = json.loads(done.stdout)
    assert {"verdict", "ratio", "ratio_low", "ratio_high", "pairs", "p_target"} <= verdict.keys()
    assert verdict["pairs"] == 4
    assert verdict["ratio_low"] <= verdict["ratio"] <= verdict["ratio_high"]

    campaign = read_campaign(Path(verdict["folder"]))
    assert len(campaign.course.blocks) == 4
    counted = [(line.block, line.arm, line.attempt) for line in campaign.lines if line.ending is Ending.COUNTS]
    assert len(counted) == len(set(counted)) >= 8  # a busy machine repeats pairs, never a finished run
    assert json.loads((campaign.folder / "verdict.json").read_text()) == verdict["details"]
    assert verify(workshop.runs / "journal.jsonl").ok

    again = workshop.speedrun("resume", campaign.plan.id)
    assert again.returncode == 0, again.stderr
    words = ["equal-loss ratio", "why", "raw seconds", "target", "calibration", "verdict"]
    places = [again.stdout.index(f"\n{word}") for word in words]
    assert places == sorted(places)
    assert len(read_campaign(campaign.folder).lines) == len(campaign.lines)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("resume", "nothing"), "no such campaign"),
        (("race", "nothing", "baseline"), "no such submission"),
        (("race", "best", "baseline"), "there is no record yet"),
        (("race", "baseline", "baseline", "--set", "lr=1"), "no [hparams.lr]"),
        (("race", "baseline", "baseline", "--reference-drop", "muon"), "no [methods.muon]"),
        (("race", "baseline", "baseline", "--class", "fast"), "unknown hardware class"),
        (("calibrate", "chess"), "unknown task"),
    ],
)
def test_what_the_user_can_fix_is_one_line(workshop: Workshop, arguments: tuple[str, ...], said: str) -> None:
    done = workshop.speedrun(*arguments)
    assert done.returncode == 1
    assert said in done.stderr
    assert "remedy:" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_race_without_calibration_says_how_to_get_one(toy: Toy, tmp_path: Path) -> None:
    done = subprocess.run(
        Workshop(toy, tmp_path).race(), capture_output=True, text=True, cwd=ROOT, check=False,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 1
    assert "speedrun calibrate" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_the_words_of_a_foreign_plan_cannot_steer_the_terminal() -> None:
    from rich.console import Console

    from harness.cli import output

    console = Console(width=120)
    with console.capture() as captured:
        console.print(output.drawn_table(("pair",), [("\x1b[2J",)], title="[red]\x1b]0;owned\x07[/red]"))
    assert "\x1b" not in captured.get()
    assert "[red]" in captured.get()
