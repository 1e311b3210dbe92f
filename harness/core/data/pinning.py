"""For maintainers of a task: writing into its TOML file what was made from its corpus.

The end of a task file, from the line PINNED on, is written by `speedrun data pin` and not by hand.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import numpy as np

from harness.core.data.prepare import Built, Progress, build_shards, read_corpus, sha256_of
from harness.core.data.shards import open_shard, replace_whole
from harness.core.data.splits import split_documents
from harness.core.data.tokenizer import encoding_of, first_difference, format_ranks, ranks_of, train
from harness.core.task import Task, load_task
from harness.errors import UserError

PINNED = "# Written by `speedrun data pin`, not by hand: what the corpus and tokenizer above give."


def train_tokenizer(task: Task, content: bytes, on_progress: Progress) -> Task:
    """Learns the BPE from the training split, writes its file and pins its sha256. Raises UserError.

    Before anything is written, tiktoken must encode the whole corpus exactly as the trainer does.
    """
    on_progress("reading and splitting the corpus")
    texts = {
        split: [document.text for document in documents]
        for split, documents in split_documents(read_corpus(task, content)).items()
    }
    on_progress(f"learning {task.tokenizer.vocab_size - 257:,} merges from {len(texts['train']):,} documents")
    trained = train(texts["train"], task.tokenizer)
    ranks = ranks_of(trained)
    encoding = encoding_of(task.name, ranks, task.tokenizer)
    on_progress("comparing tiktoken with the trainer on the whole corpus")
    for part in texts.values():
        if (text := first_difference(encoding, trained, part)) is not None:
            raise UserError(
                f"tiktoken and the trainer encode a document differently: {text[:200]!r}",
                "change tokenizer.pattern or vocab_size",
            )
    with replace_whole(task.tokenizer_path) as file:
        file.write(format_ranks(ranks))
    return pin_tokenizer(task)


def pin_tokenizer(task: Task) -> Task:
    """The task with tokenizer.sha256 set to that of the tokenizer file. Raises UserError."""
    text = task.path.read_text(encoding="utf-8")
    pinned, count = re.subn(
        r'(?m)(^\[tokenizer\]\n(?:[^\[\n].*\n)*?sha256 = ")[0-9a-f]{64}',
        rf"\g<1>{sha256_of(task.tokenizer_path)}",
        text,
    )
    if count != 1:
        raise UserError(f"{task.path}: no line `sha256 = ...` under [tokenizer]", "add one with 64 zeros")
    return _rewrite(task.path, pinned)


def pin_shards(task: Task, content: bytes, on_progress: Progress) -> Task:
    """The task with [synthetic] and [[shards]] set to what its corpus gives. Raises UserError."""
    with tempfile.TemporaryDirectory() as folder:
        built = build_shards(task, content, Path(folder), on_progress)
    return _rewrite_end(task, pinned_tables(built))


def pin_lengths(task: Task, folder: Path) -> Task:
    """The task with [hub] and [synthetic] set to what its first training shard, prepared, has. Raises UserError."""
    shard = task.of_split("train")[0]
    starts = np.flatnonzero(open_shard(folder / shard.file, shard) == task.tokenizer.end_of_text)
    if len(starts) < 2:
        raise UserError(f"{shard.file}: holds no whole document", "correct tokenizer.end_of_text")
    lengths = np.diff(starts) - 1  # without the document that goes on in the next shard
    return _rewrite_end(task, "\n".join(_synthetic(lengths)) + "\n")


def pinned_tables(built: Built) -> str:
    """[synthetic] and [[shards]] as TOML."""
    lines = _synthetic(built.document_tokens)
    for shard in built.shards:
        lines += ["", "[[shards]]"]
        lines += [f"{key} = {_toml(value)}" for key, value in shard.model_dump().items()]
    return "\n".join(lines) + "\n"


def _synthetic(document_tokens: np.ndarray) -> list[str]:
    quantiles = np.quantile(document_tokens, np.linspace(0, 1, 11), method="nearest").tolist()
    return ["[synthetic]", f"document_tokens = {quantiles}"]


def _toml(value: str | int) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


def _rewrite_end(task: Task, tables: str) -> Task:
    text = task.path.read_text(encoding="utf-8")
    if text.count(PINNED) != 1:
        raise UserError(f"{task.path}: has no line {PINNED!r}", "put it before [synthetic] and [[shards]], at the end")
    return _rewrite(task.path, text.split(PINNED)[0] + f"{PINNED}\n{tables}")


def _rewrite(path: Path, text: str) -> Task:
    with replace_whole(path) as file:
        file.write(text.encode())
    return load_task(path)
