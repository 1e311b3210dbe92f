"""Making the shards of a task out of its corpus, once, and knowing at any later start that they are whole.

A folder of shards carries `manifest.json`: for each file its sha256, and the size and time of change it had
when that was computed. A start trusts a file whose size, time and header still agree, which takes
milliseconds; `verify` computes every sha256 again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.core.data import sources
from harness.core.data.documents import Document, read_gcide
from harness.core.data.locking import exclusive
from harness.core.data.shards import cannot_write, prepared_shards, read_header, replace_whole, write_shard
from harness.core.data.splits import split_documents
from harness.core.data.tokenizer import encode_documents, load_encoding
from harness.core.files import parse_json, read_file
from harness.core.task import Shard, Task
from harness.errors import UserError

MANIFEST = "manifest.json"
MAX_MANIFEST_BYTES = 4 << 20  # a thousand shards take 400 kB
SHOWN = 3
Progress = sources.Progress
READERS: dict[str, Callable[[bytes], list[Document]]] = {"gcide-wheel": read_gcide}


@dataclass(frozen=True)
class Prepared:
    """Where the shards lie; `built` is False if they were there already."""

    folder: Path
    built: bool


@dataclass(frozen=True)
class Built:
    """The shards that were made, as a task pins them, and the training documents' lengths [n] in tokens."""

    shards: list[Shard]
    document_tokens: np.ndarray


def prepare(
    task: Task, data_dir: Path, from_file: Path | None = None, on_progress: Progress = lambda message: None
) -> Prepared:
    """Makes sure that the task's shards lie under `data_dir`, building them if need be. Raises UserError.

    A build appears whole or not at all. Two processes may prepare at once: the second waits for the first.
    """
    folder = task.data_folder(data_dir)
    if not problems(task, folder):
        return Prepared(folder, built=False)
    if task.corpus is None:
        raise UserError(f"{task.path.name}: the task has no [corpus], so its data cannot be made here", remedy(task))
    with exclusive(data_dir, task.name):
        _remove_leftovers(task, data_dir)
        if not problems(task, folder) or not verify(task, data_dir):
            return Prepared(folder, built=False)
        content = sources.fetch(task.corpus, data_dir / "downloads", from_file, on_progress)
        with _building(task, data_dir) as temporary:
            built = build_shards(task, content, temporary, on_progress)
            _compare(task, built.shards)
            write_manifest(task, temporary, task.shards)
            _put_in_place(task, temporary, folder)
    return Prepared(folder, built=True)


def require_prepared(task: Task, data_dir: Path) -> Path:
    """The folder of the task's shards, checked in milliseconds. Raises UserError."""
    if task.hub is not None and task.revision is None:
        raise not_locked(task)
    folder = task.data_folder(data_dir)
    if found := problems(task, folder):
        raise UserError(summary(found), remedy(task))
    return folder


def summary(found: list[str]) -> str:
    """The first of the problems in one line; a corpus may have a hundred shards."""
    more = f"; and {len(found) - SHOWN:,} more" if len(found) > SHOWN else ""
    return "; ".join(found[:SHOWN]) + more


def remedy(task: Task) -> str:
    """What makes missing or damaged data whole."""
    if task.corpus is None and task.hub is None:
        return f"put the task's shards into its folder, then: speedrun data verify {task.name}"
    return f"speedrun data prepare {task.name}"


def problems(task: Task, folder: Path) -> list[str]:
    """What is wrong with prepared data as far as manifest, sizes, times and headers tell."""
    try:
        if not (folder / MANIFEST).exists():
            return [f"{folder}: the data of task {task.name} is not prepared"]
        kept = read_manifest(task, folder)
    except (UserError, OSError):
        return [f"{folder / MANIFEST}: cannot be read"]
    shards = prepared_shards(task, folder)
    if not any(shard.split == "train" for shard in shards):
        return [f"{folder}: no training shard is prepared"]
    found = (quick_problem(shard, folder / shard.file, kept.get(shard.file)) for shard in shards)
    return [problem for problem in found if problem]


def verify(task: Task, data_dir: Path) -> list[str]:
    """Computes every sha256 again: what is wrong. Renews the manifest if nothing is. Raises UserError."""
    if task.hub is not None and task.revision is None:
        raise not_locked(task)
    folder = task.data_folder(data_dir)
    shards = prepared_shards(task, folder)
    found = [problem for shard in shards if (problem := shard_problem(shard, folder / shard.file))]
    if not found and problems(task, folder):
        write_manifest(task, folder, shards)
        return problems(task, folder)
    return found


def not_locked(task: Task) -> UserError:
    """Nothing can be fetched or checked before a task's repository on the hub was met."""
    return UserError(
        f"{task.lock_path}: missing; it pins revision and sha256 of what the hub holds",
        f"speedrun data lock {task.name}, once; keep the file under version control",
    )


def read_manifest(task: Task, folder: Path) -> dict[str, dict]:
    """The entries of the folder's manifest by file; none where there is no manifest. Raises UserError."""
    path = folder / MANIFEST
    if not path.exists():
        return {}
    try:
        manifest = parse_json(read_file(path, MAX_MANIFEST_BYTES, remedy(task)))
        return {entry["file"]: entry for entry in manifest["shards"]}
    except (ValueError, TypeError, KeyError):
        raise UserError(f"{path}: cannot be read", f"remove it, then: speedrun data verify {task.name}") from None


def write_manifest(task: Task, folder: Path, checked: list[Shard], kept: dict[str, dict] | None = None) -> None:
    """Records shards whose content was just checked, beside `kept` entries of others. Raises UserError."""
    entries = {shard.file: shard.model_dump() | _stamp(folder / shard.file) for shard in checked}
    manifest = {
        "task": task.name,
        "task_sha256": task.digest,
        "corpus_sha256": task.corpus.sha256 if task.corpus else None,
        "hub_revision": task.revision,
        "tokenizer_sha256": task.tokenizer.sha256,
        "shards": list(((kept or {}) | entries).values()),
    }
    with replace_whole(folder / MANIFEST) as file:
        file.write(json.dumps(manifest, indent=2).encode() + b"\n")


def build_shards(task: Task, content: bytes, folder: Path, on_progress: Progress) -> Built:
    """Writes one shard a split into `folder` from the content of the corpus file. Raises UserError."""
    encoding = load_encoding(task)
    on_progress("reading and splitting the corpus")
    splits = split_documents(read_corpus(task, content))
    shards = []
    for split, documents in splits.items():
        on_progress(f"encoding {len(documents):,} documents for {split}")
        rows = list(encode_documents(encoding, (document.text for document in documents)))
        if split == "train":
            document_tokens = np.array([len(row) - 1 for row in rows])
        path = folder / f"{task.name}_{split}_000000.bin"
        write_shard(path, np.concatenate(rows))
        shards.append(
            Shard(
                file=path.name,
                split=split,  # type: ignore[arg-type]
                tokens=sum(map(len, rows)),
                documents=len(rows),
                text_bytes=sum(len(document.text.encode()) for document in documents),
                sha256=sha256_of(path),
            )
        )
    return Built(shards, document_tokens)


def read_corpus(task: Task, content: bytes) -> list[Document]:
    """The documents of the task's corpus. Raises UserError."""
    kind = task.corpus.kind if task.corpus else None
    if kind not in READERS:
        raise UserError(f"{task.path.name}: corpus.kind {kind!r} is not known", f"use one of: {', '.join(READERS)}")
    return READERS[kind](content)


def sha256_of(path: Path) -> str:
    """The sha256 of a file, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def quick_problem(shard: Shard, path: Path, kept: dict | None) -> str | None:
    """What is wrong with a shard as far as its manifest entry `kept`, size, time and header tell."""
    try:
        if kept is None or kept["sha256"] != shard.sha256:
            return f"{path}: was prepared for another version of the task"
        if any(kept[name] != value for name, value in _stamp(path).items()):
            return f"{path}: changed since it was prepared"
        if read_header(path) != shard.tokens:
            return f"{path}: does not hold the {shard.tokens:,} tokens the task pins"
    except (OSError, KeyError, TypeError):
        return f"{path}: missing or cannot be read"
    except UserError as error:
        return error.message
    return None


def shard_problem(shard: Shard, path: Path) -> str | None:
    """What is wrong with a shard's header or content."""
    try:
        if read_header(path) != shard.tokens:
            return f"{path}: does not hold the {shard.tokens:,} tokens the task pins"
        digest = sha256_of(path)
    except UserError as error:
        return error.message
    except OSError as error:
        return f"{path}: cannot be read: {error.strerror}"
    if digest != shard.sha256:
        return f"{path}: its sha256 is {digest}, the task pins {shard.sha256}"
    return None


def _stamp(path: Path) -> dict[str, int]:
    status = path.stat()
    return {"bytes": status.st_size, "modified_ns": status.st_mtime_ns}


def _compare(task: Task, built: list[Shard]) -> None:
    pinned = {shard.file: shard for shard in task.shards}
    for shard in built:
        if pinned.get(shard.file) != shard:
            raise UserError(
                f"{shard.file}: what was built differs from what {task.path.name} pins "
                f"(sha256 {shard.sha256}, {shard.tokens:,} tokens)",
                "install the package versions that the requirements pin; else report it",
            )
    if missing := sorted(pinned.keys() - {shard.file for shard in built}):
        raise UserError(f"{task.path.name}: pins {', '.join(missing)}, which is not built", "correct [[shards]]")


@contextmanager
def _building(task: Task, data_dir: Path) -> Iterator[Path]:
    """A folder beside the final one, gone after unless it was put in place."""
    temporary = data_dir / f".{task.name}.new-{os.getpid()}"
    try:
        temporary.mkdir()
    except OSError as error:
        raise cannot_write(temporary, error) from None
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _remove_leftovers(task: Task, data_dir: Path) -> None:
    """Removes what builds that were killed left behind; the caller holds the lock, so no other is at work."""
    for kind in ("new", "old"):
        for leftover in data_dir.glob(f".{task.name}.{kind}-*"):
            shutil.rmtree(leftover, ignore_errors=True)


def _put_in_place(task: Task, temporary: Path, folder: Path) -> None:
    """Renames the finished folder; one that was there before makes room and returns if that fails."""
    old = folder.with_name(f".{task.name}.old-{os.getpid()}")
    try:
        if folder.exists():
            folder.rename(old)
        temporary.rename(folder)
    except OSError as error:
        with suppress(OSError):
            old.rename(folder)
        raise cannot_write(folder, error) from None
    shutil.rmtree(old, ignore_errors=True)
