"""Options that several verbs share, and what the words SUB and `baseline` stand for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.errors import UserError
from harness.paths import BASELINES, DATA, RUNS, SUBMISSIONS

DEFAULT_TASK = "gcide"
DEFAULT_CLASS = "cpu-1thread"

DataDir = Annotated[Path, typer.Option("--data-dir", help="Folder of the prepared data.")]
RunsDir = Annotated[Path, typer.Option("--runs-dir", help="Folder of runs and of the journal.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object for programs.")]
HardwareName = Annotated[str, typer.Option("--class", help="Hardware class: cpu-1thread, 2xcpu-1thread, 1xH200, ...")]
Set = Annotated[list[str] | None, typer.Option("--set", help="Set a declared hyperparameter: NAME=VALUE.")]
Drop = Annotated[list[str] | None, typer.Option("--drop", help="Turn a declared method off.")]

DATA_DIR = DATA
RUNS_DIR = RUNS


def submission_folder(word: str) -> Path:
    """The folder that SUB names: a path, a name under submissions/, or `baseline`. Raises UserError."""
    if word == "baseline":
        return BASELINES / "adamw" / DEFAULT_TASK
    for folder in (Path(word), SUBMISSIONS / word):
        if (folder / "submission.toml").is_file():
            return folder
    raise UserError(
        f"{word}: no such submission (no submission.toml in it, nor in submissions/{word})",
        "give a folder, a name under submissions/, or the word baseline",
    )
