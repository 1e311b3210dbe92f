"""`speedrun data`: prepare, verify and audit a task's data; train its tokenizer and pin it (maintainers)."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli import output
from harness.cli.options import DATA_DIR, DataDir, Json
from harness.errors import UserError

if TYPE_CHECKING:
    from harness.core.task import Task

app = typer.Typer(help="Prepare, verify and audit the data of a task.", no_args_is_help=True)

TaskName = Annotated[str, typer.Argument(metavar="TASK", help="A task's name or the path of its TOML file.")]
FromFile = Annotated[
    Path | None,
    typer.Option(help="The corpus file, if you have it, instead of a download."),
]


@app.command()
def prepare(task: TaskName, data_dir: DataDir = DATA_DIR, from_file: FromFile = None) -> None:
    """Make the task's shards; at once if they are there. Safe to interrupt and to run twice at a time."""
    from harness.core.data.prepare import prepare
    from harness.core.task import load_task

    loaded = load_task(task)
    prepared = prepare(loaded, data_dir, from_file, output.line)
    state = "prepared" if prepared.built else "already prepared"
    tokens = sum(shard.tokens for shard in loaded.of_split("train"))
    output.line(f"{loaded.name}: {state} in {prepared.folder} ({tokens:,} training tokens)")


@app.command()
def verify(task: TaskName, data_dir: DataDir = DATA_DIR, json: Json = False) -> None:
    """Compare every prepared byte with what the task pins."""
    from harness.core.data.prepare import remedy, summary, verify
    from harness.core.task import load_task

    loaded = load_task(task)
    found = verify(loaded, data_dir)
    if json:
        output.as_json({"task": loaded.name, "ok": not found, "problems": found})
    elif not found:
        output.line(f"{loaded.name}: {len(loaded.shards)} shards are as the task pins them")
    if found:
        if json:
            raise typer.Exit(1)
        raise UserError(summary(found), remedy(loaded))


@app.command()
def audit(task: TaskName, data_dir: DataDir = DATA_DIR, json: Json = False) -> None:
    """Report how much of validation and holdout stands in training too: 64-token windows, near-duplicates."""
    from harness.core.data.audit import audit
    from harness.core.task import load_task

    loaded = load_task(task)
    audits = audit(loaded, data_dir)
    if json:
        output.as_json({"task": loaded.name, "splits": [asdict(found) for found in audits]})
        return
    output.table(
        ["split", "tokens", "64-token windows also in training", "documents", "near-duplicates of training"],
        [
            (
                found.split,
                f"{found.tokens:,}",
                f"{found.shared_windows:,} ({found.shared_windows / max(1, found.windows):.4%})",
                f"{found.documents:,}",
                f"{found.near_duplicates:,} ({found.near_duplicates / max(1, found.documents):.2%})",
            )
            for found in audits
        ],
    )
    for found in audits:
        for example in found.examples:
            output.line()
            output.line(f"{found.split}, {example.share:.0%} of its text in one training document:", style="bold")
            _print_text(example.text)
            output.line("  in training:")
            _print_text(example.training_text)


def _print_text(text: str, limit: int = 400) -> None:
    shown = text if len(text) <= limit else f"{text[:limit]} ..."
    for line in shown.splitlines():
        output.line(f"    {line}")


@app.command("train-tokenizer")
def train_tokenizer(task: TaskName, data_dir: DataDir = DATA_DIR, from_file: FromFile = None) -> None:
    """For maintainers: learn the tokenizer from the training split, write its file, pin it in the task.

    Then run `data pin`. Both change what the task is; a task that has records must keep its tokenizer.
    """
    from harness.core.data.pinning import train_tokenizer
    from harness.core.task import load_task

    loaded = load_task(task)
    trained = train_tokenizer(loaded, _corpus_content(loaded, data_dir, from_file), output.line)
    output.line(f"{trained.tokenizer_path}: sha256 {trained.tokenizer.sha256}")
    output.line(f"now: speedrun data pin {task}")


@app.command()
def pin(task: TaskName, data_dir: DataDir = DATA_DIR, from_file: FromFile = None) -> None:
    """For maintainers: build the shards and write their counts and sha256 into the end of the task file.

    A new task starts with any one [[shards]] entry for train and one for validation; this replaces them.
    """
    from harness.core.data.pinning import pin_shards
    from harness.core.task import load_task

    loaded = load_task(task)
    pinned = pin_shards(loaded, _corpus_content(loaded, data_dir, from_file), output.line)
    output.table(
        ["shard", "tokens", "documents", "text bytes"],
        [(shard.file, shard.tokens, shard.documents, shard.text_bytes) for shard in pinned.shards],
    )
    output.line(f"now: speedrun data prepare {task}")


def _corpus_content(task: Task, data_dir: Path, from_file: Path | None) -> bytes:
    from harness.core.data.sources import fetch

    if task.corpus is None:
        raise UserError(f"{task.path.name}: the task has no [corpus]", "add one, or use a task that has it")
    return fetch(task.corpus, data_dir / "downloads", from_file, output.line)
