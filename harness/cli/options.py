"""Options that several verbs share, and what the word SUB stands for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.paths import DATA, RECORDS, RUNS

DEFAULT_TASK = "gcide"
DEFAULT_CLASS = "cpu-1thread"

DataDir = Annotated[Path, typer.Option("--data-dir", help="Folder of the prepared data.")]
RunsDir = Annotated[Path, typer.Option("--runs-dir", help="Folder of runs and of the journal.")]
RecordsDir = Annotated[Path, typer.Option("--records-dir", help="Folder of records and calibrations.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object for programs.")]
HardwareName = Annotated[str, typer.Option("--class", help="Hardware class: cpu-1thread, 2xcpu-1thread, 1xH200, ...")]
Set = Annotated[list[str] | None, typer.Option("--set", help="Set a declared hyperparameter: NAME=VALUE.")]
Drop = Annotated[list[str] | None, typer.Option("--drop", help="Turn a declared method off.")]

DATA_DIR = DATA
RUNS_DIR = RUNS
RECORDS_DIR = RECORDS


def submission_folder(word: str, task: str = DEFAULT_TASK, hardware: str = DEFAULT_CLASS) -> Path:
    """The folder that SUB names: a path, a name under submissions/, `baseline`, `best`, or a record. UserError."""
    from harness.evidence.arms import Where
    from harness.evidence.arms import submission_folder as named_folder

    return named_folder(word, Where(task, hardware))
