"""The page of a baseline: what was decided before its tuning, what was run, and the report with its plots.

The report is the Markdown that `speedrun tune --report` writes; it is shown as it is. Raw HTML in it stays text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from markdown_it.token import Token
from markupsafe import Markup

from harness.core.files import read_file
from harness.errors import UserError
from harness.paths import BASELINES
from harness.submission import Hparam, load_submission
from harness.text import clean
from harness.tuning.protocol import FOLDER, PROTOCOL_FILE, Knob, protocol_path
from harness.tuning.report import CURVES_PLOT, REPORT_FILE, TUNING_PLOT
from harness.tuning.tune import TRIALS_FILE, Tuning
from leaderboard import markdown

FOLDERS = BASELINES / "adamw"
MAX_REPORT_BYTES = 1 << 20
KEPT = (REPORT_FILE, TUNING_PLOT, CURVES_PLOT, TRIALS_FILE, PROTOCOL_FILE, "budget.csv")
STAGES = {
    "scout": "settings spread evenly over the ranges, at a share of the budget",
    "search": "full runs: the best scouts, then a sampler that learns from every result",
    "finalists": "the best settings again on new seeds, as the best of many is partly luck",
    "curves": "one knob moved at a time about the declared setting",
    "pairs": "two knobs moved together, where they may lean on each other",
    "checks": "knobs that were not searched, a step down and up",
    "confirm": "the declared setting on seeds that nothing was chosen by",
}


@dataclass(frozen=True)
class Stage:
    """A stage of the protocol: trials planned, run, failed; `best`: its lowest loss, nats per token."""

    name: str
    what: str
    planned: int
    left: int
    failed: int
    best: float | None


@dataclass(frozen=True)
class TunedKnob:
    """A hyperparameter with what the protocol lets it be."""

    name: str
    declared: object
    varied: str
    searched: bool


@dataclass(frozen=True)
class Baseline:
    """What the page shows. `problem` says why trials cannot be shown; `report` is None until it is written."""

    task: str
    title: str
    folder: Path
    knobs: list[TunedKnob] = field(default_factory=list)
    stages: list[Stage] = field(default_factory=list)
    trials: int = 0
    failed: int = 0
    hours: float = 0.0
    problem: str | None = None
    report: Markup | None = None
    files: list[str] = field(default_factory=list)


def baselines(folder: Path = FOLDERS) -> list[Baseline]:
    """The baselines of all tasks, by name of the task. Raises UserError for a submission that cannot be read."""
    return [_baseline(path.parent) for path in sorted(folder.glob("*/submission.toml"))]


def _baseline(folder: Path) -> Baseline:
    submission = load_submission(folder)
    name, title = submission.task.name, clean(submission.manifest.title)
    if not protocol_path(folder).exists():
        return Baseline(name, title, folder)
    files = [file for file in KEPT if (folder / FOLDER / file).is_file()]
    report = rendered(_text(folder / FOLDER / REPORT_FILE)) if REPORT_FILE in files else None
    try:
        tuning = Tuning(submission)
    except UserError as error:
        return Baseline(name, title, folder, problem=clean(error.message), report=report, files=files)
    trials = tuning.table.trials
    return Baseline(
        task=name, title=title, folder=folder, report=report, files=files, stages=_stages(tuning),
        knobs=[_knob(n, knob, submission.manifest.hparams[n], tuning) for n, knob in tuning.protocol.knobs.items()],
        trials=len(trials), failed=sum(trial.val_loss is None for trial in trials),
        hours=sum(trial.seconds for trial in trials) / 3600,
    )  # fmt: skip


def _stages(tuning: Tuning) -> list[Stage]:
    rows = []
    for cost in tuning.costs(tuning.stages()):
        trials = tuning.table.of_stage(cost.stage)
        losses = [trial.val_loss for trial in trials if trial.val_loss is not None]
        failed = len(trials) - len(losses)
        rows.append(Stage(cost.stage, STAGES[cost.stage], cost.planned, cost.left, failed, min(losses, default=None)))
    return rows


def _knob(name: str, knob: Knob, hparam: Hparam, tuning: Tuning) -> TunedKnob:
    search = tuning.protocol.stages.search
    if knob.low is not None:
        varied = f"{knob.low:g} to {knob.high:g}"
    elif knob.values is not None:
        varied = ", ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in knob.values)
    else:
        varied = f"{'by' if knob.scale == 'linear' else 'times'} {knob.step:g}, down and up"
    return TunedKnob(name, hparam.default, varied, search is not None and name in search.knobs)


def rendered(text: str) -> Markup:
    """The report without its title as HTML: tables and plots scroll by themselves, raw HTML stays text."""
    tokens = _without_title(markdown.parse(text))
    for place, token in enumerate(tokens):
        if token.type in ("paragraph_open", "paragraph_close") and _is_plot(tokens, place):
            token.tag = "div"
            if token.nesting == 1:
                label = tokens[place + 1].children[0].content  # type: ignore[index]
                markdown.scrolls(token, label, "scroll plot")
    return markdown.html(tokens)


def _without_title(tokens: list[Token]) -> list[Token]:
    first = tokens[:1]
    return tokens[3:] if first and first[0].type == "heading_open" and first[0].tag == "h1" else tokens


def _is_plot(tokens: Sequence[Token], place: int) -> bool:
    """Whether the paragraph that opens or closes here is one picture and nothing else."""
    inline = tokens[place + 1] if tokens[place].nesting == 1 else tokens[place - 1]
    return [child.type for child in inline.children or []] == ["image"]


def _text(path: Path) -> str:
    return read_file(path, MAX_REPORT_BYTES, "write it anew: speedrun tune SUB --report").decode(errors="replace")
