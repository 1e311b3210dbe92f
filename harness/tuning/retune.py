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
from harness.submission import Hparam, Submission, Value, load_submission
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
class Retuned:
    """The hyperparameters that were changed, the budget that was found, and the trials and runs that it took."""

    changed: dict[str, Value]
    budget: int
    trials: int
    budget_runs: int


def retune(
    folder: Path, place: Place, names: Sequence[str], trials: int, seconds: float, tell: Callable[[Trial], None]
) -> Retuned:  # fmt: skip
    """Retunes a submission within so many trials, adopts the best finalist, and fits the budget to the target.

    `names`: the hyperparameters; all that lie on a scale where there are none. `seconds`: what a run takes, for the
    plan. Stopped at any time, the same call goes on. Raises UserError.
    """
    task = place.submission.task
    submission = load_submission(folder, task)
    path = protocol_path(folder)
    if not path.exists():
        text = protocol_text(submission, names, trials, seconds)
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, text)
    tuning = Tuning(submission)
    tuning.run(tuning.stages(), place, lambda progress: tell(progress.trial))
    _, changed = adopt(tuning)
    adopted = load_submission(folder, task)
    search = BudgetSearch(adopted, BUDGET, None)
    found = search.run(_with(place, adopted), tell)
    manifest = folder / "submission.toml"
    write_atomically(manifest, with_defaults(manifest.read_text(encoding="utf-8"), {BUDGET: found.budget}, manifest))
    return Retuned(changed, found.budget, len(tuning.table.trials), found.runs)


def protocol_text(submission: Submission, names: Sequence[str], trials: int, seconds: float) -> str:
    """A protocol.toml for a submission. Raises UserError where it declares nothing to tune."""
    if trials < FEWEST:
        raise UserError(f"--trials {trials}: too few", f"{FINALISTS} of them compare the best points: use {FEWEST}")
    declared = submission.manifest.hparams
    possible = [name for name, hparam in declared.items() if _is_on_a_scale(hparam)]
    odd = sorted(set(names) - set(possible))
    if odd or not possible:
        what = f"{submission.folder}/submission.toml: {', '.join(odd) or 'no hyperparameter'} can be varied on a scale"
        known = f"there are {', '.join(possible)}" if possible else "leave --trials out"
        raise UserError(what if not odd else what.replace(" can ", " cannot "), f"name numbers with a range: {known}")
    knobs = {name: _box(declared[name]) for name in possible if not names or name in names}
    if not isinstance(submission.hparams([]).get(BUDGET), int):
        raise UserError(f"{submission.folder}/submission.toml: no [hparams.{BUDGET}]", "declare it: it is the budget")
    start = {name: declared[name].default for name in knobs}
    lines = [
        "# Written by `speedrun revert --trials` before the first trial, from the declared ranges.",
        f"seed = {int(submission.digest[:8], 16)}", "", "[budget]", f"seconds = {max(seconds, 1.0):.0f}", "",
        *(line for name, box in knobs.items() for line in (f"[knobs.{name}]", *box, "")),
        "[stages.search]", f"trials = {trials - FINALISTS}", "from_scouts = 0",
        f"knobs = {json.dumps(list(knobs))}", "",
        "[[stages.search.starts]]", *(f"{name} = {json.dumps(value)}" for name, value in start.items()), "",
        "[stages.finalists]", f"points = {POINTS}", f"seeds = {SEEDS}",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _is_on_a_scale(hparam: Hparam) -> bool:
    """A number with a fraction and a range; shapes, counts and choices make another model or another schedule."""
    return isinstance(hparam.default, float) and hparam.choices is None and hparam.low != hparam.high


def _box(hparam: Hparam) -> list[str]:
    """The lines of a knob: where it is searched, about the declared value and inside the declared range."""
    assert hparam.low is not None and hparam.high is not None and isinstance(hparam.default, float)
    here = hparam.default
    if hparam.log:
        scale, below, above = "log", here / FACTOR, here * FACTOR
    else:
        reach = SHARE * (hparam.high - hparam.low)
        scale, below, above = "linear", here - reach, here + reach
    low, high = max(hparam.low, below), min(hparam.high, above)
    return [f'scale = "{scale}"', f"low = {low!r}", f"high = {high!r}"]


def _with(place: Place, submission: Submission) -> Place:
    return Place(submission, place.hardware, place.data_dir, place.runs_dir, place.workers)
