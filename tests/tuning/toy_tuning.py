"""The toy submission with a protocol beside it."""

from __future__ import annotations

from pathlib import Path

from harness.core.task import hardware_class
from harness.submission import Submission, load_submission
from harness.tuning.dispatch import Place
from tests.conftest import Toy
from tests.toy_submission import write_submission

PROTOCOL = """
seed = 5

[budget]
steps = "steps"
seconds = 5

[knobs.lr]
low = 10
high = 200
step = 2

[stages.scout]
trials = 2
budget = 0.5
knobs = ["lr"]

[stages.search]
trials = 2
from_scouts = 1
knobs = ["lr"]
"""


def write_tuning(toy: Toy, folder: Path, protocol: str = PROTOCOL) -> Submission:
    """The toy submission in a new folder, with a protocol."""
    write_submission(folder)
    (folder / "tuning").mkdir()
    (folder / "tuning" / "protocol.toml").write_text(protocol)
    return load_submission(folder, toy.task)


def place_of(toy: Toy, submission: Submission, runs_dir: Path, workers: int = 1) -> Place:
    """Where the toy's trials run."""
    return Place(submission, hardware_class("cpu-1thread"), toy.data_dir, runs_dir, workers)
