"""Made-up races and hypothesis strategies for the tests of the statistics."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from harness.statistics import Pair, Slope, TimedRun

SLOPE = Slope(0.15, 0.01, 9)
EXACT_SLOPE = Slope(0.15, 0.0, 9)

runs = st.builds(TimedRun, st.floats(50, 150), st.floats(3.2, 3.5), st.floats(1e6, 2e6))
complete_pair = st.builds(Pair, runs, runs)
complete_races = st.lists(complete_pair, min_size=2, max_size=16)
slopes = st.builds(Slope, st.floats(0.05, 0.5), st.floats(0, 0.01), st.floats(9, 100))


def race(
    ratio: float, count: int = 16, margin: float = 0.02, spread: float = 0.005, seed: int = 0, target: float = 3.38
) -> list[Pair]:
    """Pairs whose candidate is `ratio` times as fast by the clock, both `margin` nats below the target."""
    generator = np.random.default_rng(seed)

    def run(seconds: float) -> TimedRun:
        noisy = seconds * float(np.exp(spread * generator.standard_normal()))
        return TimedRun(noisy, target - margin + 0.15 * spread * float(generator.standard_normal()), 1e6)

    return [Pair(run(80.0), run(80.0 / ratio)) for _ in range(count)]


def swapped(pairs: list[Pair]) -> list[Pair]:
    """The same race with the arms exchanged."""
    return [Pair(pair.candidate, pair.reference) for pair in pairs]
