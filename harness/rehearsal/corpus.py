"""The task of a rehearsal: a real one, but on the text of the embedded corpus, in the real one's own vocabulary."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.checks.synthetic import write_stand_in
from harness.core.data import sources
from harness.core.data.documents import Document
from harness.core.data.gpt2 import gpt2_encoding
from harness.core.data.locking import exclusive
from harness.core.data.prepare import problems, read_corpus, require_prepared, summary, verify
from harness.core.data.splits import split_documents
from harness.core.data.tokenizer import encode_documents
from harness.core.protocol import ModelShape
from harness.core.task import Task, load_task
from harness.errors import UserError

EMBEDDED = "gcide"
SUFFIX = "-rehearsal"
CPU_VALIDATION_TOKENS = 8_193
GPU_TRAIN_TOKENS = 64_000_000  # 122 steps of 524,288; the embedded text is repeated, since only speed is looked at
TINY_MODEL = ModelShape(width=64, layers=2, head_size=16)  # of a task that fixes it, on a CPU
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Stage:
    """A task to rehearse on, and the data folder in which its shards lie."""

    task: Task
    data_dir: Path


def prepare_stage(task: Task, device: str, data_dir: Path, gpt2_vocab: Path | None, on_progress: Progress) -> Stage:
    """The task itself where its data can be made here; else the task on other text, kept for the next rehearsal.

    For a CPU with little validation text, since the logits of a large vocabulary take it long, and with a tiny model
    where the task fixes it. Fetches the embedded corpus
    and the GPT-2 vocabulary where they are not there yet. Raises UserError.
    """
    if task.hub is None:
        require_prepared(task, data_dir)
        return Stage(task, data_dir)
    folder = data_dir / "rehearsal" / f"{task.digest[:12]}-{device}"
    with exclusive(data_dir, f"rehearsal-{folder.name}"):
        name = f"{task.name}{SUFFIX}"
        path = folder / f"{name}.toml"
        if not path.exists():
            encoding = gpt2_encoding(task, data_dir / "downloads", gpt2_vocab, on_progress)
            shards = []
            for split, documents in split_documents(embedded_documents(data_dir, on_progress)).items():
                on_progress(f"encoding {len(documents):,} documents for {split}")
                rows = list(encode_documents(encoding, (document.text for document in documents)))
                tokens = np.concatenate(rows)
                if device == "cpu" and split != "train":
                    tokens = tokens[:CPU_VALIDATION_TOKENS]
                if device != "cpu" and split == "train":
                    tokens = np.resize(tokens, GPU_TRAIN_TOKENS)
                shards.append((f"{name}_{split}_000000.bin", split, tokens))
            shutil.rmtree(folder, ignore_errors=True)  # of an attempt that was interrupted
            tiny = device == "cpu" and task.model is not None
            write_stand_in(task.model_copy(update={"model": TINY_MODEL}) if tiny else task, name, folder, shards)
        made = load_task(path)
        if problems(made, made.data_folder(folder)) and (found := verify(made, folder)):
            raise UserError(summary(found), f"remove the folder: rm -r {folder}")
        return Stage(made, folder)


def embedded_documents(data_dir: Path, on_progress: Progress) -> list[Document]:
    """The documents of the embedded task's corpus, fetched where it is not there. Raises UserError."""
    source = load_task(EMBEDDED)
    assert source.corpus is not None, "the embedded task is made from a file"
    return read_corpus(source, sources.fetch(source.corpus, data_dir / "downloads", None, on_progress))
