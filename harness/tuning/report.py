"""report.md and its plots, made from protocol, submission and trials.csv alone: the same trials, the same bytes."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

from harness.bundle import write_atomically
from harness.errors import UserError
from harness.statistics import margin_for_power
from harness.statistics.student import critical_value
from harness.submission import Value
from harness.tuning import plots
from harness.tuning.analysis import (
    Confirmation,
    Curve,
    Grid,
    Point,
    at_edges,
    check,
    confirmation,
    curve,
    expected_best,
    finalists,
    grid,
    run_noise,
    smallest_difference,
)
from harness.tuning.equal_budget import equal_budget, sentence
from harness.tuning.protocol import FOLDER, STAGES
from harness.tuning.trials import Hparams
from harness.tuning.tune import Tuning

REPORT_FILE = "report.md"
TUNING_PLOT, CURVES_PLOT = "tuning_curve.svg", "one_knob_curves.svg"
CONFIDENCE = 0.95
TARGET_RUNS, TARGET_STEP = 8, 0.005  # a target is reached within so many runs, and is a multiple of so many nats
NOT_RUN = "Not run yet."


class Report:
    """The sections of the report. Raises UserError where nothing was run."""

    def __init__(self, tuning: Tuning) -> None:
        self._tuning = tuning
        self._design, self._table, self._protocol = tuning.design, tuning.table, tuning.protocol
        self._folder = tuning.submission.folder / FOLDER
        self._submission = tuning.submission
        if not self._table.trials:
            raise UserError(f"{self._table.path}: no trial yet", f"run speedrun tune {tuning.submission.folder}")
        self._noise = run_noise(self._table.trials)
        self._beside = equal_budget(tuning)
        self._curves: list[Curve] = []
        self._checks: list[Curve] = []
        self._grids: list[Grid] = []
        stages = self._protocol.stages
        noise = math.inf if self._noise is None else self._noise  # unknown noise proves no point better
        if stages.curves:
            seeds = self._design.seeds("evidence", stages.curves.seeds)
            self._curves = [curve(self._design, self._table, name, seeds, noise) for name in stages.curves.knobs]
        if stages.checks:
            seeds = self._design.seeds("evidence", stages.checks.seeds)
            self._checks = [check(self._design, self._table, name, seeds, noise) for name in stages.checks.knobs]
        if stages.pairs:
            seeds = self._design.seeds("evidence", stages.pairs.seeds)
            self._grids = [grid(self._design, self._table, *pair, seeds, noise) for pair in stages.pairs.pairs]

    def write(self) -> Path:
        """Writes the report and its plots into the tuning folder; returns the report's path."""
        scouts, search = self._table.of_stage("scout"), self._table.of_stage("search")
        baseline = self._beside.baseline_best if self._beside else ()
        write_atomically(self._folder / TUNING_PLOT, plots.tuning_curve(scouts, search, baseline))
        if self._curves:
            curves = plots.one_knob_curves(self._curves, self._protocol.knobs, self._noise)
            write_atomically(self._folder / CURVES_PLOT, curves)
        path = self._folder / REPORT_FILE
        write_atomically(path, self.text())
        return path

    def text(self) -> str:
        """The report in Markdown."""
        sections = [
            self._head(), self._left_on_the_table(), self._confirmation(), self._cost(), self._tuning_curve(),
            self._equal_budget(), self._finalists(), self._curves_section(), self._pairs(), self._checks_section(),
        ]  # fmt: skip
        return "\n\n".join(section for section in sections if section) + "\n"

    def _head(self) -> str:
        task = self._submission.task
        noise = "unknown" if self._noise is None else f"{self._noise:.4f}"
        declared = table(("hyperparameter", "declared"), [(f"`{n}`", _value(v)) for n, v in self._declared.items()])
        return (
            f"# Tuning of {self._submission.manifest.title} on `{task.name}`\n\n"
            "Made by `speedrun tune SUB --report` from [trials.csv](trials.csv) and [protocol.toml](protocol.toml); do "
            "not edit. Losses are nats per token, the judge's, at a fixed budget of tokens. The evidence is about the "
            "declared point:\n\n"
            f"{declared}\n\n"
            "Standard deviation of a run's loss beyond what its seed does to all points alike, pooled over the better "
            f"half of the points on several seeds: {noise}."
        )

    def _left_on_the_table(self) -> str:
        lines = ["## What is left on the table", ""]
        better = [
            f"- `{c.name}` = {_value(c.better)} beats the declared {_value(c.values[c.declared])} by more than noise."
            for c in [*self._curves, *self._checks]
            if c.better is not None
        ]
        for g in self._grids:
            if g.better is not None:
                row, column = g.better
                values = f"`{g.first}` = {_value(g.rows[row])} with `{g.second}` = {_value(g.columns[column])}"
                better.append(f"- {values} beat the declared point by more than noise.")
        edges = [c.name for c in self._curves if c.best is not None and c.best in (0, len(c.points) - 1)]
        missing = [name for name, done in self._complete().items() if not done]
        lines += better
        if not better and not missing and (self._grids or self._knob_tables()):
            lines.append("- No point of the curves, grids and checks beats the declared one by more than noise.")
        if edges:
            names = ", ".join(f"`{name}`" for name in edges)
            noise = "" if better else ", by no more than noise"
            lines.append(f"- The lowest point of {names} is the last one of its curve{noise}: it is not bracketed.")
        outward = ", ".join(f"`{name}`" for name in at_edges(self._design, self._table))
        if outward:
            lines.append(f"- The best point of the search lies at an edge of its box in {outward}: search a wider one.")
        parabolas = [(c.name, c.parabola.left) for c in self._curves if c.parabola is not None]
        if parabolas:
            largest = max(parabolas, key=lambda item: item[1])
            lines.append(
                f"- Moving each knob to the lowest point of its parabola would gain {sum(x for _, x in parabolas):.4f} "
                f"nats over {len(parabolas)} knobs if the parabolas held and the gains added up; the most for "
                f"`{largest[0]}`, {largest[1]:.4f}. Noise alone makes such gains look larger than they are."
            )
        losses = [trial.val_loss for trial in self._table.of_stage("search")]
        if len(losses) > 1 and any(loss is not None for loss in losses):
            expected = expected_best(losses).expected
            half = math.ceil(len(losses) / 2)
            lines.append(
                f"- The second half of the {len(losses)} search trials was worth "
                f"{expected[half - 1] - expected[-1]:.4f} nats (expected best of half less that of all)."
            )
        if missing:
            lines.append(f"- Not run completely: {', '.join(missing)}. Until then this list is not complete either.")
        return "\n".join(lines)

    def _complete(self) -> dict[str, bool]:
        complete = {
            f"{kind} of `{c.name}`": all(point.complete for point in c.points) for kind, c in self._knob_tables()
        }
        for g in self._grids:
            ran = all(point.complete for row in g.points for point in row)
            complete[f"grid of `{g.first}` and `{g.second}`"] = ran
        stage, confirmed = self._protocol.stages.confirm, confirmation(self._design, self._table)
        if stage:
            complete["confirmation"] = confirmed is not None and len(confirmed.seeds) >= stage.seeds
        return complete

    def _knob_tables(self) -> list[tuple[str, Curve]]:
        return [*(("curve", c) for c in self._curves), *(("check", c) for c in self._checks)]

    def _confirmation(self) -> str:
        found = confirmation(self._design, self._table)
        if found is None and self._protocol.stages.confirm is None:
            return ""
        head = "## Confirmation\n\nThe declared point on seeds that no other point was ever run on.\n\n"
        return head + (NOT_RUN if found is None else _confirmed(found))

    def _cost(self) -> str:
        rows: list[tuple[object, ...]] = []
        for stage in STAGES:
            trials = self._table.of_stage(stage)
            if trials:
                failed = sum(trial.val_loss is None for trial in trials)
                hours = sum(trial.seconds for trial in trials) / 3600
                median = statistics.median(trial.seconds for trial in trials)
                rows.append((stage, len(trials), failed, f"{median:.0f}", f"{hours:.2f}"))
        every = self._table.trials
        hours = sum(trial.seconds for trial in every) / 3600
        rows.append(("all", len(every), sum(t.val_loss is None for t in every), "", f"{hours:.2f}"))
        columns = ("stage", "trials", "failed", "median seconds", "hours")
        note = (
            "Seconds are wall-clock with set-up and judging, of trials side by side; a trial that several stages ask "
        )
        return f"## What was run\n\n{table(columns, rows)}\n\n{note}for counts in the first."

    def _tuning_curve(self) -> str:
        return (
            "## Tuning curve\n\n"
            f"![Best loss against number of trials]({TUNING_PLOT})\n\n"
            "Red: the best so far, in the order of the trials. Black: the expected best of k trials drawn at random "
            "from those made (Dodge et al. 2019), with its 90% bootstrap band; for the search, whose later trials "
            "learn from the earlier ones, it describes the set of trials and not the order. A failed trial counts as "
            "the worst."
            + (" Green: AdamW's expected best of k, drawn from all trials of its search." if self._beside else "")
        )

    def _equal_budget(self) -> str:
        if self._beside is None:
            return ""
        return f"## Beside AdamW at an equal budget\n\nThe {sentence(self._beside)}."

    def _finalists(self) -> str:
        found = finalists(self._design, self._table)
        head = "## Finalists\n\nThe best points of the search and the point then declared, on seeds of their own.\n\n"
        if not found:
            return head + NOT_RUN
        names = [name for name in self._declared if len({_value(f.hparams[name]) for f in found}) > 1]
        rows = []
        for finalist in found:
            mark = "declared" if finalist.hparams == self._design.point({}) else ""
            spread = statistics.stdev(finalist.losses) if len(finalist.losses) > 1 else 0.0
            values = (_value(finalist.hparams[name]) for name in names)
            rows.append((f"{finalist.mean:.4f}", f"{spread:.4f}", len(finalist.losses), *values, mark))
        return head + table(("mean", "sd", "n", *(f"`{name}`" for name in names), ""), rows)

    def _curves_section(self) -> str:
        stage = self._protocol.stages.curves
        if stage is None:
            return ""
        rows = []
        for c in self._curves:
            p = c.parabola
            best = "" if c.best is None else _value(c.values[c.best])
            fit = ("", "", "") if p is None else (_value(p.value), f"{p.curvature:.4f}", f"{p.left:.4f}")
            rows.append((f"`{c.name}`", _losses_by_value(c), best, _where(c), *fit))
        columns = ("knob", "value: mean loss", "best", "", "x\\*", "κ", "y₀ - L\\*")
        return (
            "## One-knob curves\n\nFull budget, everything else as declared.\n\n"
            f"![Loss against each knob]({CURVES_PLOT})\n\n{table(columns, rows)}\n\n"
            "x\\*, κ (per step squared) and y₀ - L\\* (what is left on the table) are those of the parabola through "
            "the declared point and its neighbours, where its lowest point lies between them. Open circles: a run "
            f"failed there.{self._difference(stage.seeds)}"
        )

    def _difference(self, seeds: int) -> str:
        if self._noise is None:
            return ""
        return (
            f" Two means over the same {seeds} seeds differ by more than noise when they are "
            f"{smallest_difference(self._noise, seeds):.4f} apart (two standard errors)."
        )

    def _pairs(self) -> str:
        if self._protocol.stages.pairs is None:
            return ""
        parts = ["## 3 x 3 checks", "Mean loss; the declared point is in the middle, the lowest is bold."]
        for g in self._grids:
            means = [point.mean for row in g.points for point in row if point.mean is not None]
            lowest = min(means, default=None)
            rows = [
                (f"`{g.first}` {_value(value)}", *(_cell(point, lowest) for point in row))
                for value, row in zip(g.rows, g.points, strict=True)
            ]
            parts.append(table(("", *(f"`{g.second}` {_value(value)}" for value in g.columns)), rows))
        return "\n\n".join(parts if self._grids else [parts[0], NOT_RUN])

    def _checks_section(self) -> str:
        stage = self._protocol.stages.checks
        if stage is None:
            return ""
        rows = []
        for c in self._checks:
            better = "" if c.better is None else f"better: {_value(c.better)}"
            rows.append((f"`{c.name}`", _value(c.values[c.declared]), _losses_by_value(c), better))
        what = f"One step down and up, or every listed value.{self._difference(stage.seeds)}"
        head = f"## Checks of knobs that were not searched\n\n{what}\n\n"
        return head + (table(("knob", "declared", "value: mean loss", ""), rows) if rows else NOT_RUN)

    @property
    def _declared(self) -> Hparams:
        return self._design.point({})


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table in Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _confirmed(found: Confirmation) -> str:
    failed = f"; {found.failed} failed" if found.failed else ""
    losses = ", ".join(f"{loss:.4f}" for loss in found.losses)
    if found.spread is None:
        return f"One run: {losses}{failed}."
    count = len(found.losses)
    half = critical_value((1 - CONFIDENCE) / 2, count - 1) * found.spread / math.sqrt(count)
    margin = margin_for_power(found.spread, TARGET_RUNS) if found.spread > 0 else 0.0
    target = math.ceil(round((found.mean + margin) / TARGET_STEP, 6)) * TARGET_STEP
    return (
        f"Mean {found.mean:.4f} +- {half:.4f} (95% interval), standard deviation {found.spread:.4f}, from "
        f"{min(found.losses):.4f} to {max(found.losses):.4f}, n = {count}{failed}.\n\nLosses: {losses}.\n\n"
        f"A target of {target:.3f} is what follows: the mean, and {margin:.4f} above it so that the declared point "
        f"reaches it within {TARGET_RUNS} runs in 90% of all series, rounded up to {TARGET_STEP:g}."
    )


def _where(c: Curve) -> str:
    if not all(point.complete for point in c.points):
        return "not complete"
    if c.interior:
        return "as declared, interior" + ("" if c.bracketed else ", within noise of one side")
    if c.better is not None:
        return "another is better"
    if c.best == c.declared and c.at_bound:
        return "as declared, at the end of the range"
    return "another is lower, within noise"


def _losses_by_value(c: Curve) -> str:
    cells = []
    for index, (value, point) in enumerate(zip(c.values, c.points, strict=True)):
        text = f"{_value(value)}: {_cell(point)}"
        cells.append(f"**{text}**" if index == c.declared else text)
    return ", ".join(cells)


def _cell(point: Point, lowest: float | None = None) -> str:
    if point.mean is None:
        return "failed" if point.failed else "not run"
    return f"**{point.mean:.4f}**" if point.mean == lowest else f"{point.mean:.4f}"


def _value(value: Value) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
