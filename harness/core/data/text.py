"""From raw text to the shards of the tokenized public copy, byte for byte, by many processes.

The text is read in the order of its dataset, streamed from the hub or from parquet files at hand. Before each
document stands end-of-text; the tokens are cut every `shard_tokens`, documents or not, and the first shard is
validation. That is what `dev/data/fineweb.py` of github.com/karpathy/llm.c does, which made the public copy; the
lock file tells whether it came out the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from harness.core.data.gpt2 import gpt2_encoding
from harness.core.data.hub import missing_shards, place_shard, require_room, wanted_shards
from harness.core.data.locking import exclusive
from harness.core.data.prepare import Prepared, Progress, shard_problem
from harness.core.data.reading import read_batches
from harness.core.data.shards import TOKEN, replace_whole, write_shard
from harness.core.data.workers import Encoded, encode_batches
from harness.core.files import parse_json, read_file
from harness.core.task import Hub, Shard, Task
from harness.errors import UserError

DOCUMENTS_PER_BATCH = 256  # some 800 kB of FineWeb: a tenth of a second or two of a core's work
STAGING = ".from-text"  # within the folder, which may be on a disk of its own
PROGRESS_FILE = "progress.json"
MAX_PROGRESS_BYTES = 1 << 20


@dataclass(frozen=True)
class Text:
    """Where the text comes from: the dataset a task names, or the parquet files of a folder; and the vocabulary's."""

    parquet: Path | None = None
    gpt2_vocab: Path | None = None
    workers: int = 1


@dataclass(frozen=True)
class Place:
    """Where in the text a shard begins: a document's number, and how many of its tokens the shard before took."""

    document: int = 0
    taken: int = 0


def prepare_from_text(task: Task, data_dir: Path, count: int | None, text: Text, on_progress: Progress) -> Prepared:
    """Makes validation and the first `count` training shards, None for all, out of raw text. Raises UserError.

    What is in place already is kept, and an interrupted call is taken up at the first shard that is missing.
    """
    folder = task.data_folder(data_dir)
    wanted = wanted_shards(task, count)
    with exclusive(data_dir, folder.name):
        missing = missing_shards(task, folder, wanted, on_progress)
        if missing:
            require_room(folder, missing)
            gpt2_encoding(task, data_dir / "downloads", text.gpt2_vocab, on_progress)
            _tokenize(task, data_dir, wanted, missing, text, on_progress)
    return Prepared(folder, built=bool(missing))


def _tokenize(
    task: Task, data_dir: Path, wanted: list[Shard], missing: list[Shard], text: Text, on_progress: Progress
) -> None:
    hub, folder = _hub(task), task.data_folder(data_dir)
    staging = folder / STAGING
    places = _read_places(staging, task, text)[: wanted.index(missing[0]) + 1]
    on_progress(f"tokenizing from document {places[-1].document:,} on, with {text.workers} processes")
    batches = read_batches(hub, text.parquet, places[-1].document, DOCUMENTS_PER_BATCH)
    vocabulary = data_dir / "downloads" / task.tokenizer.file
    with closing(batches), closing(encode_batches(batches, vocabulary, task.tokenizer, text.workers)) as encoded:
        for shard, (tokens, after) in zip(
            wanted[len(places) - 1 :], cut(encoded, hub.shard_tokens, places[-1]), strict=False
        ):
            if shard in missing:
                on_progress(f"{shard.file}: {len(tokens):,} tokens, up to document {after.document:,}")
                _write(task, folder, staging, shard, tokens)
            places.append(after)
            _write_places(staging, task, text, places)
            if shard is missing[-1]:
                return
    raise UserError(
        f"the text ends before {wanted[len(places) - 1].file}, at document {places[-1].document:,}",
        "give --parquet every file of the dataset, in its own names; or prepare fewer with --shards",
    )


def cut(encoded: Iterator[Encoded], shard_tokens: int, start: Place) -> Iterator[tuple[np.ndarray, Place]]:
    """Shards of `shard_tokens` tokens [n], uint16, the last one shorter; and where in the text the next one begins.

    The array is written over for the next shard. `encoded` begins with document `start.document`, whose first
    `start.taken` tokens are left out.
    """
    buffer, filled, place = np.empty(shard_tokens, TOKEN), 0, start
    skip = start.taken
    for batch in encoded:
        ends = np.cumsum(batch.lengths)
        used = skip
        while used < len(batch.tokens):
            part = batch.tokens[used : used + shard_tokens - filled]
            buffer[filled : filled + len(part)] = part
            filled, used = filled + len(part), used + len(part)
            if filled == shard_tokens:
                document = int(np.searchsorted(ends, used, side="right"))
                begin = int(ends[document - 1]) if document else 0
                yield buffer, Place(place.document + document, used - begin)
                filled = 0
        place, skip = replace(place, document=place.document + len(ends)), max(0, skip - len(batch.tokens))
    if filled:
        yield buffer[:filled], Place(place.document, 0)


def _write(task: Task, folder: Path, staging: Path, shard: Shard, tokens: np.ndarray) -> None:
    path = staging / shard.file
    staging.mkdir(parents=True, exist_ok=True)
    write_shard(path, tokens)
    if problem := shard_problem(shard, path):
        path.unlink()
        raise UserError(
            f"the text gives other tokens than the public copy has: {problem}",
            "see that it is the same text in the same order; else prepare without --from-text",
        )
    place_shard(task, folder, path, shard)


def _read_places(staging: Path, task: Task, text: Text) -> list[Place]:
    """Where each shard begins, as far as an earlier call with the same text came; at least that of the first."""
    path = staging / PROGRESS_FILE
    if path.exists():
        try:
            table = parse_json(read_file(path, MAX_PROGRESS_BYTES, ""))
            if table["text"] == _identity(task, text):
                return [Place(**place) for place in table["places"]]
        except (UserError, ValueError, TypeError, KeyError):
            pass  # it only saves time
    return [Place()]


def _write_places(staging: Path, task: Task, text: Text, places: list[Place]) -> None:
    table = {"text": _identity(task, text), "places": [asdict(place) for place in places]}
    staging.mkdir(parents=True, exist_ok=True)
    with replace_whole(staging / PROGRESS_FILE) as file:
        file.write(json.dumps(table).encode())


def _identity(task: Task, text: Text) -> str:
    source = _hub(task).text
    return f"{task.revision} {text.parquet.resolve() if text.parquet else f'{source.repository} {source.name}'}"


def _hub(task: Task) -> Hub:
    assert task.hub is not None  # wanted_shards has refused other tasks
    return task.hub
