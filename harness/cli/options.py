"""Options that several verbs share, and what the word SUB stands for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.errors import UserError
from harness.paths import DATA, RECORDS, RUNS

DEFAULT_TASK = "gcide"
DEFAULT_CLASS = "cpu-1thread"

DataDir = Annotated[Path, typer.Option("--data-dir", help="Folder of the prepared data.")]
RunsDir = Annotated[Path, typer.Option("--runs-dir", help="Folder of runs and of the journal.")]
RecordsDir = Annotated[Path, typer.Option("--records-dir", help="Folder of records and calibrations.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object for programs.")]
Csv = Annotated[bool, typer.Option("--csv", help="Print comma-separated values for programs.")]
AsOf = Annotated[str | None, typer.Option("--as-of", metavar="DATE", help="As it was at the end of a day: 2025-12-31.")]
History = Annotated[str | None, typer.Option("--history", help="An imported history instead of a task: nanogpt.")]
Track = Annotated[int, typer.Option("--track", help="Track of the imported history: 1, 2 or 3.")]
HardwareName = Annotated[str, typer.Option("--class", help="Hardware class: cpu-1thread, 2xcpu-1thread, 1xH200, ...")]
Set = Annotated[list[str] | None, typer.Option("--set", help="Set a declared hyperparameter: NAME=VALUE.")]
Drop = Annotated[list[str] | None, typer.Option("--drop", help="Turn a declared method off.")]

DATA_DIR = DATA
RUNS_DIR = RUNS
RECORDS_DIR = RECORDS


def submission_folder(word: str, task: str = DEFAULT_TASK, hardware: str = DEFAULT_CLASS) -> Path:
    """The folder that SUB names: a path, a name under submissions/, `baseline`, `best`, or a record. UserError."""
    from harness.evidence.arms import submission_folder as named_folder
    from harness.evidence.sides import Where

    return named_folder(word, Where(task, hardware))


def board_name(task: str, hardware: str, history: str | None, track: int) -> str:
    """The board that the options name."""
    return f"{task}/{hardware}" if history is None else f"{history}/{track}"


def only_one_format(as_json: bool, as_csv: bool) -> None:
    """Raises UserError where both are asked for."""
    if as_json and as_csv:
        raise UserError("--json and --csv exclude each other", "give one of them")
