"""Hashes of every window of a sequence, the means of finding repeated text exactly."""

from __future__ import annotations

import numpy as np


def window_hashes(values: np.ndarray, width: int) -> np.ndarray:
    """A 64-bit hash of every window of `width` values: [n] gives [n - width + 1], uint64.

    The hash of a window is combined from those of two shorter ones that cover it, so that all offsets
    together cost about log2(width) passes.
    """
    if len(values) < width:
        return np.zeros(0, dtype=np.uint64)
    hashes = _mix(values.astype(np.uint64))
    covered = 1
    while covered < width:
        step = min(covered, width - covered)
        hashes = _mix(hashes[:-step] * np.uint64(0x9E3779B97F4A7C15) + hashes[step:])
        covered += step
    return hashes


def _mix(values: np.ndarray) -> np.ndarray:
    """The finalizer of splitmix64 (Steele, Lea and Flood, OOPSLA 2014): spreads every bit over all 64."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
