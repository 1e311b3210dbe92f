"""The documents of a text, read in order by a process of its own: from the hub, or from parquet files at hand.

Of its own, since threads that pyarrow leaves behind may abort the process that read, when it ends ("terminate called
without an active exception", apache/arrow#45214): whoever asked for the text would fail after all was done.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Generator, Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from threading import RLock
from typing import Any

from harness.core.guard import die_with_parent
from harness.core.task import Hub
from harness.errors import UserError


def read_batches(hub: Hub, parquet: Path | None, start: int, size: int) -> Generator[list[str]]:
    """The documents from number `start` on, in order, in lists of `size`. Raises UserError.

    `parquet`: the folder of parquet files to read in place of the hub's dataset. Closing the iterator ends the process.
    """
    context = get_context("spawn")  # a fork would take over locks of other threads
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_all, args=(os.getpid(), sender, hub, parquet, start, size), daemon=True)
    process.start()
    sender.close()
    try:
        while (said := receiver.recv()) is not None:
            if isinstance(said, UserError):
                raise said
            yield said
    except EOFError:
        raise UserError(
            "the process that reads the text was ended from outside", "free some memory, then say the same again"
        ) from None
    finally:
        process.kill()
        process.join()
        receiver.close()


def _send_all(parent: int, sender: Connection, hub: Hub, parquet: Path | None, start: int, size: int) -> None:
    """Sends every list, then None; or the UserError that ended it."""
    die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    try:
        for batch in _batches(hub, parquet, start, size):
            sender.send(batch)
        sender.send(None)
    except UserError as error:
        sender.send(error)
    os._exit(0)  # without the interpreter's end, where it would abort


def _batches(hub: Hub, parquet: Path | None, start: int, size: int) -> Iterator[list[str]]:
    from datasets import load_dataset
    from tqdm import tqdm

    tqdm.set_lock(RLock())  # its own is a semaphore of the system, left behind by a process that is killed
    options: dict[str, Any] = {"split": "train", "streaming": True, "columns": [hub.text.column]}
    source = str(parquet) if parquet else f"{hub.text.repository}, {hub.text.name}"
    try:
        if parquet is not None:
            files = sorted(str(path) for path in parquet.rglob("*.parquet"))
            if not files:
                raise UserError(f"{parquet}: holds no .parquet files", "give --parquet the dataset's folder")
            rows = load_dataset("parquet", data_files=files, **options)
        else:
            rows = load_dataset(hub.text.repository, name=hub.text.name, **options)
        for batch in rows.skip(start).iter(batch_size=size):
            documents = batch[hub.text.column]
            if any(not isinstance(document, str) for document in documents):
                raise UserError(f"{source}: column {hub.text.column!r} is not text in every row", "see [hub.text]")
            yield documents
    except UserError:
        raise
    # The libraries behind `datasets` raise errors of a dozen kinds, for the network, for files and for formats.
    except Exception as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise UserError(
            f"{source}: the text cannot be read: {said}",
            "check the connection and $HF_ENDPOINT, then say the same again, which goes on at the last whole shard; "
            "or fetch the parquet files elsewhere and name their folder with --parquet",
        ) from None
