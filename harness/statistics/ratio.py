"""How much faster: the ratio of times at equal loss, its interval, and its split into tokens and speed.

For a pair i of runs, with times t (seconds; or steps, where a task counts these), losses l (nats per token) and s nats
per e-fold of budget,

    y_i = log(t_reference / t_candidate) + (l_reference - l_candidate) / s

is the log of the ratio at equal loss: whoever has the lower loss could have stopped earlier, and s says by how much.
(The target cancels: the difference of two margins is the difference of two losses.) Built pair by pair, the noise of
the losses is in the spread of y and so in the interval, like the noise of the clock. s is one constant for all pairs;
its error does not average out over them and is added apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.statistics.student import (
    FloatArray,
    critical_value,
    finite_array,
    mean_and_spread,
    require_finite,
    require_not_negative,
    require_positive,
)

BOOTSTRAP_RESAMPLES = 9999
# Fewer pairs have too few distinct resamples for a quantile near 0.003.
BOOTSTRAP_LEAST_PAIRS = 6
# Two pairs that differ much, or a loss that has blown up, say nothing at all; ratio and limits must still be numbers.
LARGEST_LOG = 700.0


@dataclass(frozen=True)
class TimedRun:
    """A finished run: time (wall-clock seconds; steps where the task counts these), loss in nats per token, tokens."""

    time: float
    loss: float
    tokens: float

    def __post_init__(self) -> None:
        require_positive("time", self.time)
        require_finite("loss", self.loss)
        require_positive("tokens", self.tokens)


@dataclass(frozen=True)
class Pair:
    """A reference run and a candidate run, one after the other on one machine; None where it diverged or timed out."""

    reference: TimedRun | None
    candidate: TimedRun | None


@dataclass(frozen=True)
class Slope:
    """s: the nats per token gained by e times the budget, near that of the baseline; a constant of (task, class).

    Assumed for both arms; `estimate_slope` measures it. Raises ValueError unless nats_per_efold > 0,
    standard_error >= 0 and degrees_of_freedom > 0.
    """

    nats_per_efold: float
    standard_error: float
    degrees_of_freedom: float

    def __post_init__(self) -> None:
        require_positive("nats_per_efold", self.nats_per_efold)
        require_not_negative("standard_error", self.standard_error)
        require_positive("degrees_of_freedom", self.degrees_of_freedom)

    def limits(self, level: float) -> tuple[float, float]:
        """One-sided t limits of s at `level`, low and high. Raises ValueError when the low one is not above zero."""
        distance = critical_value(level, self.degrees_of_freedom) * self.standard_error
        if distance >= self.nats_per_efold:
            raise ValueError(
                f"standard_error: s = {self.nats_per_efold:g} with error {self.standard_error:g} may be zero; "
                "calibrate it with more runs"
            )
        return self.nats_per_efold - distance, self.nats_per_efold + distance


@dataclass(frozen=True)
class Interval:
    """A ratio with its limits, each one-sided at the same level; above 1 the candidate is better."""

    ratio: float
    low: float
    high: float


@dataclass(frozen=True)
class RatioEstimate:
    """A mean log-ratio in two parts, so that estimates which share s can be added without losing that.

    log_ratio: the part that does not depend on s, a mean of log(reference / candidate). loss_gain: mean loss of the
    reference minus that of the candidate, nats per token. standard_error: of log_ratio + loss_gain / s, from the spread
    over pairs alone. degrees_of_freedom: of that error.
    """

    log_ratio: float
    loss_gain: float
    standard_error: float
    degrees_of_freedom: float

    def log_at_equal_loss(self, slope: Slope) -> float:
        """log_ratio + loss_gain / s."""
        return self.log_ratio + self.loss_gain / slope.nats_per_efold

    def error_of_slope(self, slope: Slope) -> float:
        """The standard error that s contributes to the log-ratio, by the delta method: |loss_gain| error / s^2."""
        return abs(self.loss_gain) * slope.standard_error / slope.nats_per_efold**2

    def interval(self, slope: Slope, level: float) -> Interval:
        """The ratio at equal loss with one-sided limits at `level`: pair noise by Student's t, and the error of s.

        The limits of loss_gain / s are those of s carried through the division, which is monotone and so keeps their
        level. To first order they are the delta method's; beyond that the delta method is wrong where it
        matters, for a candidate of worse loss. The two independent distances add in squares, each from its own quantile
        (MOVER: Zou and Donner, Statistics in Medicine 27, 2008). Raises ValueError when s may be zero at `level`.
        """
        distance = critical_value(level, self.degrees_of_freedom) * self.standard_error
        return self.interval_from(slope, level, distance, distance)

    def interval_from(self, slope: Slope, level: float, below: float, above: float) -> Interval:
        """The interval whose pair noise reaches `below` and `above` the mean (in logs), with the error of s added."""
        gain = self.loss_gain / slope.nats_per_efold
        gains = sorted(self.loss_gain / limit for limit in slope.limits(level))
        center = self.log_ratio + gain
        low, high = center - math.hypot(below, gain - gains[0]), center + math.hypot(above, gains[1] - gain)
        return Interval(*(math.exp(min(max(log, -LARGEST_LOG), LARGEST_LOG)) for log in (center, low, high)))


@dataclass(frozen=True)
class Split:
    """Why the ratio is what it is: tokens to the target, and tokens per second; they multiply to the whole."""

    tokens: Interval
    speed: Interval


def complete_pairs(pairs: Sequence[Pair]) -> list[tuple[TimedRun, TimedRun]]:
    """(reference, candidate) of the pairs in which both runs finished."""
    return [(pair.reference, pair.candidate) for pair in pairs if pair.reference and pair.candidate]


def estimate_ratio(pairs: Sequence[Pair], slope: Slope, spread_floor: float = 0.0) -> RatioEstimate:
    """The mean log-ratio of times at equal loss over the complete pairs.

    Assumes independent pairs; the order A B B A cancels a linear drift. Unequal spreads of the arms do not matter,
    nor does heavy symmetric noise. The spread over pairs is taken for no less than `spread_floor` (log units; 0.7 of
    the calibrated one guards against skewed noise in one arm only). That the loss is linear in log budget with the
    same s for both arms is an assumption, good for losses close together. Raises ValueError on fewer than two
    complete pairs.
    """
    logs, gains = _logs_and_gains(pairs)
    return _estimate(logs, gains, slope, spread_floor)


def plain_ratio(pairs: Sequence[Pair], level: float, spread_floor: float = 0.0) -> Interval:
    """The mean log-ratio of plain times over the complete pairs, whatever the losses, with limits at `level`.

    `spread_floor` as in `estimate_ratio`. Raises ValueError on fewer than two complete pairs.
    """
    logs, _ = _logs_and_gains(pairs)
    unused = Slope(1.0, 0.0, 1.0)  # of gains that are all zero
    return _estimate(logs, np.zeros_like(logs), unused, spread_floor).interval(unused, level)


def bootstrap_interval(pairs: Sequence[Pair], slope: Slope, level: float, seed: int = 0) -> Interval | None:
    """A check on Student's t: the BCa bootstrap of the mean over pairs at the same level, with the error of s added.

    Efron, JASA 82, 1987, as in `scipy.stats.bootstrap`; 9,999 resamples, a fixed seed. With few pairs it is too narrow,
    so it never decides. None below 6 complete pairs, or where the pairs do not differ.
    """
    logs, gains = _logs_and_gains(pairs)
    values = logs + gains / slope.nats_per_efold
    # Beyond rounding: log-ratios are of order one or below.
    if len(values) < BOOTSTRAP_LEAST_PAIRS or np.ptp(values) < 1e-12:
        return None
    from scipy.stats import bootstrap  # half a second to import, wanted only here

    found = bootstrap(
        (values,), np.mean, n_resamples=BOOTSTRAP_RESAMPLES, confidence_level=1 - 2 * level, method="BCa",
        rng=np.random.default_rng(seed),
    ).confidence_interval  # fmt: skip
    center = float(values.mean())
    estimate = _estimate(logs, gains, slope, 0.0)
    return estimate.interval_from(slope, level, center - float(found.low), float(found.high) - center)


def split_ratio(pairs: Sequence[Pair], slope: Slope, level: float) -> Split:
    """The ratio at equal loss as (tokens to the target) x (tokens per second), each with limits at `level`.

    tokens: reference tokens / candidate tokens at equal loss, so it carries the loss correction and the error of s.
    speed: candidate tokens per second / reference tokens per second. The product is exact in every pair. Where a
    script chooses its own data, tokens are what it reported. Raises ValueError as `estimate_ratio`.
    """
    complete = complete_pairs(pairs)
    logs, gains = _logs_and_gains(pairs)
    tokens = np.array([math.log(reference.tokens / candidate.tokens) for reference, candidate in complete])
    speed = _estimate(logs - tokens, np.zeros(len(logs)), slope, 0.0)
    return Split(_estimate(tokens, gains, slope, 0.0).interval(slope, level), speed.interval(slope, level))


def _logs_and_gains(pairs: Sequence[Pair]) -> tuple[FloatArray, FloatArray]:
    """log(reference time / candidate time) and reference loss - candidate loss (nats) of the complete pairs."""
    complete = complete_pairs(pairs)
    logs = [math.log(reference.time / candidate.time) for reference, candidate in complete]
    gains = [reference.loss - candidate.loss for reference, candidate in complete]
    return finite_array("pairs", logs), finite_array("pairs", gains)


def _estimate(logs: FloatArray, gains: FloatArray, slope: Slope, spread_floor: float) -> RatioEstimate:
    """Mean and standard error over pairs of logs + gains / s."""
    require_not_negative("spread_floor", spread_floor)
    _, spread = mean_and_spread(logs + gains / slope.nats_per_efold)
    error = max(spread, spread_floor) / math.sqrt(len(logs))
    return RatioEstimate(float(logs.mean()), float(gains.mean()), error, len(logs) - 1)
