"""How far the splits of a task are apart: text of validation and holdout that also stands in training.

Two measures, both exact up to collisions of 64-bit hashes (about 1 in 10^7 that there is one in `gcide`):

- shared windows: the share of a split's windows of WINDOW tokens, at every offset, that stand in training at
  any offset;
- near-duplicates: documents of at least MIN_TOKENS tokens of which half or more of the distinct runs of
  RUN tokens stand in one single training document. Not looked for in tasks with [hub], whose training text is not
  held in memory: there the shards pass by one after another.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.core.data.prepare import Progress, require_prepared
from harness.core.data.shards import open_shard, prepared_shards, scored_tokens
from harness.core.data.tokenizer import load_encoding
from harness.core.data.windows import window_hashes
from harness.core.task import Task

WINDOW = 64
RUN = 8
MIN_TOKENS = 32
NEAR = 0.5
# A run found in more training documents than this is a stock phrase and says nothing about copies.
STOCK_PHRASE = 100
# Tokens of training looked at together: 4 million hashes and their sorted copies take about 150 MB.
BLOCK = 4 * 1024 * 1024
# The same for shared windows: these arrays stay in a core's cache, which doubles the rate.
SCAN_BLOCK = 256 * 1024
# Of a table with so many bits a window at least, fewer than 2% of foreign windows pass on to the exact look-up.
BITS_PER_WINDOW = 64
EXAMPLES = 5


@dataclass(frozen=True)
class NearDuplicate:
    """A document outside training and the training document that holds `share` of its runs."""

    share: float
    text: str
    training_text: str


@dataclass(frozen=True)
class SplitAudit:
    """What a split has in common with the training tokens there are.

    `near_duplicates` counts documents, None where they were not looked for; `examples` shows some.
    """

    split: str
    tokens: int
    training_tokens: int
    windows: int
    shared_windows: int
    documents: int
    near_duplicates: int | None
    examples: list[NearDuplicate]


@dataclass(frozen=True)
class Corpus:
    """The tokens [n] of a split, where its documents start [d], and the document of each token [n].

    End-of-text belongs to no document: its owner is -1.
    """

    tokens: np.ndarray
    starts: np.ndarray
    owners: np.ndarray

    @staticmethod
    def of(tokens: np.ndarray, end_of_text: int) -> Corpus:
        boundaries = tokens == end_of_text
        owners = np.where(boundaries, -1, np.cumsum(boundaries, dtype=np.int32) - 1)
        return Corpus(tokens, np.flatnonzero(boundaries), owners)

    def document(self, index: int) -> list[int]:
        """The tokens of one document without its end-of-text."""
        end = self.starts[index + 1] if index + 1 < len(self.starts) else len(self.tokens)
        return self.tokens[self.starts[index] + 1 : end].tolist()


def audit(task: Task, data_dir: Path, on_progress: Progress = lambda message: None) -> list[SplitAudit]:
    """Compares validation, and holdout if the task has one, with training. Raises UserError."""
    folder = require_prepared(task, data_dir)
    splits = [split for split in ("validation", "holdout") if task.of_split(split)]
    if task.hub is not None:
        return [_audit_by_shard(task, folder, split, on_progress) for split in splits]
    training = _corpus(task, folder, "train")
    return [_audit_in_memory(task, folder, split, training) for split in splits]


def _audit_in_memory(task: Task, folder: Path, split: str, training: Corpus) -> SplitAudit:
    encoding = load_encoding(task)
    held = _corpus(task, folder, split)
    nearest, shares = nearest_documents(held, training)
    near = np.flatnonzero(shares >= NEAR)
    examples = near[np.argsort(-shares[near], kind="stable")][:EXAMPLES].tolist()
    return SplitAudit(
        split=split,
        tokens=len(held.tokens),
        training_tokens=len(training.tokens),
        windows=max(0, len(held.tokens) - WINDOW + 1),
        shared_windows=count_shared_windows(held.tokens, [training.tokens]),
        documents=len(held.starts),
        near_duplicates=len(near),
        examples=[
            NearDuplicate(
                share=round(float(shares[index]), 3),
                text=encoding.decode(held.document(index)),
                training_text=encoding.decode(training.document(int(nearest[index]))),
            )
            for index in examples
        ],
    )


def _audit_by_shard(task: Task, folder: Path, split: str, on_progress: Progress) -> SplitAudit:
    """The same for training text of any size: memory is that of the split, some 40 bytes a token, and one block."""
    held = scored_tokens(task, folder, split)
    shards = [shard for shard in prepared_shards(task, folder) if shard.split == "train"]

    def parts() -> Iterator[np.ndarray]:
        for number, shard in enumerate(shards, start=1):
            on_progress(f"{split}: looking through {shard.file}, {number} of {len(shards)}")
            yield open_shard(folder / shard.file, shard)

    return SplitAudit(
        split=split,
        tokens=len(held),
        training_tokens=sum(shard.tokens for shard in shards),
        windows=max(0, len(held) - WINDOW + 1),
        shared_windows=count_shared_windows(held, parts()),
        documents=int((held == task.tokenizer.end_of_text).sum()),
        near_duplicates=None,
        examples=[],
    )


def count_shared_windows(held: np.ndarray, training: Iterable[np.ndarray]) -> int:
    """How many windows of `held` [n], at every offset, stand anywhere in training, given in parts that follow on."""
    wanted = np.sort(window_hashes(held, WINDOW))
    if not len(wanted):
        return 0
    found = np.zeros(len(wanted), dtype=bool)  # set for the first of equal windows
    bits = max(8, (BITS_PER_WINDOW * len(wanted)).bit_length())
    table = np.zeros(1 << (bits - 3), dtype=np.uint8)
    places, masks = _places(wanted, bits)
    np.bitwise_or.at(table, places, masks)
    for block in _window_blocks(training):
        places, masks = _places(block, bits)
        likely = block[(table[places] & masks) != 0]
        spots = np.minimum(np.searchsorted(wanted, likely), len(wanted) - 1)
        found[spots[wanted[spots] == likely]] = True
    firsts = np.flatnonzero(np.diff(wanted, prepend=~wanted[0]) != 0)
    return int(np.diff(firsts, append=len(wanted))[found[firsts]].sum())


def _places(hashes: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """The byte and the bit of each hash in a table of 2**bits bits."""
    top = hashes >> np.uint64(64 - bits)
    return top >> np.uint64(3), np.uint8(1) << (top & np.uint64(7)).astype(np.uint8)


def _window_blocks(parts: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The hashes of all windows of WINDOW tokens, also of those that reach from one part into the next."""
    before = np.zeros(0, dtype=np.uint16)
    for part in parts:
        head = np.concatenate([before, part[: WINDOW - 1]])
        yield window_hashes(head, WINDOW)
        for start in range(0, len(part) - WINDOW + 1, SCAN_BLOCK):
            yield window_hashes(part[start : start + SCAN_BLOCK + WINDOW - 1], WINDOW)
        before = np.concatenate([before, part[-(WINDOW - 1) :]])[-(WINDOW - 1) :]


def nearest_documents(held: Corpus, training: Corpus) -> tuple[np.ndarray, np.ndarray]:
    """For each held-out document [d] the training document that holds most of its runs, and their share.

    The share is 0 and the training document meaningless where no run is shared or the document is too short.
    """
    hashes, owners = _distinct_runs(window_hashes(held.tokens, RUN), held, 0)
    totals = np.bincount(owners, minlength=len(held.starts))
    found = [_distinct_runs(block, training, start, among=hashes) for start, block in _blocks(training.tokens, RUN)]
    shared = np.concatenate([part[0] for part in found])
    holders = np.concatenate([part[1] for part in found])
    values, counts = np.unique(shared, return_counts=True)
    telling = np.isin(shared, values[counts <= STOCK_PHRASE])
    pairs = _join(hashes, owners, shared[telling], holders[telling])
    keys, common = np.unique(pairs[0].astype(np.int64) * len(training.starts) + pairs[1], return_counts=True)
    document, holder = np.divmod(keys, max(1, len(training.starts)))
    share = common / totals[document]
    lengths = np.diff(held.starts, append=len(held.tokens)) - 1
    share[lengths[document] < MIN_TOKENS] = 0
    nearest = np.zeros(len(held.starts), dtype=np.int64)
    shares = np.zeros(len(held.starts))
    order = np.argsort(share, kind="stable")  # of several assignments to one place the last, largest, stays
    nearest[document[order]] = holder[order]
    shares[document[order]] = share[order]
    return nearest, shares


def _distinct_runs(
    hashes: np.ndarray, corpus: Corpus, start: int, among: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The runs that lie within one document, each once a document: hashes [k] and documents [k].

    `hashes` are those of the windows of RUN tokens that begin at `start` and after.
    """
    owners = corpus.owners[start : start + len(hashes)]
    keep = owners == corpus.owners[start + RUN - 1 : start + RUN - 1 + len(hashes)]
    if among is not None:
        keep &= np.isin(hashes, among)
    pairs = np.unique(np.stack([hashes[keep], owners[keep].astype(np.uint64)], axis=1), axis=0)
    return pairs[:, 0], pairs[:, 1].astype(np.int64)


def _join(
    hashes: np.ndarray, owners: np.ndarray, shared: np.ndarray, holders: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Every pair (held-out document, training document) that has a run in common, once for each such run."""
    order = np.argsort(shared, kind="stable")
    shared, holders = shared[order], holders[order]
    low = np.searchsorted(shared, hashes, side="left")
    count = np.searchsorted(shared, hashes, side="right") - low
    offsets = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    return np.repeat(owners, count), holders[np.repeat(low, count) + offsets]


def _blocks(tokens: np.ndarray, width: int) -> Iterator[tuple[int, np.ndarray]]:
    """The hashes of all windows of `width` tokens, in blocks: the offset of the first, and the hashes."""
    for start in range(0, max(1, len(tokens) - width + 1), BLOCK):
        yield start, window_hashes(tokens[start : start + BLOCK + width - 1], width)


def _corpus(task: Task, folder: Path, split: str) -> Corpus:
    tokens = np.concatenate([open_shard(folder / shard.file, shard) for shard in task.of_split(split)])
    return Corpus.of(tokens, task.tokenizer.end_of_text)
