"""`speedrun new NAME`: a new submission from the template."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from harness.cli import output
from harness.errors import UserError
from harness.paths import SUBMISSIONS

TEMPLATE = SUBMISSIONS / "_template"


def new(
    name: Annotated[str, typer.Argument(help="Name of the new folder, or a path.")],
    into: Annotated[Path, typer.Option("--into", help="Folder to make it in.")] = SUBMISSIONS,
) -> None:
    """Start a submission: copy the template, which runs as it is."""
    import shutil

    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,63}", name):
        raise UserError(f"{name!r} is not a name for a submission", "use lower-case letters, digits and hyphens")
    folder = into / name
    if folder.exists():
        raise UserError(f"{folder} exists already", "choose another name, or remove it")
    try:
        shutil.copytree(TEMPLATE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    except OSError as error:
        raise UserError(f"{folder}: {error}", "choose a folder you can write to: --into") from None
    output.line(f"made {folder}")
    output.line(f"  1. edit {folder}/train.py and {folder}/submission.toml")
    output.line(f"  2. speedrun check {folder}")
    output.line(f"  3. speedrun run {folder}")
    output.line(f"  4. edit {folder}/tuning/protocol.toml, then tune, budget, submit: docs/tuning.md has the recipe")
