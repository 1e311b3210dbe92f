"""What a machine and a task are like: spread of loss and time, s, and how many pairs an effect needs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from harness.statistics.ratio import Slope
from harness.statistics.student import (
    critical_value,
    finite_array,
    mean_and_spread,
    require_not_negative,
    require_positive,
    require_probability,
)

# Median absolute deviation of a normal distribution over its standard deviation, inverted.
MAD_TO_SPREAD = 1.4826
MOST_PAIRS = 1_000_000


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation of n values, with the chi-square interval of the latter, in the values' unit.

    robust: the scaled median absolute deviation; much below `spread`, a few values lie far out. A note, never decides.
    """

    count: int
    mean: float
    spread: float
    low: float
    high: float
    robust: float


@dataclass(frozen=True)
class BudgetRuns:
    """Losses (nats per token) of runs at `multiple` times the declared budget, each with a full schedule for it.

    Raises ValueError on a multiple that is not above zero, or without losses.
    """

    multiple: float
    losses: tuple[float, ...]

    def __post_init__(self) -> None:
        require_positive("multiple", self.multiple)
        finite_array("losses", self.losses, at_least=1)


@dataclass(frozen=True)
class SlopeFit:
    """s with its error, and curvature_p: how likely means lie so far off a line by chance; None with two budgets."""

    slope: Slope
    curvature_p: float | None


def loss_spread(losses: Sequence[float], confidence: float = 0.95) -> Spread:
    """Spread of losses (nats per token) of independent runs, with a two-sided chi-square interval at `confidence`.

    The interval assumes normal losses; with heavy tails it is too narrow. Raises ValueError on n < 2 or NaN.
    """
    values = finite_array("losses", losses)
    require_probability("confidence", confidence)
    mean, spread = mean_and_spread(values)
    tail, freedom = (1 - confidence) / 2, len(values) - 1
    low = spread * math.sqrt(freedom / float(special.chdtri(freedom, tail)))
    high = spread * math.sqrt(freedom / float(special.chdtri(freedom, 1 - tail)))
    robust = MAD_TO_SPREAD * float(np.median(np.abs(values - np.median(values))))
    return Spread(len(values), mean, spread, low, high, robust)


def time_variation(seconds: Sequence[float], confidence: float = 0.95) -> Spread:
    """Spread of the natural logs of run times in seconds: the coefficient of variation where it is a few percent.

    `mean` is the mean log. Interval and errors as `loss_spread`; also ValueError on a time that is not above zero.
    """
    for value in seconds:
        require_positive("seconds", value)
    return loss_spread([math.log(value) for value in seconds], confidence)


def estimate_slope(budgets: Sequence[BudgetRuns]) -> SlopeFit:
    """s from runs at several multiples of the budget, such as 0.7, 1 and 1.4: slope of mean loss against log budget.

    Least squares over the means, weighted by their numbers of runs; the spread between runs is taken as the same at
    every budget and pooled, with runs - budgets degrees of freedom. Loss is convex in log budget: budgets spaced
    evenly in logs around 1 make the line's slope that of the tangent at 1, up to third order; `curvature_p` (F-test
    of lack of fit) says whether the line is a bad description. Raises ValueError on fewer than two budgets, on no
    repeated runs, or when the loss does not fall.
    """
    if len({runs.multiple for runs in budgets}) < 2 or len({runs.multiple for runs in budgets}) != len(budgets):
        raise ValueError("budgets: at least two are needed, each multiple once")
    count = np.array([len(runs.losses) for runs in budgets], dtype=np.float64)
    means = np.array([np.mean(runs.losses) for runs in budgets])
    freedom = int(count.sum()) - len(budgets)
    if freedom < 1:
        raise ValueError("budgets: at least one needs repeated runs, or s has no error")
    squares = sum(float(((np.array(runs.losses) - np.mean(runs.losses)) ** 2).sum()) for runs in budgets)
    logs = np.log([runs.multiple for runs in budgets])
    offset = logs - np.average(logs, weights=count)
    leverage = float((count * offset**2).sum())
    gain = -float((count * offset * means).sum()) / leverage
    if gain <= 0:
        raise ValueError(f"budgets: the loss does not fall with the budget (s = {gain:g} nats per e-fold)")
    variance = squares / freedom
    residual = means - np.average(means, weights=count) + gain * offset
    curvature_p = None
    if len(budgets) > 2 and variance > 0:
        ratio = float((count * residual**2).sum()) / (len(budgets) - 2) / variance
        curvature_p = float(special.fdtrc(len(budgets) - 2, freedom, ratio))
    return SlopeFit(Slope(gain, math.sqrt(variance / leverage), freedom), curvature_p)


def log_ratio_spread(loss_sd: float, time_sd: float, slope: Slope) -> float:
    """Standard deviation of one pair's log-ratio at equal loss, from the spreads of single runs of both arms alike.

    `loss_sd` in nats, `time_sd` of log seconds. sqrt(2 (time_sd^2 + (loss_sd / s)^2)): assumes that time and loss are
    independent, and that neighbours in a pair have nothing in common; if they share a slow phase the truth is smaller.
    """
    require_not_negative("loss_sd", loss_sd)
    require_not_negative("time_sd", time_sd)
    return math.sqrt(2) * math.hypot(time_sd, loss_sd / slope.nats_per_efold)


def pairs_to_resolve(effect: float, spread: float, level: float, power: float = 0.9) -> int:
    """Pairs after which one t-test at one-sided `level` finds a ratio of 1 + `effect` with probability `power`.

    "To resolve 1% here takes about N pairs": effect 0.01, `spread` the standard deviation of the log-ratio of a pair.
    Exact for normal log-ratios (noncentral t); with the nominal level of a sequential plan it is an upper limit for
    that plan, which may stop earlier. To be a *record* an effect must be resolved beyond the minimum ratio: use
    effect = ratio / minimum - 1. At least 2. Raises ValueError unless effect and spread are positive, or beyond a
    million.
    """
    require_positive("effect", effect)
    require_positive("spread", spread)
    require_probability("level", level)
    require_probability("power", power)
    in_spreads = math.log1p(effect) / spread
    low, high = 1, 2
    while t_test_power(in_spreads, high, level) < power:
        low, high = high, 2 * high
        if high > MOST_PAIRS:
            raise ValueError(f"effect: {effect:g} is too small for a spread of {spread:g}")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if t_test_power(in_spreads, middle, level) < power else (low, middle)
    return high


def t_test_power(effect: float, count: int, level: float) -> float:
    """Power of the one-sided t-test of `count` values at `level`, true mean `effect` spreads above (noncentral t).

    Beyond 1,000 values the normal approximation, where the difference is below the third digit.
    """
    center = effect * math.sqrt(count)
    critical = critical_value(level, count - 1)
    if count > 1000:
        return float(special.ndtr(center - critical))
    return 1 - float(special.nctdtr(count - 1, center, critical))
