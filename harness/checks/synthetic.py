"""A made-up task of the same shape as a real one, for dry runs: they need neither its corpus nor a GPU.

Vocabulary, order, caps, shapes and document lengths are the task's; the text is noise.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from harness.core.data.shards import write_shard
from harness.core.task import Task, load_task
from harness.submission import EvaluationShape

MAX_TRAIN_TOKENS = 1 << 24  # of a larger corpus the first shards, cut at this
VALIDATION_BATCHES = 4  # whole ones; a part of another follows, so that padding is met too
SEED = 0


def make_task(task: Task, shape: EvaluationShape, folder: Path) -> Task:
    """Writes the task's file and its shards into a folder, shards under the task's name, and loads it again."""
    batch_tokens = shape.batch * shape.length
    wanted = []
    room = MAX_TRAIN_TOKENS
    for shard in task.of_split("train"):
        if room > 0:
            wanted.append((shard.file, "train", min(shard.tokens, room)))
            room -= shard.tokens
    if not wanted:  # a task with [hub] whose lock file is still to be written
        wanted.append((f"{task.name}_train_000000.bin", "train", MAX_TRAIN_TOKENS))
    validation = VALIDATION_BATCHES * batch_tokens + batch_tokens // 2 + 1
    wanted.append((f"{task.name}_validation_000000.bin", "validation", validation))
    random = np.random.default_rng(SEED)
    shards = [(file, split, noise(task, count, random)) for file, split, count in wanted]
    return write_stand_in(task, task.name, folder, shards)


def write_stand_in(task: Task, name: str, folder: Path, shards: list[tuple[str, str, np.ndarray]]) -> Task:
    """Writes a task like another with shards (file, split, tokens) of its own, which lie in folder/name; loads it.

    It may be run on a CPU too, under the caps of a GPU where it had none. The task file is written last.
    """
    table = task.model_dump(mode="json", exclude={"corpus", "hub", "shards"}, exclude_none=True)
    table["name"] = name
    table["evaluation"].pop("tokens", None)  # these validation splits are smaller
    for by_device in (table["caps"], table["audit"]["tolerance"]):
        by_device.setdefault("cpu", by_device.get("cuda"))
    data = folder / name
    data.mkdir(parents=True)
    table["shards"] = [_write(data / file, split, tokens, task.tokenizer.end_of_text) for file, split, tokens in shards]
    path = folder / f"{name}.toml"
    path.write_text(toml(table), encoding="utf-8")
    return load_task(path)


def noise(task: Task, count: int, random: np.random.Generator) -> np.ndarray:
    """Tokens [count], uint16: uniform noise in documents as long as the task's, each behind an end-of-text."""
    tokens = random.integers(0, task.tokenizer.vocab_size - 1, count, dtype=np.uint16)
    end_of_text = task.tokenizer.end_of_text
    tokens += tokens >= end_of_text  # so that the only ends of text are those of documents
    quantiles = task.synthetic.document_tokens
    places = random.random(count // 2 + 2) * (len(quantiles) - 1)
    lengths = np.maximum(1, np.interp(places, range(len(quantiles)), quantiles)).astype(np.int64)
    starts = np.concatenate([[0], np.cumsum(1 + lengths)])
    tokens[starts[starts < count]] = end_of_text
    return tokens


def toml(table: dict[str, Any]) -> str:
    """TOML of nested tables of numbers, strings and lists: a JSON scalar or list of scalars is a TOML one too."""
    return "\n".join(_toml_lines(table, "")) + "\n"


def _toml_lines(table: dict[str, Any], prefix: str) -> list[str]:
    lines, below = [], []
    for key, value in table.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            below += [f"[{name}]", *_toml_lines(value, f"{name}.")]
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for item in value:
                below += [f"[[{name}]]", *_toml_lines(item, f"{name}.")]
        else:
            lines.append(f"{key} = {json.dumps(value, ensure_ascii=False)}")
    return lines + below


def _write(path: Path, split: str, tokens: np.ndarray, end_of_text: int) -> dict[str, Any]:
    write_shard(path, tokens)
    return {
        "file": path.name,
        "split": split,
        "tokens": len(tokens),
        "documents": int((tokens == end_of_text).sum()),
        "text_bytes": len(tokens),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
