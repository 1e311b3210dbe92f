"""A records folder of its own, whose submissions cost nothing to run."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from click.testing import Result
from typer.testing import CliRunner

from harness.campaign import Request
from harness.cli.main import app
from harness.errors import UserError
from harness.evidence.calibration import write_calibration
from harness.evidence.record_checks import check_records
from harness.evidence.sides import Where
from tests.conftest import Toy
from tests.evidence.fake import FakeRunner, Given, calibration
from tests.toy_submission import MANIFEST, SCRIPT, write_submission


class Board:
    """A records folder with submissions whose speed stands in their title: `speed 0.8` takes 0.8 of the time."""

    def __init__(self, toy: Toy, folder: Path) -> None:
        self.toy, self.folder = toy, folder
        self.where = Where("toy", "cpu-1thread", folder / "records")
        self.loss = 3.8
        self.steps: float | None = None  # of a submission of speed 1, on a task that counts them
        self.runner = FakeRunner(self.outcome)
        write_calibration(self.where, calibration())

    def outcome(self, request: Request) -> Given:
        drawn = random.Random(f"{request.submission.name} {request.facts['number']}")  # the same in every test run
        factor = float(request.submission.manifest.title.split()[-1])
        seconds = 10 * factor * (1 + 0.002 * drawn.gauss(0, 1))
        steps = None if self.steps is None else self.steps * factor
        return Given(None, self.loss + 0.0005 * drawn.gauss(0, 1), seconds, steps=steps)

    def submission(self, name: str, speed: float, script: str = SCRIPT, **changes: str) -> Path:
        manifest = MANIFEST.replace("A bigram table", f"speed {speed}")
        for old, new in changes.items():
            manifest = manifest.replace(old, new)
        return write_submission(self.folder / name, script, manifest)

    def invoke(self, *arguments: object) -> Result:
        places = ["--data-dir", str(self.toy.data_dir), "--runs-dir", str(self.folder / "runs")]
        places = places if arguments[0] != "records" else []
        words = [*map(str, arguments), *places, "--records-dir", str(self.where.records)]
        return CliRunner().invoke(app, words)

    def submit(self, folder: Path) -> dict[str, Any]:
        done = self.invoke("submit", folder, "--task", self.toy.task.path, "--json")
        if isinstance(done.exception, UserError):
            raise done.exception
        assert done.exit_code == 0, done.exception
        said: dict[str, Any] = json.loads(done.stdout)
        return said

    def problems(self) -> list[str]:
        return [problem for checked in check_records(self.where) for problem in checked.problems]
