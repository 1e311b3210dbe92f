"""A submission beside the AdamW baseline at an equal tuning budget: its best of K trials, and AdamW's best of K.

A rival tuned in 20 trials may not be compared with an AdamW tuned in 48, nor the other way round. What the lowest of K
trials is that are drawn from the baseline's without replacement, is known exactly; after Dodge et al., "Show Your Work"
(EMNLP 2019), who draw with replacement. Where the rival had more trials than the baseline, the best of all of the
baseline's stands for it. The baseline's later trials learnt from its earlier ones, so K drawn from all are better than
a search that ended at K: the comparison leans towards AdamW.

Losses of one seed are compared: the protocols draw their seeds from the same number. Where they do not, it is said.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.paths import BASELINES
from harness.submission import load_submission
from harness.tuning.analysis import BAND, FloatArray, judged_or_worst
from harness.tuning.design import same_budget
from harness.tuning.protocol import protocol_path
from harness.tuning.trials import Trial
from harness.tuning.tune import Tuning


@dataclass(frozen=True)
class EqualBudget:
    """Losses are nats per token. `expected`, `low`, `high`: the baseline's best of `trials`, its mean and 5% and 95%
    quantiles. `chance`: that the baseline's is at least as low as the submission's. `same_seeds`: both searches ran on
    the same ones."""

    tokens: int
    trials: int
    failed: int
    best: float
    baseline_trials: int
    expected: float
    low: float
    high: float
    chance: float
    same_seeds: bool

    @property
    def difference(self) -> float:
        """The submission's best less what was to be expected of the baseline: below zero, the submission is better."""
        return self.best - self.expected


def equal_budget(tuning: Tuning, baselines: Path | None = None) -> EqualBudget | None:
    """The comparison, over the trials of both searches that read as many tokens as most of the baseline's did.

    None for a baseline itself, and where one of the two has no such trial yet. Raises UserError.
    """
    folder = (baselines or BASELINES / "adamw") / tuning.submission.task.name
    if not protocol_path(folder).exists() or tuning.submission.folder.resolve() == folder.resolve():
        return None
    reference = Tuning(load_submission(folder))
    budgets = Counter(reference.design.tokens(trial.job.hparams) for trial in reference.table.of_stage("search"))
    if not budgets:
        return None
    tokens = budgets.most_common(1)[0][0]
    trials, baseline_trials = _trials(tuning, tokens), _trials(reference, tokens)
    own, theirs = ([trial.val_loss for trial in found] for found in (trials, baseline_trials))
    judged = [loss for loss in own if loss is not None]
    if not judged or not any(loss is not None for loss in theirs):
        return None
    values = np.sort(judged_or_worst(theirs))
    chances = _chances_of_best(len(values), len(own))
    low, high = (float(values[np.searchsorted(np.cumsum(chances), share)]) for share in BAND)
    best = min(judged)
    return EqualBudget(
        tokens=tokens, trials=len(own), failed=len(own) - len(judged), best=best, baseline_trials=len(values),
        expected=float(values @ chances), low=low, high=high, chance=float(chances[values <= best].sum()),
        same_seeds={trial.job.seed for trial in trials} == {trial.job.seed for trial in baseline_trials},
    )  # fmt: skip


def _trials(tuning: Tuning, tokens: int) -> list[Trial]:
    searched = tuning.table.of_stage("search")
    return [trial for trial in searched if same_budget(tuning.design.tokens(trial.job.hparams), tokens)]


def _chances_of_best(values: int, drawn: int) -> FloatArray:
    """The probability that the i-th lowest value, i from 0, is the best of so many drawn without replacement.

    float64 [values]: C(n - 1 - i, K - 1) / C(n, K), the other K - 1 being among the n - 1 - i that are worse. More than
    there are cannot be drawn: then all are.
    """
    drawn = min(drawn, values)
    every = math.comb(values, drawn)
    return np.array([math.comb(values - 1 - rank, drawn - 1) / every for rank in range(values)])


def sentence(found: EqualBudget) -> str:
    """The comparison in words."""
    failed = f" ({found.failed} failed)" if found.failed else ""
    fewer = found.baseline_trials <= found.trials
    drawn = f"all its {found.baseline_trials}" if fewer else f"{found.trials}, out of {found.baseline_trials}"
    seeds = "" if found.same_seeds else ". The two searches ran on different seeds, which differ by luck too"
    return (
        f"best of {found.trials} trials{failed} at {found.tokens:,} tokens: {found.best:.4f}. AdamW's best of {drawn}: "
        f"{found.expected:.4f} expected, {found.low:.4f} to {found.high:.4f} in 90%. Difference "
        f"{found.difference:+.4f}; AdamW's is as low in {found.chance:.0%}{seeds}"
    )
