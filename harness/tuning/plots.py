"""The plots of a tuning report as SVG: the same trials give the same bytes, so that a diff is a change of evidence."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from harness.tuning.analysis import ERRORS, Curve, best_so_far, expected_best
from harness.tuning.equal_budget import BestOf
from harness.tuning.protocol import Knob
from harness.tuning.trials import Trial

INK, ACCENT, PALE, OTHER = "#30343a", "#b4472b", "#9fb4c7", "#2f7d5b"
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "speedrun", "svg.fonttype": "none", "font.size": 9, "axes.spines.top": False,
    "axes.spines.right": False, "axes.edgecolor": INK, "axes.labelcolor": INK, "text.color": INK,
    "xtick.color": INK, "ytick.color": INK, "axes.titlesize": 10, "axes.titlelocation": "left",
}  # fmt: skip
COLUMNS = 4
ROOM = 0.08  # of the height, above the worst loss shown: failed trials stand there
SHOWN = 0.9  # share of trials in the plot of the tuning curve; the worst would squeeze the rest


@matplotlib.rc_context(STYLE)
def tuning_curve(scouts: Sequence[Trial], search: Sequence[Trial], baseline: Sequence[BestOf] = ()) -> str:
    """Best loss against number of trials: what happened, and what to expect of k trials drawn from those made.

    `baseline`: AdamW's best of 1, 2 ... trials, drawn beside the search.
    """
    panels = [(title, trials) for title, trials in (("scouts", scouts), ("search", search)) if _any_judged(trials)]
    figure = _figure(max(1, len(panels)), 1, width=4.4 * max(1, len(panels)), height=3.2)
    for axes, (title, trials) in zip(figure.axes, panels, strict=False):
        _best_of(axes, trials)
        if title == "search" and baseline:
            _beside(axes, baseline)
        axes.set_title(title)
        axes.set_xlabel("trials")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylabel("validation loss (nats per token)")
    if panels:
        figure.axes[-1].legend(frameon=False, fontsize=8)
    return _svg(figure)


def _best_of(axes: Axes, trials: Sequence[Trial]) -> None:
    losses = [trial.val_loss for trial in trials]
    judged = sorted(loss for loss in losses if loss is not None)
    ceiling = judged[min(len(judged) - 1, math.ceil(SHOWN * len(judged)))]
    span = max(ceiling - judged[0], 1e-6)
    numbers = np.arange(1, len(trials) + 1)
    expected = expected_best(losses)
    axes.fill_between(numbers, expected.low, expected.high, color=PALE, alpha=0.5, linewidth=0, label="90% band")
    axes.plot(numbers, expected.expected, color=INK, linewidth=1.2, label="expected best of k")
    axes.step(numbers, best_so_far(trials), where="post", color=ACCENT, linewidth=1.4, label="best so far")
    inside = [(n, loss) for n, loss in zip(numbers, losses, strict=True) if loss is not None and loss <= ceiling]
    above = [n for n, loss in zip(numbers, losses, strict=True) if loss is None or loss > ceiling]
    axes.scatter(
        [n for n, _ in inside], [loss for _, loss in inside], s=9, color=INK, alpha=0.6, linewidths=0, label="trial"
    )
    if above:
        top = [ceiling + ROOM * span] * len(above)
        axes.scatter(above, top, s=16, facecolors="none", edgecolors=INK, linewidths=0.8, label="worse, or failed")
    axes.set_ylim(judged[0] - ROOM * span, ceiling + 2 * ROOM * span)


def _beside(axes: Axes, baseline: Sequence[BestOf]) -> None:
    numbers = np.arange(1, len(baseline) + 1)
    low, high = [one.low for one in baseline], [one.high for one in baseline]
    axes.fill_between(numbers, low, high, color=OTHER, alpha=0.2, linewidth=0, label="AdamW's 90% band")
    expected = [one.expected for one in baseline]
    axes.plot(numbers, expected, "--", color=OTHER, linewidth=1.4, label="AdamW's expected best of k")
    bottom, top = axes.get_ylim()
    axes.set_ylim(min(bottom, low[-1]), max(top, expected[-1]))


@matplotlib.rc_context(STYLE)
def one_knob_curves(curves: Sequence[Curve], knobs: dict[str, Knob], noise: float | None) -> str:
    """A panel a knob: each run, the mean with two standard errors, the parabola through the middle three."""
    rows = max(1, math.ceil(len(curves) / COLUMNS))
    figure = _figure(min(COLUMNS, max(1, len(curves))), rows, width=11, height=2.5 * rows + 0.3)
    for axes, curve in zip(figure.axes, curves, strict=False):
        _one_knob(axes, curve, knobs[curve.name], noise)
    for axes in figure.axes[len(curves) :]:
        axes.set_visible(False)
    figure.supylabel("validation loss (nats per token)", fontsize=9)
    return _svg(figure)


def _one_knob(axes: Axes, curve: Curve, knob: Knob, noise: float | None) -> None:
    places = np.arange(len(curve.values)) - curve.declared
    judged = [loss for point in curve.points for loss in point.losses if loss is not None]
    axes.set_title(curve.name)
    axes.set_xticks(places, [_short(value) for value in curve.values], fontsize=7)
    axes.axvline(0, color=PALE, linewidth=6, alpha=0.4, zorder=0)
    if not judged:
        return
    span = max(max(judged) - min(judged), 1e-6)
    for place, point in zip(places, curve.points, strict=True):
        losses = [loss for loss in point.losses if loss is not None]
        axes.scatter([place] * len(losses), losses, s=8, color=INK, alpha=0.5, linewidths=0)
        if point.failed:
            axes.scatter([place], [max(judged) + ROOM * span], s=22, facecolors="none", edgecolors=ACCENT)
    means = [(place, point) for place, point in zip(places, curve.points, strict=True) if point.mean is not None]
    errors = [ERRORS * (noise or 0.0) / math.sqrt(len(point.losses)) for _, point in means]
    axes.errorbar(
        [place for place, _ in means], [float(point.mean or 0) for _, point in means], yerr=errors, fmt="o-",
        color=INK, markersize=4, linewidth=1, capsize=2,
    )  # fmt: skip
    middle = curve.points[curve.declared].mean
    if curve.parabola is not None and middle is not None:
        x = np.linspace(-1, 1, 41)
        lowest = middle - curve.parabola.left
        axes.plot(x, lowest + curve.parabola.curvature / 2 * (x - curve.parabola.offset) ** 2, "--", color=ACCENT)


def _figure(columns: int, rows: int, width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.subplots(rows, columns)
    return figure


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n"


def _any_judged(trials: Sequence[Trial]) -> bool:
    return any(trial.val_loss is not None for trial in trials)


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
