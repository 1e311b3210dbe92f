"""Calibration: what the baseline's runs say about noise and budget, and what that means for the next race."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from secrets import randbelow

import numpy as np

from harness.bundle import write_atomically
from harness.campaign import SEED_LIMIT
from harness.errors import UserError
from harness.evidence.course import JUDGED, Course, RunLine
from harness.evidence.folder import CALIBRATION, Campaign
from harness.evidence.json_file import read_object
from harness.evidence.plans import Calibration, CalibrationCampaign, CampaignPlan, ScheduledRun
from harness.evidence.race import timed_run
from harness.evidence.series import arm_of, conditions
from harness.evidence.sides import Side, Where
from harness.machine import Machine
from harness.paths import BASELINES
from harness.references import REFERENCE_FILE, load_references
from harness.review import BAND_FILE, read_band
from harness.statistics import (
    BudgetRuns,
    SequentialPlan,
    effect_for_power,
    estimate_slope,
    pairs_to_resolve,
    sequential_plan,
)
from harness.submission import load_submission

MULTIPLES = (0.7, 1.0, 1.4)
BLOCKS, QUICK_BLOCKS = 6, 2  # runs of every multiple
BUDGET = "steps"  # the hyperparameter by which a baseline's budget is set
MAX_CALIBRATION_BYTES = 64 * 1024
WANTED_EFFECT = 0.01
SIMULATED_SERIES = 20_000  # gives the effect that a race resolves to 1% of itself
# Budgets within this factor of the declared one: the loss is straight in log budget only nearby.
PROVISIONAL_FACTOR = 2.0
PROVISIONAL_CLASS = "cpu-1thread"  # where the files of the baseline's tuning were measured


def plan_calibration(side: Side, hardware: str, blocks: int, machine: Machine, now: datetime) -> CalibrationCampaign:
    """Runs of the baseline at 0.7, 1 and 1.4 of its budget, each with its own full schedule; the order alternates.

    Raises UserError where the submission declares no hyperparameter `steps`.
    """
    steps = side.submission.hparams(list(side.settings)).get(BUDGET)
    if not isinstance(steps, int) or steps < 1:
        what = f"{side.submission.folder}/submission.toml: no [hparams.{BUDGET}] with a whole number above 0"
        raise UserError(what, "a calibration changes the budget of a submission by its steps: declare it")
    arms = {}
    for multiple in MULTIPLES:
        setting = f"{BUDGET}={round(multiple * steps)}"
        arms[f"{multiple:g}x"] = arm_of(Side(side.word, side.submission, side.dropped, (*side.settings, setting)))
    return CalibrationCampaign(
        **conditions(side.submission.task, hardware, machine, now, "calibration"),
        arms=arms,
        schedule=[
            ScheduledRun(block=block, arm=arm, seed=randbelow(SEED_LIMIT))
            for block in range(blocks)
            for arm in (list(arms) if block % 2 == 0 else reversed(list(arms)))
        ],
        multiples=dict(zip(arms, MULTIPLES, strict=True)),
    )


def calibrate(campaign: Campaign[CalibrationCampaign], course: Course) -> Calibration:
    """What the runs of a calibration say. Raises UserError where they say too little."""
    plan = campaign.plan
    lines = sorted((line for block in course.blocks for line in block.runs.values()), key=lambda line: line.number)
    judged = [line for line in lines if line.status == JUDGED]
    groups = [(multiple, [line for line in judged if line.arm == arm]) for arm, multiple in plan.multiples.items()]
    if any(not group for _, group in groups):
        failed = sorted({line.status for line in lines if line.status != JUDGED})
        what = f"{campaign.folder}: a budget has no judged run ({', '.join(failed)})"
        raise UserError(what, "see the runs' bundles; a baseline must run without failing")
    whole = [line for multiple, group in groups if multiple == 1.0 for line in group]
    return _calibration(
        budgets=[BudgetRuns(multiple, tuple(line.val_loss or 0.0 for line in group)) for multiple, group in groups],
        log_seconds=_residual_logs(judged),
        groups=len(groups),
        where=str(campaign.folder),
        facts={
            "task": plan.task, "hardware_class": plan.hardware_class, "provisional": False, "source": plan.id,
            "measured": plan.started[:10], "submission": next(iter(plan.arms.values())).digest,
            "core_digest": plan.core_digest, "task_digest": plan.task_digest, "data_digest": plan.data_digest,
            "machine": plan.machine, "machine_digest": plan.machine_digest,
            "run_seconds": float(np.median([line.seconds or 0.0 for line in whole])),
            "total_seconds": float(np.median([line.total_seconds or line.seconds or 0.0 for line in whole])),
        },
    )  # fmt: skip


def provisional_calibration(where: Where) -> Calibration | None:
    """A stand-in until `speedrun calibrate` has run, from the files of the baseline's tuning; None without them.

    Loss and clock are those of the reference runs; s is from them and the single runs at half and double the budget.
    """
    folder = BASELINES / "adamw" / where.task
    references = load_references(folder)
    if where.hardware != PROVISIONAL_CLASS or len(references) < 2:
        return None
    band = read_band(where.task, references[0].submission_digest)  # s of another source would be another s
    tokens = references[0].tokens
    losses: dict[float, list[float]] = {1.0: [reference.val_loss for reference in references]}
    for count, loss in band:
        if 1 / PROVISIONAL_FACTOR <= count / tokens <= PROVISIONAL_FACTOR:
            losses.setdefault(count / tokens, []).append(loss)
    if len(losses) < 2:
        return None
    logs = np.log([reference.seconds for reference in references])
    seconds = float(np.median([reference.seconds for reference in references]))
    return _calibration(
        budgets=[BudgetRuns(multiple, tuple(values)) for multiple, values in sorted(losses.items())],
        log_seconds=list(logs - logs.mean()),
        groups=1,
        where=str(folder / REFERENCE_FILE),
        facts={
            "task": where.task, "hardware_class": where.hardware, "provisional": True,
            "source": f"{REFERENCE_FILE} and {BAND_FILE} of baselines/adamw/{where.task}", "measured": "",
            "submission": references[0].submission_digest, "core_digest": None, "task_digest": None,
            "data_digest": None, "machine": references[0].machine,
            "machine_digest": references[0].machine_digest, "run_seconds": seconds, "total_seconds": seconds,
        },
    )  # fmt: skip


def calibration_path(where: Where) -> Path:
    """Where the calibration of a task and class is kept."""
    return where.records / where.task / where.hardware / CALIBRATION


def baseline_digest(task: str) -> str | None:
    """The digest of the present baseline of a task; None where it has none. Raises UserError."""
    folder = BASELINES / "adamw" / task
    return load_submission(folder).digest if (folder / "submission.toml").is_file() else None


def calibration_for(where: Where) -> Calibration:
    """The calibration of a task and class, or its provisional stand-in, which must be of the present baseline.

    Raises UserError where there is neither.
    """
    path = calibration_path(where)
    if not path.exists():
        found = provisional_calibration(where)
        if found is None:
            what = f"{path}: no calibration of {where.task} on {where.hardware}"
            raise UserError(what, "measure it once: speedrun calibrate")
        if found.submission != baseline_digest(where.task):
            what = f"{path}: no calibration, and {found.source} are of another source than the present baseline"
            raise UserError(what, "measure it: speedrun calibrate; or renew them: python benchmarks/reference_runs.py")
        return found
    remedy = "measure it again: speedrun calibrate"
    found = read_object(path, Calibration, MAX_CALIBRATION_BYTES, remedy, follow_link=True)
    if (found.task, found.hardware_class) != (where.task, where.hardware):
        what = f"{path}: task, hardware_class: it is the calibration of {found.task} on {found.hardware_class}"
        raise UserError(what, "put the file where it belongs")
    return found


def changed_since(calibration: Calibration, plan: CampaignPlan) -> list[str]:
    """What is another now than when the calibration of a plan was measured; what it does not say is left out."""
    then_and_now = {
        "machine": (calibration.machine_digest, plan.machine_digest),
        "baseline": (calibration.submission, baseline_digest(plan.task)),
        "core": (calibration.core_digest, plan.core_digest),
        "task": (calibration.task_digest, plan.task_digest),
        "data": (calibration.data_digest, plan.data_digest),
    }
    return [name for name, (then, now) in then_and_now.items() if None not in (then, now) and then != now]


def write_calibration(where: Where, calibration: Calibration) -> Path:
    """Keeps it beside the records of its task and class, for every race to come. Raises UserError."""
    path = calibration_path(where)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path.parent}: {error.strerror}", "choose a folder you can write to: --records-dir") from None
    write_atomically(path, json.dumps(calibration.model_dump(mode="json"), indent=2, allow_nan=False) + "\n")
    return path


@dataclass(frozen=True)
class Resolution:
    """What a race can find: pairs to resolve an effect with 90% chance, and the effect that its maximum resolves.

    For losses that have nothing in common; `pairs_at_same_loss` where a pair's two losses are equal.
    """

    effect: float
    pairs: int
    pairs_at_same_loss: int
    seconds: float
    maximum: int
    least_effect: float

    @property
    def too_noisy(self) -> bool:
        return self.pairs > self.maximum


def resolution(
    calibration: Calibration, sequence: SequentialPlan | None = None, effect: float = WANTED_EFFECT
) -> Resolution:
    """How many pairs `effect` takes by this calibration, and how long they run (seconds, both arms as the baseline)."""
    sequence = sequence or sequential_plan()
    pairs, same = (
        pairs_to_resolve(effect, spread, sequence.level) if spread > 0 else sequence.looks[0]
        for spread in (calibration.log_ratio_spread, calibration.time_ratio_spread)
    )
    least = math.expm1(calibration.log_ratio_spread * effect_for_power(sequence, repetitions=SIMULATED_SERIES))
    return Resolution(effect, pairs, same, 2 * pairs * calibration.total_seconds, sequence.maximum, least)


def _calibration(
    budgets: Sequence[BudgetRuns], log_seconds: Sequence[float], groups: int, where: str, facts: dict[str, object]
) -> Calibration:
    try:
        fit = estimate_slope(budgets)
        fit.slope.limits(sequential_plan().level)
    except ValueError as error:
        raise UserError(f"{where}: {error}", "calibrate with more runs: speedrun calibrate, without --quick") from None
    squares = sum(float(((np.array(runs.losses) - np.mean(runs.losses)) ** 2).sum()) for runs in budgets)
    return Calibration.model_validate(
        {
            **facts,
            "runs": sum(len(runs.losses) for runs in budgets),
            "loss_spread": math.sqrt(squares / fit.slope.degrees_of_freedom),
            "clock_variation": _neighbour_spread(log_seconds, groups),
            "slope": fit.slope,
            "curvature_p": fit.curvature_p,
        }
    )


def _residual_logs(lines: Sequence[RunLine]) -> list[float]:
    """Log times of runs in the order of time, less the mean of their arm."""
    logs: dict[str, list[float]] = {}
    for line in lines:
        logs.setdefault(line.arm, []).append(_log_time(line))
    return [_log_time(line) - float(np.mean(logs[line.arm])) for line in lines]


def _log_time(line: RunLine) -> float:
    timed = timed_run(line)
    return math.log(timed.time) if timed else 0.0


def _neighbour_spread(residuals: Sequence[float], groups: int) -> float:
    """Standard deviation from the differences of neighbours, which a slow drift hardly touches.

    sqrt(mean squared difference / 2): von Neumann, Annals of Mathematical Statistics 12, 1941. Residuals about the
    means of `groups` groups are too small by (n - groups) / n in the square.
    """
    count = len(residuals)
    squares = float(np.mean(np.diff(residuals) ** 2)) / 2
    return math.sqrt(squares * count / (count - groups))
