"""How far the splits of a task are apart: text of validation and holdout that also stands in training.

Two measures, both exact up to collisions of 64-bit hashes (about 1 in 10^7 that there is one in `gcide`):

- shared windows: the share of a split's windows of WINDOW tokens, at every offset, that stand in training at
  any offset;
- near-duplicates: documents of at least MIN_TOKENS tokens of which half or more of the distinct runs of
  RUN tokens stand in one single training document.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.core.data.prepare import require_prepared
from harness.core.data.shards import open_shard
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
EXAMPLES = 5


@dataclass(frozen=True)
class NearDuplicate:
    """A document outside training and the training document that holds `share` of its runs."""

    share: float
    text: str
    training_text: str


@dataclass(frozen=True)
class SplitAudit:
    """What a split has in common with training; `near_duplicates` counts documents, `examples` shows some."""

    split: str
    tokens: int
    windows: int
    shared_windows: int
    documents: int
    near_duplicates: int
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


def audit(task: Task, data_dir: Path) -> list[SplitAudit]:
    """Compares validation, and holdout if the task has one, with training. Raises UserError."""
    folder = require_prepared(task, data_dir)
    encoding = load_encoding(task)
    training = _corpus(task, folder, "train")
    audits = []
    for split in ("validation", "holdout"):
        if not task.of_split(split):
            continue
        held = _corpus(task, folder, split)
        nearest, shares = nearest_documents(held, training)
        near = np.flatnonzero(shares >= NEAR)
        examples = near[np.argsort(-shares[near], kind="stable")][:EXAMPLES].tolist()
        audits.append(
            SplitAudit(
                split=split,
                tokens=len(held.tokens),
                windows=max(0, len(held.tokens) - WINDOW + 1),
                shared_windows=count_shared_windows(held.tokens, training.tokens),
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
        )
    return audits


def count_shared_windows(held: np.ndarray, training: np.ndarray) -> int:
    """How many windows of `held` [n], at every offset, stand anywhere in `training` [m]."""
    hashes = window_hashes(held, WINDOW)
    shared = np.zeros(len(hashes), dtype=bool)
    for _, block in _blocks(training, WINDOW):
        shared |= np.isin(hashes, block)
    return int(shared.sum())


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
