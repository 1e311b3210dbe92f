"""Retuning what is left of a record without a method: a protocol that follows from its declared ranges, and the budget.

The protocol is written before its first trial, as every other: a joint search about the declared point, then its two
best points and the declared one side by side on seeds of their own, since the best of many trials was lucky too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.bundle import write_atomically
from harness.errors import UserError
from harness.submission import Hparam, Submission, load_submission
from harness.tuning.adopt import adopt, with_defaults
from harness.tuning.budget import BudgetSearch
from harness.tuning.dispatch import Place
from harness.tuning.protocol import protocol_path
from harness.tuning.trials import Trial
from harness.tuning.tune import Tuning

BUDGET = "steps"
POINTS, SEEDS = 2, 2  # of the finalists
FINALISTS = (POINTS + 1) * SEEDS
FEWEST = FINALISTS + 2
FACTOR = 4.0  # on a log scale the search goes this far from the declared value
SHARE = 0.25  # on a linear one this share of the declared range


@dataclass(frozen=True)
class Plan:
    """What is to be retuned, within how many trials; `seconds`: what a run takes, for the estimate.

    `names`: the hyperparameters, which must lie on a scale. Where there are none it is those of `fresh` that do, which
    trained nothing before; and where there are none of these either, all that do but those at the low end of their
    range, where most are off.
    """

    trials: int
    seconds: float
    names: Sequence[str] = ()
    fresh: Sequence[str] = ()


@dataclass(frozen=True)
class Retuned:
    """The budget that was found, and the trials and runs that it took."""

    budget: int
    trials: int
    budget_runs: int


def retune(
    folder: Path, place: Place, plan: Plan, tell: Callable[[Trial], None], least_spread: float = 0.0
) -> Retuned:  # fmt: skip
    """Retunes a submission after a plan, adopts the best finalist, and fits the budget to the target.

    `least_spread`: what a run's standard deviation is taken for at least when that margin is chosen. Stopped at any
    time, the same call goes on. Raises UserError.
    """
    task = place.submission.task
    submission = load_submission(folder, task)
    path = protocol_path(folder)
    if not path.exists():
        text = protocol_text(submission, plan)
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, text)
    tuning = Tuning(submission)
    tuning.run(tuning.stages(), place, lambda progress: tell(progress.trial))
    adopt(tuning)
    adopted = load_submission(folder, task)
    search = BudgetSearch(adopted, BUDGET, least_spread=least_spread)
    found = search.run(_with(place, adopted), tell)
    manifest = folder / "submission.toml"
    write_atomically(manifest, with_defaults(manifest.read_text(encoding="utf-8"), {BUDGET: found.budget}, manifest))
    return Retuned(found.budget, len(tuning.table.trials), found.runs)


def protocol_text(submission: Submission, plan: Plan) -> str:
    """A protocol.toml for a submission. Raises UserError where it declares nothing to tune."""
    if plan.trials < FEWEST:
        what = f"--trials {plan.trials}: too few"
        raise UserError(what, f"{FINALISTS} of them compare the best points: use {FEWEST}")
    declared = submission.manifest.hparams
    possible = [name for name, hparam in declared.items() if _is_on_a_scale(hparam)]
    odd = sorted(set(plan.names) - set(possible))
    if odd or not possible:
        what = f"{submission.folder}/submission.toml: {', '.join(odd) or 'no hyperparameter'} can be varied on a scale"
        known = f"there are {', '.join(possible)}" if possible else "leave --trials out"
        raise UserError(what if not odd else what.replace(" can ", " cannot "), f"name numbers with a range: {known}")
    on = [name for name in possible if declared[name].default != declared[name].low]
    names = plan.names or [name for name in on if name in plan.fresh] or on
    knobs = {name: _box(name, declared[name]) for name in possible if name in names}
    if not isinstance(submission.hparams([]).get(BUDGET), int):
        raise UserError(f"{submission.folder}/submission.toml: no [hparams.{BUDGET}]", "declare it: it is the budget")
    start = {name: declared[name].default for name in knobs}
    lines = [
        "# Written by `speedrun revert --trials` before the first trial, from the declared ranges.",
        f"seed = {int(submission.digest[:8], 16)}", "", "[budget]", f"seconds = {max(plan.seconds, 1.0):.0f}", "",
        *(line for name, box in knobs.items() for line in (f"[knobs.{name}]", *box, "")),
        "[stages.search]", f"trials = {plan.trials - FINALISTS}", "from_scouts = 0",
        f"knobs = {json.dumps(list(knobs))}", "",
        "[[stages.search.starts]]", *(f"{name} = {json.dumps(value)}" for name, value in start.items()), "",
        "[stages.finalists]", f"points = {POINTS}", f"seeds = {SEEDS}",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _is_on_a_scale(hparam: Hparam) -> bool:
    """A number with a fraction and a range; shapes, counts and choices make another model or another schedule."""
    return isinstance(hparam.default, float) and hparam.choices is None and hparam.low != hparam.high


def _box(name: str, hparam: Hparam) -> list[str]:
    """The lines of a knob: where it is searched, about the declared value and inside the declared range.

    The decay of a moving average, which its name tells, is searched by how far it is from 1; what is small in its range
    by factors, whether or not its table says `log`.
    """
    assert hparam.low is not None and hparam.high is not None and isinstance(hparam.default, float)
    here = hparam.default
    reach = SHARE * (hparam.high - hparam.low)
    averages = any(word in name for word in ("beta", "momentum")) and here < hparam.high < 1
    if hparam.log or (not averages and 0 < here < hparam.low + reach):
        scale, below, above = "log", here / FACTOR, here * FACTOR
    elif averages:
        scale, below, above = "complement", 1 - (1 - here) * FACTOR, 1 - (1 - here) / FACTOR
    else:
        scale, below, above = "linear", here - reach, here + reach
    low, high = max(hparam.low, below), min(hparam.high, above)
    return [f'scale = "{scale}"', f"low = {low!r}", f"high = {high!r}"]


def _with(place: Place, submission: Submission) -> Place:
    return Place(submission, place.hardware, place.data_dir, place.runs_dir, place.workers)
