"""The task's byte-level BPE: reading the frozen file, and the training that made it.

The file is tiktoken's: a line for each token, its bytes in base64 and its rank. Ranks 0 to 255 are the single
bytes, then come the merges in the order they were learned; end-of-text is not in the file.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from harness.core.task import Task, Tokenizer
from harness.errors import UserError

if TYPE_CHECKING:
    import tiktoken
    import tokenizers

_REMEDY = "restore the file from the repository"
END_OF_TEXT = "<|endoftext|>"
# Enough text for two threads to share, few enough tokens (about 1 million) to hold them as Python integers.
BATCH = 8192
THREADS = 2


def load_encoding(task: Task) -> tiktoken.Encoding:
    """The encoding of a task whose file lies beside it, checked against the pinned sha256. Raises UserError."""
    path = task.tokenizer_path
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}", "restore the file from the repository") from None
    if hashlib.sha256(content).hexdigest() != task.tokenizer.sha256:
        raise UserError(
            f"{path}: its sha256 is not what {task.path.name} pins in tokenizer.sha256",
            _REMEDY,
        )
    return encoding_of(task.name, parse_ranks(content, str(path)), task.tokenizer)


def encoding_of(name: str, ranks: dict[bytes, int], tokenizer: Tokenizer) -> tiktoken.Encoding:
    """The encoding of these ranks with end-of-text as the one special token. Raises UserError."""
    import tiktoken

    if set(ranks.values()) | {tokenizer.end_of_text} != set(range(tokenizer.vocab_size)):
        raise UserError(
            f"{tokenizer.file}: its {len(ranks):,} tokens and end-of-text {tokenizer.end_of_text} do not "
            f"fill the vocabulary of {tokenizer.vocab_size:,}",
            "correct vocab_size and end_of_text under [tokenizer]",
        )
    return tiktoken.Encoding(
        name,
        pat_str=tokenizer.pattern,
        mergeable_ranks=ranks,
        special_tokens={END_OF_TEXT: tokenizer.end_of_text},
    )


def parse_ranks(content: bytes, name: str) -> dict[bytes, int]:
    """The ranks in a tiktoken file's content. Raises UserError."""
    try:
        pairs = [line.split() for line in content.splitlines()]
        ranks = {base64.b64decode(token, validate=True): int(rank) for token, rank in pairs}
    except ValueError as error:
        raise UserError(f"{name}: not a tiktoken file: {error}", "restore the file from the repository") from None
    if sorted(ranks.values()) != list(range(len(pairs))):
        raise UserError(f"{name}: its ranks are not 0, 1, 2 ...", _REMEDY)
    return ranks


def format_ranks(ranks: dict[bytes, int]) -> bytes:
    """The content of a tiktoken file, in order of rank."""
    ordered = sorted(ranks.items(), key=lambda item: item[1])
    return b"".join(base64.b64encode(token) + b" %d\n" % rank for token, rank in ordered)


def encode_documents(encoding: tiktoken.Encoding, texts: Iterable[str]) -> Iterator[np.ndarray]:
    """The tokens of each text [n], uint16, with end-of-text before it."""
    remaining = iter(texts)
    while batch := list(islice(remaining, BATCH)):
        for tokens in encoding.encode_ordinary_batch(batch, num_threads=THREADS):
            yield np.array([encoding.eot_token, *tokens], dtype=np.uint16)


def train(texts: list[str], tokenizer: Tokenizer) -> tokenizers.Tokenizer:
    """A byte-level BPE learned from the texts by `tokenizers`: the same texts give the same merges."""
    from tokenizers import Regex, models, pre_tokenizers, trainers
    from tokenizers import Tokenizer as Trained

    trained = Trained(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(tokenizer.pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=tokenizer.vocab_size - 1,  # end-of-text is no merge
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    trained.train_from_iterator(texts, trainer)
    return trained


def ranks_of(trained: tokenizers.Tokenizer) -> dict[bytes, int]:
    """tiktoken ranks of a trained BPE: single bytes by value, then its merges in order."""
    tokens = sorted(trained.get_vocab().items(), key=lambda item: item[1])
    merges = [token_bytes(token) for token, _ in tokens if len(token) > 1]
    singles = [bytes([value]) for value in range(256)]
    return {token: rank for rank, token in enumerate([*singles, *merges])}


def token_bytes(token: str) -> bytes:
    """The bytes behind a token as `tokenizers` spells it, one printable character for each byte."""
    return bytes(_byte_of_character()[character] for character in token)


@cache
def _byte_of_character() -> dict[str, int]:
    """GPT-2's spelling of bytes (`bytes_to_unicode` in its encoder.py): printable ones are themselves."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    others = [value for value in range(256) if value not in printable]
    spelling = {chr(value): value for value in printable}
    return spelling | {chr(256 + place): value for place, value in enumerate(others)}


def first_difference(encoding: tiktoken.Encoding, trained: tokenizers.Tokenizer, texts: list[str]) -> str | None:
    """The first text that the trainer and tiktoken encode differently, None if there is none."""
    vocabulary = trained.get_vocab().items()
    ranks = {number: encoding.encode_single_token(token_bytes(token)) for token, number in vocabulary}
    for start in range(0, len(texts), BATCH):
        batch = texts[start : start + BATCH]
        theirs = trained.encode_batch_fast(batch, add_special_tokens=False)
        ours = encoding.encode_ordinary_batch(batch, num_threads=THREADS)
        for text, their, our in zip(batch, theirs, ours, strict=True):
            if [ranks[number] for number in their.ids] != our:
                return text
    return None
