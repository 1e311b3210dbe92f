"""A submission beside the AdamW baseline at an equal tuning budget: its best of K trials, and AdamW's best of K.

A rival tuned in 20 trials may not be compared with an AdamW tuned in 48, nor the other way round. What the lowest of K
draws from the baseline's trials is, is known exactly (Dodge et al., "Show Your Work", EMNLP 2019). The baseline's later
trials learnt from its earlier ones, so K drawn from all are better than a search that ended at K: the comparison leans
towards AdamW.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.paths import BASELINES
from harness.submission import load_submission
from harness.tuning.analysis import BAND, chances_of_lowest, judged_or_worst
from harness.tuning.protocol import protocol_path
from harness.tuning.trials import Trial
from harness.tuning.tune import Tuning

SAME_TOKENS = 0.002  # steps are whole, so that budgets differ by a rounding


@dataclass(frozen=True)
class EqualBudget:
    """Losses are nats per token. `expected`, `low`, `high`: the baseline's best of `trials`, its mean and 5% and 95%
    quantiles. `chance`: that the baseline's is at least as low as the submission's."""

    tokens: int
    trials: int
    failed: int
    best: float
    baseline_trials: int
    expected: float
    low: float
    high: float
    chance: float

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
    budgets = Counter(_tokens(reference, trial) for trial in reference.table.of_stage("search"))
    if not budgets:
        return None
    tokens = budgets.most_common(1)[0][0]
    own, theirs = _losses(tuning, tokens), _losses(reference, tokens)
    judged = [loss for loss in own if loss is not None]
    if not judged or not any(loss is not None for loss in theirs):
        return None
    values = np.sort(judged_or_worst(theirs))
    chances = chances_of_lowest(len(values), [len(own)])[0]
    low, high = (float(values[np.searchsorted(np.cumsum(chances), share)]) for share in BAND)
    best = min(judged)
    return EqualBudget(
        tokens=tokens, trials=len(own), failed=len(own) - len(judged), best=best, baseline_trials=len(values),
        expected=float(values @ chances), low=low, high=high, chance=float(chances[values <= best].sum()),
    )  # fmt: skip


def _losses(tuning: Tuning, tokens: int) -> list[float | None]:
    trials = tuning.table.of_stage("search")
    return [trial.val_loss for trial in trials if math.isclose(_tokens(tuning, trial), tokens, rel_tol=SAME_TOKENS)]


def _tokens(tuning: Tuning, trial: Trial) -> int:
    rule = tuning.protocol.budget
    return math.prod(int(trial.job.hparams[name]) for name in (rule.steps, *rule.tokens_per_step))


def sentence(found: EqualBudget) -> str:
    """The comparison in words."""
    failed = f" ({found.failed} failed)" if found.failed else ""
    return (
        f"best of {found.trials} trials{failed} at {found.tokens:,} tokens: {found.best:.4f}. AdamW's best of "
        f"{found.trials}, out of {found.baseline_trials}: {found.expected:.4f} expected, {found.low:.4f} to "
        f"{found.high:.4f} in 90%. Difference {found.difference:+.4f}; AdamW's is as low in {found.chance:.0%}"
    )
