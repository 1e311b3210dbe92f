"""The group-sequential plan: when a race is looked at, what a look must show, and what it costs in error.

Both questions of a race (does the candidate reach the target, is it faster) are one-sided tests of a mean with the
sample's own spread, looked at after 4, 6, 8, 12 and 16 runs. Looking five times at the 1% level would accept
falsely in 3.3% of cases, so every look uses one smaller level, the same *nominal* level of Student's t
(Pocock 1977 used the constant bound for known spread; Jennison and Turnbull, Group Sequential Methods, 2000,
chapter 11, for unknown spread). Why constant and not O'Brien-Fleming's shape: runs are what is expensive, and at equal
power (90% at 16) the constant level needs the fewest runs of the shapes tried; `benchmarks/sequential_bounds.py`
prints the comparison. It is also defined for every number of runs, so a run that failed needs no bound of its own.

Under the null hypothesis the sequence of t statistics does not depend on mean or spread, so simulation from the
standard normal gives the level exactly, up to its own error. The constants below are that command's output.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from harness.statistics.student import FloatArray, critical_value, require_positive, require_probability

LOOKS = (4, 6, 8, 12, 16)
ALPHA = 0.01
DESIGN_POWER = 0.9
FUTILITY_LOSS = 0.02

# python benchmarks/sequential_bounds.py: overall one-sided error of the five looks, and the nominal level that has it.
LEVELS = (
    (0.0001, 2.166e-05),
    (0.001, 0.0002294),
    (0.005, 0.001249),
    (0.01, 0.002632),
    (0.025, 0.007189),
    (0.05, 0.01569),
    (0.1, 0.03513),
    (0.25, 0.1082),
    (0.5, 0.2744),
    (0.9, 0.7136),
)
# The same command: a nominal p above this at looks 4, 6, 8, 12 is hopeless; costs 2 of the 90 points of power.
FUTILITY = (0.461, 0.222, 0.102, 0.020)

_CHUNK = 200_000


@dataclass(frozen=True)
class SequentialPlan:
    """When to look and what a look must show; fixed before the first run.

    looks: numbers of runs (or pairs), ascending. alpha: one-sided error over all looks together. level: nominal
    one-sided level of Student's t at each look. futility: nominal p above which a look stops for futility, one for each
    look but the last; not binding, the error holds whether or not it is obeyed. error_table: (nominal level, overall
    error) points, ascending, from which p-values are corrected for the looks.
    """

    looks: tuple[int, ...]
    alpha: float
    level: float
    futility: tuple[float, ...]
    error_table: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        if not self.looks or list(self.looks) != sorted(set(self.looks)) or self.looks[0] < 2:
            raise ValueError(f"looks: must ascend from at least 2, not {self.looks}")
        if len(self.futility) != len(self.looks) - 1:
            raise ValueError(f"futility: needs {len(self.looks) - 1} values, not {len(self.futility)}")
        require_probability("alpha", self.alpha)
        require_probability("level", self.level)

    @property
    def maximum(self) -> int:
        """The number of runs after which the test is final."""
        return self.looks[-1]

    def next_look(self, runs: int) -> int | None:
        """The first look after `runs` runs, None at the maximum."""
        return next((look for look in self.looks if look > runs), None)

    def futility_level(self, runs: int) -> float:
        """The nominal p above which a look at `runs` stops; 1 where there is no such bound."""
        bounds = dict(zip(self.looks, self.futility, strict=False))
        return bounds.get(runs, 1.0)

    def corrected_p(self, nominal_p: float) -> float:
        """The repeated p-value: the overall error of the plan whose looks would just accept `nominal_p`.

        It is at most alpha exactly when `nominal_p` is at most `level` (Jennison and Turnbull 2000, section 9.6).
        Interpolated between simulated points on log scales; below them, the number of looks times p (Bonferroni).
        """
        levels, errors = np.array(self.error_table).T
        if nominal_p < levels[0]:
            return min(len(self.looks) * nominal_p, float(errors[0]))
        return float(np.exp(np.interp(np.log(nominal_p), np.log(levels), np.log(errors))))


def sequential_plan(maximum: int = LOOKS[-1]) -> SequentialPlan:
    """The plan of a race: looks at 4, 6, 8, 12, 16 up to `maximum`, overall one-sided error 0.01.

    A shorter maximum keeps the level of the whole plan: its error is then below 0.01, and the test may be continued
    to 16 later. Raises ValueError unless `maximum` is one of the looks.
    """
    if maximum not in LOOKS:
        raise ValueError(f"maximum: must be one of {LOOKS}, not {maximum}")
    looks = tuple(look for look in LOOKS if look <= maximum)
    table = (*((level, error) for error, level in LEVELS), (1.0, 1.0))
    return SequentialPlan(looks, ALPHA, dict(LEVELS)[ALPHA], FUTILITY[: len(looks) - 1], table)


def fixed_plan(runs: int, alpha: float = ALPHA) -> SequentialPlan:
    """One look after `runs` runs at one-sided level `alpha`: the ordinary t-test. Raises ValueError on runs < 2."""
    return SequentialPlan((runs,), alpha, alpha, (), ((1e-12, 1e-12), (1.0, 1.0)))


def look_p_values(values: FloatArray, looks: Sequence[int], spread_floor: float | FloatArray = 0.0) -> FloatArray:
    """Nominal one-sided p of H0: mean <= 0 at every look: float64 [..., runs] to [..., looks].

    Student's t with the spread of the values up to the look, taken for no less than `spread_floor` (same unit; one for
    all, or of a shape that goes with [..., looks]).
    """
    count = np.asarray(looks)
    mean, spread = _means_and_spreads(values, count)
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = mean * np.sqrt(count) / np.maximum(spread, spread_floor)
    p: FloatArray = special.stdtr(count - 1, -statistic)
    return p


def simulate_levels(
    alphas: Sequence[float], looks: Sequence[int] = LOOKS, repetitions: int = 1_000_000, seed: int = 0
) -> list[float]:
    """The constant nominal level for every overall one-sided error in `alphas`, by simulation under H0.

    It is the alpha-quantile of the smallest nominal p over the looks. Standard error of the overall error that the
    answer really has: sqrt(alpha (1 - alpha) / repetitions).
    """
    generator = np.random.default_rng(seed)
    smallest = [
        look_p_values(generator.standard_normal((size, max(looks))), looks).min(-1) for size in _chunks(repetitions)
    ]
    return [float(level) for level in np.quantile(np.concatenate(smallest), alphas)]


def simulate_futility(
    level: float, looks: Sequence[int] = LOOKS, repetitions: int = 1_000_000, seed: int = 0
) -> list[float]:
    """Nominal p at every look but the last above which to give up, by simulation at the effect with power 0.9.

    Each look may lose an equal share of 0.02 of power, counted exactly: of the simulated series that would be
    accepted at a later look, those with the largest p are given up.
    """
    plan = SequentialPlan(tuple(looks), ALPHA, level, (1.0,) * (len(looks) - 1), ((1e-12, 1e-12), (1.0, 1.0)))
    effect = effect_for_power(plan, DESIGN_POWER, repetitions, seed)
    generator = np.random.default_rng(seed)
    p = np.concatenate(
        [look_p_values(generator.standard_normal((size, max(looks))) + effect, looks) for size in _chunks(repetitions)]
    )
    share = FUTILITY_LOSS / (len(looks) - 1)
    alive = np.ones(len(p), dtype=bool)
    bounds = []
    for look in range(len(looks) - 1):
        alive &= p[:, look] > level
        later = alive & (p[:, look + 1 :] <= level).any(1)
        bound = float(np.quantile(p[later, look], 1 - share * len(p) / later.sum()))
        alive &= p[:, look] <= bound
        bounds.append(bound)
    return bounds


@dataclass(frozen=True)
class Power:
    """Simulated behaviour of a plan: probability of acceptance, its standard error, mean number of runs."""

    power: float
    standard_error: float
    mean_runs: float


def simulate_power(
    plan: SequentialPlan, effect: float, repetitions: int = 20_000, seed: int = 0, obey_futility: bool = True
) -> Power:
    """Power of `plan` when the true mean is `effect` standard deviations above the null hypothesis, normal noise.

    For a race: effect = log(true ratio / minimum ratio) / standard deviation of the log-ratio of a pair.
    """
    generator = np.random.default_rng(seed)
    looks = np.asarray(plan.looks)
    p = look_p_values(generator.standard_normal((repetitions, plan.maximum)) + effect, plan.looks)
    bounds = np.array([*(plan.futility if obey_futility else (1.0,) * len(plan.futility)), -1.0])
    stopped = (p <= plan.level) | (p > bounds)
    first = stopped.argmax(1)
    accepted = np.take_along_axis(p, first[:, None], 1)[:, 0] <= plan.level
    power = float(accepted.mean())
    return Power(power, float(np.sqrt(power * (1 - power) / repetitions)), float(looks[first].mean()))


def effect_for_power(
    plan: SequentialPlan, power: float = DESIGN_POWER, repetitions: int = 100_000, seed: int = 0
) -> float:
    """The true mean, in standard deviations, which `plan` accepts with probability `power` (no futility stops).

    A shift leaves the spread of a series as it is, so every simulated series has a smallest shift that some look
    accepts; the answer is the quantile of these. At 100,000 series it is good to about 0.5%. Raises ValueError on a
    power outside (0, 1).
    """
    require_probability("power", power)
    generator = np.random.default_rng(seed)
    count = np.asarray(plan.looks)
    critical = np.array([critical_value(plan.level, look - 1) for look in plan.looks])
    needed = []
    for size in _chunks(repetitions):
        mean, spread = _means_and_spreads(generator.standard_normal((size, plan.maximum)), count)
        needed.append((critical * spread / np.sqrt(count) - mean).min(1))
    return float(np.quantile(np.concatenate(needed), power))


def margin_for_power(sigma: float, runs: int = 8, power: float = DESIGN_POWER) -> float:
    """How far below the target (nats) the mean loss must lie to reach it within `runs` runs with probability `power`.

    `sigma` is the standard deviation of the loss between runs, in nats; `runs` one of the looks. The target of a task
    is set this much above the mean of its tuned baseline. Raises ValueError on sigma <= 0.
    """
    require_positive("sigma", sigma)
    return sigma * effect_for_power(sequential_plan(runs), power)


def _means_and_spreads(values: FloatArray, count: NDArray[np.int_]) -> tuple[FloatArray, FloatArray]:
    """Mean and standard deviation of the first `count` values: [..., runs] to [..., looks] each."""
    total = values.cumsum(-1)[..., count - 1]
    squares = (values * values).cumsum(-1)[..., count - 1]
    mean = total / count
    return mean, np.sqrt(np.maximum(squares - total * mean, 0.0) / (count - 1))


def _chunks(repetitions: int) -> list[int]:
    """Sizes that add up to `repetitions`, small enough for the memory of one chunk."""
    whole, rest = divmod(repetitions, _CHUNK)
    return [_CHUNK] * whole + ([rest] if rest else [])
