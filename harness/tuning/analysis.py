"""What trials show: best against number of trials, curves with their local parabola, grids, confirmation.

Pure functions of a design and the trials so far. Losses are nats per token. A point's loss is the mean over its seeds;
the noise of a run is pooled over the points that were run on several seeds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.submission import Value
from harness.tuning.design import Design, best, losses_at
from harness.tuning.protocol import Knob
from harness.tuning.trials import Hparams, Trial, TrialTable

BOOTSTRAP_SAMPLES = 2000
BAND = (0.05, 0.95)
ERRORS = 2.0  # standard errors by which a point must be better before it counts as better

EDGE = 0.05  # of a box: nearer than this share of its span to an end counts as at the end

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Point:
    """A point on several seeds. `mean` is None unless every run that was made finished, and at least one was."""

    hparams: dict[str, Value]
    losses: tuple[float | None, ...]
    seeds: int

    @property
    def complete(self) -> bool:
        return len(self.losses) == self.seeds

    @property
    def mean(self) -> float | None:
        judged = [loss for loss in self.losses if loss is not None]
        return float(np.mean(judged)) if judged and len(judged) == len(self.losses) else None

    @property
    def failed(self) -> bool:
        return None in self.losses


@dataclass(frozen=True)
class Finalist:
    """A point that all finalist seeds were run on."""

    hparams: dict[str, Value]
    mean: float
    losses: tuple[float, ...]


@dataclass(frozen=True)
class Parabola:
    """L* + kappa / 2 (x - x*)^2 through three neighbours, x in steps of the knob from the declared value.

    left: loss at the declared value less L*, what moving to `value` would gain if the parabola held.
    """

    curvature: float
    offset: float
    value: float
    left: float


@dataclass(frozen=True)
class Curve:
    """A one-knob curve. `interior`: the best point is the declared one and has points on both sides.

    `bracketed`: on both sides some point failed, or is worse than the declared one by more than noise. `at_bound`: one
    side is missing because the declared range ends there for good reason. `better`: a point that is better than the
    declared one by more than noise.
    """

    name: str
    values: list[Value]
    points: list[Point]
    declared: int
    best: int | None
    interior: bool
    bracketed: bool
    at_bound: bool
    better: Value | None
    parabola: Parabola | None


@dataclass(frozen=True)
class Confirmation:
    """The declared point on its confirmation seeds; spread is None with one run."""

    seeds: list[int]
    losses: list[float]
    failed: int
    mean: float
    spread: float | None


@dataclass(frozen=True)
class Grid:
    """A 3 x 3 check: points by row and column. `better`: row and column of a point that beats the declared one."""

    first: str
    second: str
    rows: list[Value]
    columns: list[Value]
    points: list[list[Point]]
    better: tuple[int, int] | None


@dataclass(frozen=True)
class BestOf:
    """Expected lowest loss of k trials drawn from those made, k = 1 .. n, and its bootstrap band: float64 [n] each."""

    expected: FloatArray
    low: FloatArray
    high: FloatArray


def expected_best(losses: Sequence[float | None], generator_seed: int = 0) -> BestOf:
    """E[lowest of k] under the empirical distribution of n trials (Dodge et al., "Show Your Work", EMNLP 2019).

    A failed trial counts as the worst loss there is. The band is the percentile bootstrap over trials. Raises
    ValueError where no trial finished.
    """
    values = judged_or_worst(losses)
    generator = np.random.default_rng(generator_seed)
    resampled = generator.choice(values, (BOOTSTRAP_SAMPLES, len(values)))
    low, high = np.quantile(_expected_best(resampled), BAND, axis=0)
    return BestOf(_expected_best(values[None])[0], low, high)


def judged_or_worst(losses: Sequence[float | None]) -> FloatArray:
    """The losses, a failed trial as the worst there is. Raises ValueError where no trial finished."""
    judged = [loss for loss in losses if loss is not None]
    if not judged:
        raise ValueError("losses: no trial finished")
    return np.array([max(judged) if loss is None else loss for loss in losses])


def chances_of_lowest(values: int, draws: Sequence[int]) -> FloatArray:
    """The probability that the lowest of some draws, with replacement, is the i-th smallest value.

    float64 [numbers of draws, values]. P(lowest of k <= the i-th smallest of n) = 1 - (1 - i/n)^k.
    """
    rank = np.arange(values + 1) / values
    return np.diff(1 - (1 - rank) ** np.array(draws)[:, None], axis=1)


def _expected_best(values: FloatArray) -> FloatArray:
    """float64 [samples, n] to [samples, n]: column k - 1 is the expected lowest of k."""
    count = values.shape[1]
    return np.sort(values, axis=1) @ chances_of_lowest(count, range(1, count + 1)).T


def run_noise(trials: Sequence[Trial]) -> float | None:
    """Standard deviation of a run's loss beyond what its seed does to all points alike; None where nothing tells.

    Points are compared on the same seeds, so what is common to a seed drops out: it is fitted, beside the points' own
    means, and taken away. Of the points run on several seeds the better half counts: the worse one holds the far ends
    of curves, some near divergence, whose larger spread would hide better points.
    """
    groups: dict[tuple, list[Trial]] = {}
    for trial in trials:
        if trial.val_loss is not None:
            groups.setdefault(tuple(sorted(trial.job.hparams.items())), []).append(trial)
    several = sorted((point for point in groups.values() if len(point) > 1), key=_mean_loss)
    points = several[: math.ceil(len(several) / 2)]
    kept = [trial for point in points for trial in point]
    if not kept:
        return None
    of_point = np.repeat(np.eye(len(points)), [len(point) for point in points], axis=0)
    seeds = np.array([trial.job.seed for trial in kept])
    effects = np.hstack([of_point, seeds[:, None] == np.unique(seeds)])
    losses = np.array([trial.val_loss for trial in kept])
    fitted, _, rank, _ = np.linalg.lstsq(effects, losses, rcond=None)
    free = len(kept) - int(rank)
    return math.sqrt(float(((losses - effects @ fitted) ** 2).sum()) / free) if free else None


def _mean_loss(trials: Sequence[Trial]) -> float:
    return float(np.mean([trial.val_loss for trial in trials if trial.val_loss is not None]))


def point_at(table: TrialTable, hparams: Hparams, seeds: Sequence[int]) -> Point:
    """A point with the losses of the seeds that were run."""
    return Point(dict(hparams), tuple(losses_at(table, hparams, seeds)), len(seeds))


def curve(design: Design, table: TrialTable, name: str, seeds: Sequence[int], noise: float) -> Curve:
    """The one-knob curve about the declared point; `noise` is the standard deviation of a run."""
    return _curve(design, table, name, design.neighbours(name), seeds, noise)


def check(design: Design, table: TrialTable, name: str, seeds: Sequence[int], noise: float) -> Curve:
    """The check of a knob that was not searched: one step down and up, or every listed value."""
    return _curve(design, table, name, design.check(name), seeds, noise)


def _curve(
    design: Design, table: TrialTable, name: str, hparams: list[dict[str, Value]], seeds: Sequence[int], noise: float
) -> Curve:
    points = [point_at(table, point, seeds) for point in hparams]
    values = [point[name] for point in hparams]
    here = hparams.index(design.point({}))
    means = [point.mean for point in points]
    ranked = sorted((mean, index) for index, mean in enumerate(means) if mean is not None)
    best = ranked[0][1] if ranked and means[here] is not None else None
    knob = design.protocol.knobs[name]
    at_bound = knob.values is None and here in (0, len(points) - 1)
    whole = all(point.complete for point in points)
    difference = smallest_difference(noise, len(seeds))
    return Curve(
        name=name, values=values, points=points, declared=here, best=best,
        interior=whole and best == here and 0 < here < len(points) - 1,
        bracketed=all(_worse(side, means[here], difference) for side in (points[:here], points[here + 1 :])),
        at_bound=at_bound, better=_better(points, values, here, best, difference),
        parabola=_parabola(knob, values, means, here),
    )  # fmt: skip


def grid(design: Design, table: TrialTable, first: str, second: str, seeds: Sequence[int], noise: float) -> Grid:
    """The 3 x 3 points of two knobs about the declared one."""
    points = [[point_at(table, hparams, seeds) for hparams in row] for row in design.grid(first, second)]
    here = point_at(table, design.point({}), seeds).mean
    ranked = [(p.mean, i, j) for i, row in enumerate(points) for j, p in enumerate(row) if p.mean is not None]
    better = None
    if here is not None and here - min(ranked)[0] > smallest_difference(noise, len(seeds)):
        better = min(ranked)[1:]
    rows, columns = [row[0].hparams[first] for row in points], [point.hparams[second] for point in points[0]]
    return Grid(first, second, rows, columns, points, better)


def at_edges(design: Design, table: TrialTable) -> list[str]:
    """The searched knobs by which the best point of the search lies at an edge of its box, where that is no bound."""
    stage, found = design.protocol.stages.search, best(table.of_stage("search"), 1)
    knobs = {name: design.protocol.knobs[name] for name in stage.knobs} if stage else {}
    boxes = {name: knob for name, knob in knobs.items() if knob.values is None and not knob.bounded}
    shares = {name: knob.share(float(t.job.hparams[name])) for t in found for name, knob in boxes.items()}
    return [name for name, share in shares.items() if not EDGE < share < 1 - EDGE]


def smallest_difference(noise: float, seeds: int) -> float:
    """How far apart two means over `seeds` runs each must lie to count as different: two standard errors."""
    return ERRORS * noise * math.sqrt(2 / seeds)


def _worse(side: list[Point], here: float | None, difference: float) -> bool:
    """Whether one of the points is clearly worse than the declared one, whose mean is `here`."""
    if here is None:
        return False
    return any(point.failed or (point.mean is not None and point.mean - here > difference) for point in side)


def _better(points: list[Point], values: list[Value], here: int, best: int | None, difference: float) -> Value | None:
    """The best value, where it beats the declared one by more than noise."""
    if best is None or best == here:
        return None
    ahead = (points[here].mean or 0.0) - (points[best].mean or 0.0)
    return values[best] if ahead > difference else None


def _parabola(knob: Knob, values: list[Value], means: list[float | None], here: int) -> Parabola | None:
    """Through the declared point and its two neighbours; None where one lacks, they bend the wrong way, or its lowest
    point lies beyond both, where it would be an extrapolation."""
    if knob.step is None or not 0 < here < len(values) - 1:
        return None
    before, middle, after = means[here - 1 : here + 2]
    if before is None or middle is None or after is None:
        return None
    bend = before - 2 * middle + after
    if bend <= 0:
        return None
    offset = (before - after) / (2 * bend)
    if abs(offset) > 1:
        return None
    steps = -1 if knob.scale == "complement" else 1  # values rise while 1 - x falls
    return Parabola(
        curvature=bend, offset=offset, value=knob.value_at(knob.place(float(values[here])) + steps * offset),
        left=(before - after) ** 2 / (8 * bend),
    )  # fmt: skip


def confirmation(design: Design, table: TrialTable) -> Confirmation | None:
    """The declared point on its confirmation seeds; None before any finished."""
    stage = design.protocol.stages.confirm
    if stage is None:
        return None
    seeds = design.confirmation_seeds(table, stage.seeds)
    ran = [(seed, trial) for seed in seeds if (trial := table.find(design.point({}), seed)) is not None]
    losses = [trial.val_loss for _, trial in ran if trial.val_loss is not None]
    if not losses:
        return None
    spread = float(np.std(losses, ddof=1)) if len(losses) > 1 else None
    return Confirmation([seed for seed, _ in ran], losses, len(ran) - len(losses), float(np.mean(losses)), spread)


def finalists(design: Design, table: TrialTable) -> list[Finalist]:
    """Points that all finalist seeds were run on, of lowest mean first; one that failed on a seed is none."""
    stage = design.protocol.stages.finalists
    if stage is None:
        return []
    seeds = design.seeds("finalists", stage.seeds)
    found: dict[tuple, Finalist] = {}
    for trial in table.trials:
        losses = losses_at(table, trial.job.hparams, seeds)
        judged = tuple(loss for loss in losses if loss is not None)
        if trial.job.seed in seeds and len(judged) == len(seeds):
            key = tuple(sorted(trial.job.hparams.items()))
            found[key] = Finalist(trial.job.hparams, float(np.mean(judged)), judged)
    return sorted(found.values(), key=lambda finalist: finalist.mean)


def best_so_far(trials: Sequence[Trial]) -> list[float]:
    """The lowest loss after each trial in the order of their numbers; infinite until one finished."""
    losses = [math.inf if trial.val_loss is None else trial.val_loss for trial in trials]
    return list(np.minimum.accumulate(losses)) if losses else []
