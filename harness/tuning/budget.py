"""The smallest budget that reaches a target with a margin: few runs, each budget its own full schedule.

Loss is nearly straight in the logarithm of the budget over the distances that matter here. So: two budgets give a
line, the line gives the budget at which the mean loss is target - margin, runs there improve the line; when the line
points to a budget that was run, that one gets the rest of the runs.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from harness.core.data.prepare import require_prepared
from harness.errors import UserError
from harness.evidence.calibration import calibration_for, calibration_path, provisional_calibration
from harness.evidence.sides import Where
from harness.statistics import BudgetRuns, Slope, effect_for_power, estimate_slope, sequential_plan
from harness.statistics.decision import SPREAD_FLOOR
from harness.submission import Submission
from harness.tuning.design import SEED_LIMIT
from harness.tuning.dispatch import Dispatcher, Place
from harness.tuning.protocol import FOLDER
from harness.tuning.trials import BUDGET, Job, Trial, TrialTable
from harness.tuning.tune import working_folder

BUDGET_FILE = "budget.csv"
FIRST_RUNS = 2  # at each budget on the way
LAST_RUNS = 6  # at the budget that is found
NEAR = math.log(1.03)  # budgets closer than this are taken for the same
FARTHEST = 2.0  # how far beyond the budgets that were run the line is followed
FITTED = 2.0  # the line is fitted to budgets within this factor of the nearest one: over longer ways loss bends
MOST_BUDGETS = 8
REACH_RUNS, POWER = 8, 0.9  # the margin by default: reach-target within so many runs with so much power

Losses = Mapping[int, Sequence[float]]


@dataclass(frozen=True)
class Ask:
    """More runs are wanted: so many in all at a budget."""

    budget: int
    runs: int


@dataclass(frozen=True)
class Found:
    """The line at the budget it points to.

    mean: loss there, by the line. relative_error: standard error of the budget as a share of it, from the spread of
    the runs and the error of the slope. spread: pooled standard deviation of a run's loss.
    """

    budget: int
    mean: float
    margin: float
    slope: Slope
    relative_error: float
    spread: float
    runs: int


@dataclass(frozen=True)
class Goal:
    """Nats: the target, and how far below it the mean loss shall be. Without `margin` it is chosen for 90% power.

    For that the spread of a run is taken for no less than `least_spread`.
    """

    target: float
    margin: float | None = None
    least_spread: float = 0.0

    def margin_at(self, spread: float) -> float:
        """The margin where a run's loss has this standard deviation."""
        return _power_effect() * max(spread, self.least_spread) if self.margin is None else self.margin


def least_spread(where: Where) -> float:
    """What `submit` takes a run's standard deviation for at least; 0 where there is no calibration to know it from."""
    there = calibration_path(where).exists()
    calibration = calibration_for(where) if there else provisional_calibration(where)
    return SPREAD_FLOOR * calibration.loss_spread if calibration else 0.0


def decide(losses: Losses, declared: int, goal: Goal) -> Ask | Found:
    """What to do after the runs so far; losses (nats) by budget, those of every budget on the same seeds in order.

    Raises UserError where the budgets do not lead to the target.
    """
    for budget in losses or [declared]:
        if len(losses.get(budget, ())) < FIRST_RUNS:
            return Ask(budget, FIRST_RUNS)
    if len(losses) == 1:
        only, runs = next(iter(losses.items()))
        return Ask(round(only * (1.4 if np.mean(runs) > goal.target else 0.7)), FIRST_RUNS)
    found = _crossing(losses, goal)
    nearest = min(losses, key=lambda budget: abs(math.log(budget / found.budget)))
    if abs(math.log(nearest / found.budget)) > NEAR:
        if len(losses) >= MOST_BUDGETS:
            tried = ", ".join(f"{budget:,}" for budget in sorted(losses))
            raise UserError(f"no budget found after {len(losses)} ({tried})", "set the target or --margin nearer")
        return Ask(found.budget, FIRST_RUNS)
    return found if len(losses[nearest]) >= LAST_RUNS else Ask(nearest, LAST_RUNS)


def _crossing(losses: Losses, goal: Goal) -> Found:
    """Where the line through the nearest budgets crosses target - margin, no farther out than FARTHEST."""
    spread = _pooled_spread(losses)
    margin = goal.margin_at(spread)
    wanted = goal.target - margin
    nearest, second, *_ = sorted(losses, key=lambda budget: abs(float(np.mean(losses[budget])) - wanted))
    near = [budget for budget in losses if budget == second or 1 / FITTED < budget / nearest < FITTED]
    try:
        slope = estimate_slope([BudgetRuns(budget, tuple(losses[budget])) for budget in near]).slope
    except ValueError as problem:
        remedy = "start from a declared budget nearer to the target"
        raise UserError(f"budgets {sorted(near)}: {problem}", remedy) from None
    counts = np.array([len(losses[budget]) for budget in near])
    middle = float(np.average(np.log(near), weights=counts))
    mean = float(np.average([np.mean(losses[budget]) for budget in near], weights=counts))
    distance = (mean - wanted) / slope.nats_per_efold
    log_budget = float(np.clip(middle + distance, *np.log([min(losses) / FARTHEST, max(losses) * FARTHEST])))
    seeds = counts.max()  # a seed that is lucky at one budget may be so at all: its runs count once
    error_of_mean = spread / math.sqrt(seeds) / slope.nats_per_efold
    error = math.hypot(error_of_mean, distance * slope.standard_error / slope.nats_per_efold)
    budget = math.ceil(math.exp(log_budget))
    return Found(budget, wanted, margin, slope, error, spread, sum(map(len, losses.values())))


def _pooled_spread(losses: Losses) -> float:
    """Standard deviation of a run's loss, pooled over the budgets."""
    centred = np.concatenate([np.array(runs) - np.mean(runs) for runs in losses.values()])
    return float(np.sqrt((centred**2).sum() / (len(centred) - len(losses))))


def _power_effect() -> float:
    return effect_for_power(sequential_plan(REACH_RUNS), POWER)


class BudgetSearch:
    """Looks for the budget of one submission; its runs are kept in budget.csv, so the search can be stopped."""

    def __init__(
        self, submission: Submission, name: str, margin: float | None = None, least_spread: float = 0.0
    ) -> None:
        self.submission = submission
        self.name = name
        self.goal = Goal(submission.task.target.val_loss, margin, least_spread)
        self.hparams = submission.hparams([])
        if not isinstance(self.hparams.get(name), int):
            raise UserError(
                f"{submission.folder}/submission.toml: no [hparams.{name}] in whole numbers", "use --budget"
            )
        self.table = TrialTable(submission.folder / FOLDER / BUDGET_FILE, submission)

    def run(self, place: Place, tell: Callable[[Trial], None]) -> Found:
        """Runs what is needed. Raises UserError for a failed run and for a target out of reach."""
        require_prepared(self.submission.task, place.data_dir)
        with working_folder(place) as (_, place), Dispatcher(place) as dispatcher:
            while True:
                step = decide(self.losses(), self._declared, self.goal)
                if isinstance(step, Found):
                    return step
                dispatcher.run(iter(self._jobs(step)), lambda trial: self._keep(trial, tell))

    def losses(self) -> dict[int, list[float]]:
        """The losses so far by budget, at the other hyperparameters as declared. Raises UserError for a failed run."""
        found: dict[int, list[float]] = {}
        for trial in self.table.trials:
            budget = trial.job.hparams[self.name]
            assert isinstance(budget, int)
            if trial.job.hparams != {**self.hparams, self.name: budget}:
                continue  # of another point
            if trial.val_loss is None:
                message = f"{self.table.path}: {self.name}={budget}, seed {trial.job.seed} failed: {trial.status}"
                raise UserError(message, f"see run {trial.run_id}; remove the line to run it again")
            found.setdefault(budget, []).append(trial.val_loss)
        return found

    @property
    def _declared(self) -> int:
        declared = self.hparams[self.name]
        assert isinstance(declared, int)
        return declared

    def _jobs(self, ask: Ask) -> list[Job]:
        hparams = {**self.hparams, self.name: ask.budget}
        problem = self.submission.manifest.hparams[self.name].problem_with(ask.budget)
        if problem:
            place = f"{self.submission.folder}/submission.toml: hparams.{self.name}"
            raise UserError(f"{place}: {problem}", "widen the range, or set the target within reach")
        jobs = [Job(BUDGET, 0, _seed(index), hparams) for index in range(ask.runs)]
        missing = [job for job in jobs if self.table.find(job.hparams, job.seed) is None]
        first = len(self.table.trials)
        return [replace(job, number=first + index) for index, job in enumerate(missing)]

    def _keep(self, trial: Trial, tell: Callable[[Trial], None]) -> None:
        self.table.add(trial)
        tell(trial)


def _seed(index: int) -> int:
    return int.from_bytes(hashlib.sha256(f"budget {index}".encode()).digest()[:4], "big") % SEED_LIMIT
