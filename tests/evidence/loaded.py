"""A submission with two methods: momentum, which is worth a quarter of the time, and ballast, which costs as much."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from harness.campaign import Request
from harness.checks import statements
from harness.checks.statements import Difference
from tests.evidence.board import Board
from tests.evidence.fake import FakeRunner, Given
from tests.toy_submission import SCRIPT

FACTORS = {"momentum": 0.8, "ballast": 1.25}
BALLAST = """
[methods.ballast]
kind = "systems"
summary = "Carries stones."
source = "nobody"

[hparams.stones]  # how many
default = 3
low = 1
high = 9
of = "ballast"

[hparams.steps]"""
STONES = '''
def carry(table, count):
    """Useless work."""
    stones = table.detach() @ table.detach().T
    for _ in range(count):
        stones = stones @ stones / stones.norm()
    return stones

def main('''


def loaded_script() -> str:
    """The toy's script with the useless work in every step."""
    script = SCRIPT.replace("\ndef main(", STONES)
    step = "        optimizer.step()\n"
    work = '        if run.uses("ballast"):\n            carry(model.table.weight, run.hparam("stones"))\n'
    return script.replace(step, work + step)


def outcome(request: Request) -> Given:
    """A run whose seconds follow from the methods that are on, and a little, as its loss, from the seed."""
    on, drawn = request.submission.methods(list(request.dropped)), random.Random(request.seed)
    seconds = 10.0 * (1 + 0.002 * drawn.gauss(0, 1))
    for name, factor in FACTORS.items():
        seconds *= factor if on.get(name) else 1.0
    return Given(None, 3.8 + 0.0005 * drawn.gauss(0, 1), seconds)


def file_loaded(board: Board, folder: str = "loaded") -> Path:
    """Files the submission as the board's next record; runs are scripted from here on. Answers its folder."""
    board.runner = FakeRunner(outcome)
    path = board.submission(folder, 1.0, loaded_script())
    manifest = path / "submission.toml"
    manifest.write_text(manifest.read_text().replace("[hparams.steps]", BALLAST.lstrip("\n"), 1))
    assert board.submit(path)["verdict"] == "record"
    return path


class FakeCounter:
    """Counts without running: three lines are a method's own, the last line of the script is shared."""

    def __init__(self, submission: Any, *_: object) -> None:
        self._lines = sorted(set(statements.first_lines(submission.files["train.py"]).values()))

    def difference(self, dropped: list[str]) -> Difference:
        own = frozenset(("train.py", line) for line in self._lines[:3])
        shared = frozenset({("train.py", self._lines[-1])})
        return Difference(own, shared, len(self._lines), 300 << 20, 280 << 20)
