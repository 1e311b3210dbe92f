"""Simulated races, and the rule that decides a race for many of them at once.

The rule is `harness.statistics.decide`; the tests compare the two race by race. Noise is in units of its standard
deviation wherever that is all that matters.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from noise import Noise, normal

from harness.statistics import LOOKS, sequential_plan
from harness.statistics.decision import CPU_MINIMUM_RATIO, SPREAD_FLOOR, Verdict
from harness.statistics.sequential import look_p_values
from harness.statistics.student import FloatArray, critical_value

PLAN = sequential_plan()
RUNS = PLAN.maximum
VERDICTS = (Verdict.RECORD, Verdict.NOT_PROVEN, Verdict.SLOWER, Verdict.MISSES_TARGET)


@dataclass(frozen=True)
class World:
    """What is true in a simulated race: times in log seconds, losses in nats per token, standard deviations of each.

    ratio: at equal loss. margin: of the candidate's mean loss below the target. loss_gain: reference minus
    candidate mean loss. candidate_scale: of the candidate's noise. drift: shape of the machine's drift over the runs.
    slope_error: relative standard error of the s in use, from `slope_freedom` degrees of freedom.
    """

    ratio: float = CPU_MINIMUM_RATIO
    margin: float = 1.0
    loss_gain: float = 0.0
    time_sd: float = 0.01
    loss_sd: float = 0.002
    slope: float = 0.15
    candidate_scale: float = 1.0
    reference_noise: Noise = normal
    candidate_noise: Noise = normal
    drift: Callable[[np.random.Generator, int, int], FloatArray] | None = None
    balanced: bool = True
    slope_error: float = 0.0
    slope_freedom: float = 10.0

    @property
    def log_ratio_spread(self) -> float:
        """Standard deviation of a pair's log-ratio with the noise of the reference in both arms."""
        return math.sqrt(2) * math.hypot(self.time_sd, self.loss_sd / self.slope)

    @property
    def time_ratio_spread(self) -> float:
        """The same of the clock alone."""
        return math.sqrt(2) * self.time_sd


@dataclass(frozen=True)
class Races:
    """Simulated races: float64 [races, pairs] log time ratio, loss gain, candidate loss; s as estimated [races]."""

    log_ratio: FloatArray
    loss_gain: FloatArray
    candidate_loss: FloatArray
    slope: FloatArray
    slope_standard_error: FloatArray


def simulate(world: World, races: int, generator: np.random.Generator) -> Races:
    """Draws races of 16 pairs from `world`; the target is loss 0."""
    shape = (races, RUNS)
    loss_reference = -world.margin + world.loss_gain + world.loss_sd * world.reference_noise(generator, shape)
    scale = world.candidate_scale
    loss_candidate = -world.margin + scale * world.loss_sd * world.candidate_noise(generator, shape)
    true_log = math.log(world.ratio) - world.loss_gain / world.slope
    if world.drift is None:
        noise = world.time_sd * (normal(generator, shape) - scale * normal(generator, shape))
    else:
        first, second = np.moveaxis(world.drift(generator, races, 2 * RUNS).reshape(races, RUNS, 2), -1, 0)
        sign = np.where(np.arange(RUNS) % 2 == 0, 1.0, -1.0) if world.balanced else 1.0
        noise = world.time_sd * sign * (first - second)
    error = world.slope * world.slope_error
    slope = world.slope + error * generator.standard_normal(races)
    error_estimate = error * np.sqrt(generator.chisquare(world.slope_freedom, races) / world.slope_freedom)
    return Races(true_log + noise, loss_reference - loss_candidate, loss_candidate, slope, error_estimate)


def mean_and_reach(values: FloatArray, floor: float) -> tuple[FloatArray, FloatArray]:
    """Of values [races, pairs]: their mean, and how far a limit is from it, each [races, looks]."""
    count = np.asarray(LOOKS)
    spread = np.stack([values[:, :look].std(1, ddof=1) for look in LOOKS], 1)
    reach = np.maximum(spread, floor) / np.sqrt(count) * [critical_value(PLAN.level, look - 1) for look in LOOKS]
    return values.cumsum(1)[:, count - 1] / count, reach


def ratio_limits(races: Races, freedom: float, floor: float) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Log-ratio, its low and high limit, and the nominal p of "above the minimum", each [races, looks]."""
    values = races.log_ratio + races.loss_gain / races.slope[:, None]
    center, below = mean_and_reach(values, floor)
    gain, _ = mean_and_reach(races.loss_gain, 0.0)
    reach = critical_value(PLAN.level, freedom) * races.slope_standard_error
    usable = (races.slope > reach)[:, None]
    with np.errstate(divide="ignore"):
        limits = np.stack([gain / (races.slope - reach)[:, None], gain / (races.slope + reach)[:, None]])
    middle = gain / races.slope[:, None]
    low = np.where(usable, center - np.hypot(below, middle - limits.min(0)), -np.inf)
    high = np.where(usable, center + np.hypot(below, limits.max(0) - middle), np.inf)
    p = look_p_values(values - math.log(CPU_MINIMUM_RATIO), LOOKS, floor)
    return center, low, high, p


def plain_limits(races: Races, floor: float) -> tuple[FloatArray, FloatArray]:
    """Low and high limit of the log-ratio of plain times, each [races, looks]."""
    center, reach = mean_and_reach(races.log_ratio, floor)
    return center - reach, center + reach


def verdicts(races: Races, world: World, plain_time: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Index into VERDICTS and into LOOKS where each race stops, both [races]: `decide` for many races at once.

    The spreads are taken for no less than 0.7 of those of `world`.
    """
    target_p = look_p_values(-races.candidate_loss, LOOKS, SPREAD_FLOOR * world.loss_sd)
    _, low, high, faster_p = ratio_limits(races, world.slope_freedom, SPREAD_FLOOR * world.log_ratio_spread)
    futility = np.array([*PLAN.futility, 1.0])
    last = np.arange(len(LOOKS)) == len(LOOKS) - 1
    reached = target_p <= PLAN.level
    proven, hopeless = low > math.log(CPU_MINIMUM_RATIO), faster_p > futility
    if plain_time:
        plain_low, plain_high = plain_limits(races, SPREAD_FLOOR * world.time_ratio_spread)
        proven, hopeless = proven & (plain_low > 0), hopeless | (plain_high < 0)
    record = reached & proven
    misses = ~reached & (last | (target_p > futility))
    slower = high < 0
    unproven = last | (reached & hopeless)
    at_look = np.select([record, misses, slower, unproven], [0, 3, 2, 1], -1)
    first = (at_look >= 0).argmax(1)
    return np.take_along_axis(at_look, first[:, None], 1)[:, 0], first
