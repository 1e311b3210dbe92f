"""A submission beside the AdamW baseline at an equal tuning budget: its best of K trials, and AdamW's best of K.

A rival tuned in 20 trials may not be compared with an AdamW tuned in 48, nor the other way round. What the lowest of K
trials is that are drawn from the baseline's without replacement, is known exactly; after Dodge et al., "Show Your Work"
(EMNLP 2019), who draw with replacement. Where the rival had more trials than the baseline, the best of all of the
baseline's stands for it.

It leans two ways. The baseline's later trials learnt from its earlier ones, so K drawn from all are better than a
search that ended at K. And a rival on the baseline's model begins at AdamW's tuned point, which took AdamW many
trials. So the declared points of both are compared too, on the seeds that both were run on and neither search was.

Losses of one seed are compared: the protocols draw their seeds from the same number. Where they do not, it is said.
"""

from __future__ import annotations

import math
import statistics
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
class BestOf:
    """The baseline's best of some trials: its mean and its 5% and 95% quantiles, nats per token."""

    expected: float
    low: float
    high: float


@dataclass(frozen=True)
class Paired:
    """The declared point less the baseline's, mean over seeds that both ran on; nats per token, below zero: better.

    `standard_error`: of that mean, None for a single seed.
    """

    difference: float
    standard_error: float | None
    seeds: int


@dataclass(frozen=True)
class EqualBudget:
    """Losses are nats per token. `baseline_best`: the baseline's best of 1, 2 ... `trials`. `chance`: that its best of
    `trials` is at least as low as the submission's. `same_seeds`: both searches ran on the same ones. `paired`: None
    where the declared points have no seed in common."""

    tokens: int
    trials: int
    failed: int
    best: float
    baseline_trials: int
    baseline_best: tuple[BestOf, ...]
    chance: float
    same_seeds: bool
    paired: Paired | None

    @property
    def expected(self) -> float:
        """Of the baseline's best of as many trials."""
        return self.baseline_best[-1].expected

    @property
    def low(self) -> float:
        """Its 5% quantile."""
        return self.baseline_best[-1].low

    @property
    def high(self) -> float:
        """Its 95% quantile."""
        return self.baseline_best[-1].high

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
    values, best = np.sort(judged_or_worst(theirs)), min(judged)
    return EqualBudget(
        tokens=tokens, trials=len(own), failed=len(own) - len(judged), best=best, baseline_trials=len(values),
        baseline_best=tuple(_best_of(values, drawn) for drawn in range(1, len(own) + 1)),
        chance=float(_chances_of_best(len(values), len(own))[values <= best].sum()),
        same_seeds={trial.job.seed for trial in trials} == {trial.job.seed for trial in baseline_trials},
        paired=_paired(tuning, reference, tokens),
    )  # fmt: skip


def _paired(tuning: Tuning, reference: Tuning, tokens: int) -> Paired | None:
    own, theirs = (_declared_losses(one, tokens) for one in (tuning, reference))
    differences = [own[seed] - theirs[seed] for seed in own.keys() & theirs.keys()]
    if not differences:
        return None
    count = len(differences)
    error = statistics.stdev(differences) / math.sqrt(count) if count > 1 else None
    return Paired(statistics.fmean(differences), error, count)


def _declared_losses(tuning: Tuning, tokens: int) -> dict[int, float]:
    """Of the declared point at the full budget, by seed, without those of the search, which chose it."""
    point = tuning.design.point({})
    if not same_budget(tuning.design.tokens(point), tokens):
        return {}
    searched = {trial.job.seed for stage in ("scout", "search") for trial in tuning.table.of_stage(stage)}
    return {
        trial.job.seed: trial.val_loss
        for trial in tuning.table.trials
        if trial.job.hparams == point and trial.val_loss is not None and trial.job.seed not in searched
    }


def _trials(tuning: Tuning, tokens: int) -> list[Trial]:
    searched = tuning.table.of_stage("search")
    return [trial for trial in searched if same_budget(tuning.design.tokens(trial.job.hparams), tokens)]


def _best_of(values: FloatArray, drawn: int) -> BestOf:
    """Of so many drawn from sorted values."""
    chances = _chances_of_best(len(values), drawn)
    low, high = (float(values[np.searchsorted(np.cumsum(chances), share)]) for share in BAND)
    return BestOf(float(values @ chances), low, high)


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
        f"{found.difference:+.4f}; AdamW's is as low in {found.chance:.0%}{seeds}. {_paired_words(found.paired)}"
    )


def _paired_words(found: Paired | None) -> str:
    if found is None:
        return "The two declared points have no seed in common yet beyond the search's"
    error = "" if found.standard_error is None else f" (standard error {found.standard_error:.4f})"
    seeds = "seed" if found.seeds == 1 else "seeds"
    return f"The two declared points, on {found.seeds} {seeds} that no search used: {found.difference:+.4f}{error}"
