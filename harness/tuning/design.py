"""From a protocol to trials: pure functions of protocol, submission and the trials so far."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from harness.errors import UserError
from harness.submission import Submission, Value
from harness.tuning.protocol import Knob, Protocol, StageName, protocol_path
from harness.tuning.trials import Hparams, Job, Trial, TrialTable

CURVE_POINTS = 5
SEED_LIMIT = 2**31
SAME_TOKENS = 0.002
SeedPurpose = Literal["search", "finalists", "evidence", "confirm"]


class Design:
    """What the stages of one protocol try on one submission."""

    def __init__(self, submission: Submission, protocol: Protocol) -> None:
        self.submission = submission
        self.protocol = protocol
        self.declared = submission.hparams([])

    def seeds(self, purpose: SeedPurpose, count: int) -> list[int]:
        """The first seeds for a purpose. No seed serves two purposes: each has its own residue modulo 4."""
        residue = ("search", "finalists", "evidence", "confirm").index(purpose)
        digests = (hashlib.sha256(f"{self.protocol.seed} {purpose} {i}".encode()).digest() for i in range(count))
        return [int.from_bytes(digest[:4], "big") % (SEED_LIMIT // 4) * 4 + residue for digest in digests]

    def point(self, changes: Mapping[str, Value], budget: float = 1.0) -> dict[str, Value]:
        """The declared hyperparameters with some changed; the steps follow from the tokens that are held fixed."""
        rule = self.protocol.budget
        hparams = {**self.declared, **{name: _like(self.declared[name], value) for name, value in changes.items()}}
        if rule.steps not in changes:
            hparams[rule.steps] = self.steps_for(budget * self.full_tokens, hparams)
        for name, hparam in self.submission.manifest.hparams.items():
            problem = hparam.problem_with(hparams[name])
            if problem:
                raise UserError(
                    f"{protocol_path(self.submission.folder)}: {name} {problem}",
                    f"widen the range of [hparams.{name}], or make the step of [knobs.{name}] smaller",
                )
        return hparams

    @property
    def full_tokens(self) -> int:
        """The tokens of a trial of the full budget."""
        return self.protocol.budget.tokens or self.tokens(self.declared)

    def steps_for(self, tokens: float, hparams: Hparams) -> int:
        """The steps that read so many tokens, by the tokens a step of these hyperparameters."""
        return round(tokens / math.prod(_whole(hparams[name]) for name in self.protocol.budget.tokens_per_step))

    def tokens(self, hparams: Hparams) -> int:
        """The tokens that a trial reads."""
        rule = self.protocol.budget
        return math.prod(_whole(hparams[name]) for name in (rule.steps, *rule.tokens_per_step))

    def neighbours(self, name: str) -> list[dict[str, Value]]:
        """The points of a one-knob curve in order, the declared one among them: five, or as many as are listed."""
        knob, here = self.protocol.knobs[name], self.declared[name]
        if knob.values is not None:
            listed = knob.values if here in knob.values else [here, *knob.values]
            return [self.point({name: value}) for value in listed]
        try:
            values = _around(knob, float(here), self._limits(name, knob))
        except ValueError:
            place = f"{protocol_path(self.submission.folder)}: knobs.{name}"
            message = f"{place}: the declared value {here} has no place on the scale {knob.scale}"
            raise UserError(message, "use another scale, or list values") from None
        return [self.point({name: value}) for value in values]

    def check(self, name: str) -> list[dict[str, Value]]:
        """The points of a check: one step down, declared, one step up; or as many as are listed."""
        points = self.neighbours(name)
        if self.protocol.knobs[name].values is not None:
            return points
        middle = points.index(self.point({}))
        return points[max(0, middle - 1) : middle + 2]

    def grid(self, first: str, second: str) -> list[list[dict[str, Value]]]:
        """The 3 x 3 points of a pair: rows by the first knob, columns by the second."""
        axes = [[point[name] for point in self.check(name)] for name in (first, second)]
        return [[self.point({first: a, second: b}) for b in axes[1]] for a in axes[0]]

    def _limits(self, name: str, knob: Knob) -> tuple[float, float]:
        hparam = self.submission.manifest.hparams[name]
        if not knob.bounded or hparam.low is None or hparam.high is None:
            return -math.inf, math.inf
        return hparam.low, hparam.high

    # The jobs of the stages that are known beforehand

    def jobs(self, stage: StageName, table: TrialTable) -> list[Job]:
        """All trials of a stage after the search, in order, also those already run."""
        stages = self.protocol.stages
        points: list[dict[str, Value]] = []
        seeds: list[int] = []
        if stage == "finalists" and stages.finalists:
            points = [self.point({}), *self.best_of_search(table, stages.finalists.points)]
            seeds = self.seeds("finalists", stages.finalists.seeds)
        elif stage == "curves" and stages.curves:
            points = list(itertools.chain(*(self.neighbours(name) for name in stages.curves.knobs)))
            seeds = self.seeds("evidence", stages.curves.seeds)
        elif stage == "pairs" and stages.pairs:
            points = list(itertools.chain(*(row for pair in stages.pairs.pairs for row in self.grid(*pair))))
            seeds = self.seeds("evidence", stages.pairs.seeds)
        elif stage == "checks" and stages.checks:
            points = list(itertools.chain(*(self.check(name) for name in stages.checks.knobs)))
            seeds = self.seeds("evidence", stages.checks.seeds)
        elif stage == "confirm" and stages.confirm:
            points, seeds = [self.point({})], self.confirmation_seeds(table, stages.confirm.seeds)
        jobs = [
            Job(stage, number, seed, point) for number, (seed, point) in enumerate(itertools.product(seeds, points))
        ]
        return list({job.key: job for job in reversed(jobs)}.values())[::-1]

    def best_of_search(self, table: TrialTable, count: int) -> list[dict[str, Value]]:
        """The hyperparameters of the best trials of the search, best first."""
        return [trial.job.hparams for trial in best(table.of_stage("search"), count)]

    def confirmation_seeds(self, table: TrialTable, count: int) -> list[int]:
        """Seeds on which nothing but the declared point was ever tried: after a change of point they are fresh ones."""
        here = self.point({})
        used = {trial.job.seed for trial in table.trials if trial.job.hparams != here}
        fresh = (seed for seed in self.seeds("confirm", count + len(used)) if seed not in used)
        return list(itertools.islice(fresh, count))


def same_budget(one: int, other: int) -> bool:
    """Whether two counts of tokens are one budget: steps are whole, so that they may differ by a rounding."""
    return math.isclose(one, other, rel_tol=SAME_TOKENS)


def best(trials: Sequence[Trial], count: int) -> list[Trial]:
    """The trials of lowest loss, best first; failed ones are none of them."""
    judged = [trial for trial in trials if trial.val_loss is not None]
    return sorted(judged, key=lambda trial: trial.val_loss or 0.0)[:count]


def losses_at(table: TrialTable, hparams: Hparams, seeds: Sequence[int]) -> list[float | None]:
    """The losses at a point for those of the seeds that were run; None for a failed run."""
    found: Iterator[Trial | None] = (table.find(hparams, seed) for seed in seeds)
    return [trial.val_loss for trial in found if trial is not None]


def _around(knob: Knob, here: float, limits: tuple[float, float]) -> list[float]:
    """The declared value and its nearest neighbours on the scale within the limits, ascending. Raises ValueError."""
    middle = knob.place(here)
    offsets = sorted(range(-CURVE_POINTS + 1, CURVE_POINTS), key=abs)
    values = [here if offset == 0 else knob.value_at(middle + offset) for offset in offsets]
    inside = [value for value in values if limits[0] <= value <= limits[1]]
    return sorted(inside[:CURVE_POINTS])


def _like(default: Value, value: Value) -> Value:
    """A value in the type of the declared default."""
    if isinstance(default, int) and isinstance(value, float):
        return round(value)
    return type(default)(value)


def _whole(value: Value) -> int:
    assert isinstance(value, int)  # the protocol was checked
    return value
