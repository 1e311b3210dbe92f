"""`speedrun new NAME`: a new submission from the template, or from what exists."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli import options, output
from harness.errors import UserError
from harness.paths import BASELINES, RECORDS, SUBMISSIONS

if TYPE_CHECKING:
    from harness.evidence.sides import Where

TEMPLATE = SUBMISSIONS / "_template"
PROTOCOL = Path("tuning") / "protocol.toml"


def new(
    name: Annotated[str, typer.Argument(help="Name of the new folder, or a path.")],
    origin: Annotated[
        str | None,
        typer.Option("--from", metavar="SUB", help="Begin with `baseline`, `best`, a record or a submission."),
    ] = None,
    task: Annotated[str, typer.Option(help="The task of `baseline` and `best`.")] = "gcide",
    hardware: options.HardwareName = options.DEFAULT_CLASS,
    into: Annotated[Path, typer.Option("--into", help="Folder to make it in.")] = SUBMISSIONS,
) -> None:
    """Start a submission: copy the template, which runs as it is, or the source of what exists."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,63}", name):
        raise UserError(f"{name!r} is not a name for a submission", "use lower-case letters, digits and hyphens")
    folder = into / name
    if folder.exists():
        raise UserError(f"{folder} exists already", "choose another name, or remove it")
    try:
        if origin is None:
            shutil.copytree(TEMPLATE, folder, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            _copy(origin, folder, task, hardware)
    except OSError as error:
        raise UserError(f"{folder}: {error}", "choose a folder you can write to: --into") from None
    output.line(f"made {folder}")
    output.line(f"  1. edit {folder}/train.py and {folder}/submission.toml")
    output.line(f"  2. speedrun check {folder}")
    output.line(f"  3. speedrun run {folder}")
    verb = "edit" if (folder / PROTOCOL).exists() else "write"
    output.line(f"  4. {verb} {folder}/{PROTOCOL}, then tune, budget, submit: docs/tuning.md has the recipe")


def _copy(word: str, folder: Path, task: str, hardware: str) -> None:
    """The source that a word names and its tuning protocol, without trials; a record of that source is its parent."""
    from harness.dropping import with_field
    from harness.evidence.arms import submission_folder
    from harness.evidence.sides import Where
    from harness.submission import load_submission

    where = Where(task, hardware, RECORDS)
    source = load_submission(submission_folder(word, where))
    for name, content in source.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    parent = _record_of(source.digest, Where(source.task.name, hardware, RECORDS))
    if parent is not None:
        manifest = folder / "submission.toml"
        manifest.write_text(with_field(manifest.read_text(), "parent", parent))
    baseline = BASELINES / "adamw" / source.task.name
    of_baseline = baseline.is_dir() and load_submission(baseline).digest == source.digest
    protocol = (baseline if of_baseline else source.folder) / PROTOCOL
    if protocol.exists():
        (folder / PROTOCOL).parent.mkdir()
        shutil.copyfile(protocol, folder / PROTOCOL)


def _record_of(digest: str, where: Where) -> str | None:
    """The latest record with this source, as gcide/cpu-1thread/001."""
    from harness.evidence.records import history, load_record, short_id

    ids = [record.id for record in map(load_record, history(where)) if record.submission == digest]
    return short_id(ids[-1]) if ids else None
