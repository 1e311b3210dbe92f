"""`speedrun data`: prepare, verify and audit a task's data; train its tokenizer and pin it (maintainers)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli import output
from harness.cli.options import DATA_DIR, DataDir, Json
from harness.errors import UserError

if TYPE_CHECKING:
    from harness.core.data.prepare import Prepared
    from harness.core.task import Task

app = typer.Typer(help="Prepare, verify and audit the data of a task.", no_args_is_help=True)

TaskName = Annotated[str, typer.Argument(metavar="TASK", help="A task's name or the path of its TOML file.")]
FromFile = Annotated[
    Path | None,
    typer.Option(help="The corpus file, if you have it, instead of a download."),
]
Shards = Annotated[int | None, typer.Option(help="Tasks on the hub: how many training shards; all by default.")]
Tokens = Annotated[int | None, typer.Option(help="Tasks on the hub: at least so many training tokens.")]
FromText = Annotated[bool, typer.Option("--from-text", help="Tasks on the hub: tokenize the raw text instead.")]
Parquet = Annotated[Path | None, typer.Option(help="With --from-text: folder of its parquet files, if you have it.")]
Gpt2Vocab = Annotated[Path | None, typer.Option(help="Folder with GPT-2's encoder.json, instead of a download.")]
Workers = Annotated[int | None, typer.Option(min=1, help="With --from-text: processes; all cores by default.")]


@app.command()
def prepare(
    task: TaskName, data_dir: DataDir = DATA_DIR, from_file: FromFile = None, shards: Shards = None,
    tokens: Tokens = None, from_text: FromText = False, parquet: Parquet = None, gpt2_vocab: Gpt2Vocab = None,
    workers: Workers = None,
) -> None:  # fmt: skip
    """Make the task's shards; at once if they are there. Safe to interrupt and to run twice at a time."""
    from harness.core.data.prepare import prepare
    from harness.core.data.shards import prepared_shards
    from harness.core.task import load_task

    loaded = load_task(task)
    words = {"--shards": shards, "--tokens": tokens, "--from-text": from_text or None, "--parquet": parquet}
    words |= {"--gpt2-vocab": gpt2_vocab, "--workers": workers}
    if loaded.hub is None:
        _refuse(words, f"{loaded.name} is made from one file")
        prepared = prepare(loaded, data_dir, from_file, output.line)
    else:
        _refuse({"--from-file": from_file}, f"{loaded.name} is on the hub; put files at hand into its data folder")
        if shards is not None:
            _refuse({"--tokens": tokens}, "--shards says how much already")
        if not from_text:
            _refuse({word: words[word] for word in ("--parquet", "--gpt2-vocab", "--workers")}, "give --from-text too")
        prepared = _prepare_hub(loaded, data_dir, shards, tokens, from_text, parquet, gpt2_vocab, workers)
    state = "prepared" if prepared.built else "already prepared"
    count = sum(shard.tokens for shard in prepared_shards(loaded, prepared.folder) if shard.split == "train")
    output.line(f"{loaded.name}: {state} in {prepared.folder} ({count:,} training tokens)")


def _prepare_hub(
    task: Task, data_dir: Path, shards: int | None, tokens: int | None, from_text: bool, parquet: Path | None,
    gpt2_vocab: Path | None, workers: int | None,
) -> Prepared:  # fmt: skip
    from harness.core.data.hub import prepare_from_hub, shards_for_tokens

    count = shards if tokens is None else shards_for_tokens(task, tokens)
    if not from_text:
        return prepare_from_hub(task, data_dir, count, output.line)
    from harness.core.data.text import Text, prepare_from_text

    text = Text(parquet, gpt2_vocab, workers or len(os.sched_getaffinity(0)))
    return prepare_from_text(task, data_dir, count, text, output.line)


def _refuse(words: Mapping[str, object], why: str) -> None:
    """Raises UserError for an option that was given and means nothing here."""
    for word, value in words.items():
        if value is not None:
            raise UserError(f"{word}: {why}", f"leave {word} out")


@app.command()
def lock(task: TaskName) -> None:
    """Pin what the hub holds for a task, on first contact; later, compare it with what was pinned."""
    from harness.core.data.hub import write_lock
    from harness.core.task import load_task

    locked = write_lock(load_task(task), output.line)
    path, shards = locked.task.lock_path, len(locked.task.shards)
    if locked.written:
        output.line(f"{path}: written: revision {locked.task.revision}, {shards} shards; keep it under version control")
    elif locked.hub_revision == locked.task.revision:
        output.line(f"{path}: holds: the hub is at its revision, {shards} shards")
    else:
        output.line(f"{path}: holds for all {shards} shards, though the hub has moved to {locked.hub_revision}")


@app.command()
def verify(task: TaskName, data_dir: DataDir = DATA_DIR, json: Json = False) -> None:
    """Compare every prepared byte with what the task pins."""
    from harness.core.data.prepare import remedy, summary, verify
    from harness.core.data.shards import prepared_shards
    from harness.core.task import load_task

    loaded = load_task(task)
    found = verify(loaded, data_dir)
    if json:
        output.as_json({"task": loaded.name, "ok": not found, "problems": found})
    elif not found:
        count = len(prepared_shards(loaded, loaded.data_folder(data_dir)))
        of_all = f" of {len(loaded.shards)}" if count < len(loaded.shards) else ""
        output.line(f"{loaded.name}: {count}{of_all} shards are as the task pins them")
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
    audits = audit(loaded, data_dir, output.note)
    if json:
        output.as_json({"task": loaded.name, "splits": [asdict(found) for found in audits]})
        return
    output.table(
        ["split", "tokens", "64-token windows also in training", "documents", "near-duplicates", "training tokens"],
        [
            (
                found.split,
                f"{found.tokens:,}",
                f"{found.shared_windows:,} ({found.shared_windows / max(1, found.windows):.4%})",
                f"{found.documents:,}",
                "not looked for"
                if found.near_duplicates is None
                else f"{found.near_duplicates:,} ({found.near_duplicates / max(1, found.documents):.2%})",
                f"{found.training_tokens:,}",
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

    A new task starts with any one [[shards]] entry for train and one for validation; this replaces them. Of a task
    on the hub, whose shards are pinned by its lock, only the document lengths are measured, on prepared data.
    """
    from harness.core.data.pinning import pin_lengths, pin_shards
    from harness.core.data.prepare import require_prepared
    from harness.core.task import load_task

    loaded = load_task(task)
    if loaded.hub is not None:
        pinned = pin_lengths(loaded, require_prepared(loaded, data_dir))
        output.line(f"{loaded.path}: document lengths by tenths: {pinned.synthetic.document_tokens}")
        return
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
