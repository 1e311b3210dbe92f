"""Tokenizing in many processes: batches of documents go out, their tokens come back in order."""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness.core.data.shards import TOKEN
from harness.core.data.tokenizer import encoding_of, parse_ranks
from harness.core.guard import die_with_parent
from harness.core.task import Tokenizer
from harness.errors import UserError

if TYPE_CHECKING:
    import tiktoken

AHEAD = 3  # batches in flight a process: none waits, and none piles up behind a slow disk


@dataclass(frozen=True)
class Encoded:
    """The tokens [n], uint16, of some documents, end-of-text before each; and the length of each [d], with it."""

    tokens: np.ndarray
    lengths: np.ndarray


def encode_batches(
    batches: Iterator[list[str]], vocabulary: Path, tokenizer: Tokenizer, workers: int
) -> Generator[Encoded]:
    """The tokens of each batch, in order, from `workers` processes. Raises UserError.

    `vocabulary` is the tiktoken file, which each process reads for itself. Closing the iterator ends them.
    """
    context = get_context("spawn")  # a fork would take over locks of the threads that read the text
    setup = (os.getpid(), vocabulary, tokenizer)
    pool = ProcessPoolExecutor(workers, context, initializer=_start, initargs=setup)
    waiting: deque[Future[Encoded]] = deque()
    try:
        for batch in batches:
            waiting.append(pool.submit(_encode, batch))
            if len(waiting) > AHEAD * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise UserError(
            "a tokenizing process was ended from outside", "free some memory, or use fewer with --workers"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def encode_documents(encoding: tiktoken.Encoding, texts: list[str]) -> Encoded:
    """The tokens of some documents in this process."""
    # Without lists of Python integers between: more than twice the rate. What looks like a special token is text.
    rows = [encoding.encode_to_numpy(text, disallowed_special=()) for text in texts]
    lengths = np.array([len(row) + 1 for row in rows], dtype=np.int64)
    tokens = np.full(lengths.sum(), encoding.eot_token, dtype=TOKEN)
    for row, end in zip(rows, np.cumsum(lengths).tolist(), strict=True):
        tokens[end - len(row) : end] = row
    return Encoded(tokens, lengths)


_encoding: tiktoken.Encoding | None = None  # of a worker process


def _start(parent: int, vocabulary: Path, tokenizer: Tokenizer) -> None:
    global _encoding
    die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    _encoding = encoding_of("gpt2", parse_ranks(vocabulary.read_bytes(), str(vocabulary)), tokenizer)


def _encode(texts: list[str]) -> Encoded:
    assert _encoding is not None
    return encode_documents(_encoding, texts)
