"""How a campaign is shown while it runs: a table redrawn in place on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from harness.cli import output
from harness.cli.progress import Progress
from harness.core.plan import Event
from harness.evidence.course import JUDGED, Block, RunLine
from harness.evidence.folder import Campaign
from harness.evidence.plans import CANDIDATE, REFERENCE, CalibrationCampaign, DecidedCampaign
from harness.evidence.race import decide_campaign, log_ratio_of_pair, time_left
from harness.statistics import Decision, Interval
from harness.statistics.ratio import LARGEST_LOG

READABLE_RATIO = 1000  # two pairs that differ much say nothing at all
PAIR_COLUMNS = ("pair", "candidate s", "reference s", "candidate loss", "reference loss", "ratio", "")


class CampaignProgress(Progress):
    """The line of the run under way, below what the campaign has so far. A warning is shown once."""

    def __init__(self, silent: bool = False) -> None:
        super().__init__(silent)
        self._above: RenderableType = Text("")
        self._noted: set[str] = set()

    def report(self, above: RenderableType, plain: Sequence[str]) -> None:
        """What the campaign has so far: drawn on a terminal, as `plain` lines elsewhere."""
        self._above = above
        if not self._drawn and not self._silent:
            for text in plain:
                output.note(text)

    def _take(self, event: Event) -> None:
        if event.kind == "note":
            warning = event.values["text"].partition(":")[0]
            if warning in self._noted:
                return
            self._noted.add(warning)
        super()._take(event)

    def _show(self, text: str, now: bool = False) -> None:
        if self._drawn:
            self._live.update(Group(self._above, Text(output.clean(text))), refresh=True)


class RaceView:
    """Shows a race as it goes: pairs, interval so far, looks and time left."""

    def __init__(self, progress: CampaignProgress, campaign: Campaign[DecidedCampaign]) -> None:
        self._progress = progress
        self._campaign = campaign
        self._pairs_shown = len(campaign.course.blocks)

    def __call__(self, line: RunLine) -> None:
        course = self._campaign.course
        rows = pair_rows(self._campaign)
        status = self._status()
        plain = [describe_run(line, len(self._campaign.plan.blocks))]
        if len(course.blocks) > self._pairs_shown:
            self._pairs_shown = len(course.blocks)
            plain += status
        above = Group(output.drawn_table(PAIR_COLUMNS, rows), *(Text(text) for text in status))
        self._progress.report(above, plain)

    def _status(self) -> list[str]:
        plan, pairs = self._campaign.plan, len(self._campaign.course.blocks)
        decision = decide_campaign(plan, self._campaign.course)
        left = time_left(plan, self._campaign.lines, pairs)
        looks = f"next look after {decision.next_look}, {decision.looks_left} looks left"
        times = f"{duration(left.next_look)} to it, at most {duration(left.maximum)}"
        return [f"done {pairs}: {_so_far(decision)}", f"{looks}; {times}" if decision.next_look else "the last look"]


def _so_far(decision: Decision) -> str:
    ratio = "" if decision.faster is None else f"ratio at equal loss {interval(decision.faster.interval)}; "
    return f"{ratio}reaches the target: p {decision.target.p if decision.target else 1.0:.3g}"


class CalibrationView:
    """Shows the runs of a calibration."""

    def __init__(self, progress: CampaignProgress, campaign: Campaign[CalibrationCampaign]) -> None:
        self._progress = progress
        self._campaign = campaign

    def __call__(self, line: RunLine) -> None:
        plan, lines = self._campaign.plan, self._campaign.lines
        columns = ("run", "budget", "seconds", "loss", "")
        rows = [
            (f"{done.block + 1}", done.arm, output.fixed(done.seconds, 2), output.fixed(done.val_loss, 4), _end(done))
            for done in lines
        ]
        known = [done.total_seconds or 0.0 for done in lines]
        done_runs = sum(len(block.runs) for block in self._campaign.course.blocks)
        remaining = (len(plan.schedule) - done_runs) * sum(known) / len(known)
        left = f"about {duration(remaining)} left"
        self._progress.report(
            Group(output.drawn_table(columns, rows), Text(left)), [f"{describe_run(line, len(plan.blocks))}; {left}"]
        )


def pair_rows(campaign: Campaign[DecidedCampaign]) -> list[tuple[str, ...]]:
    """A row for every pair that is done."""
    return [_pair_row(number, block, campaign) for number, block in enumerate(campaign.course.blocks, start=1)]


def _pair_row(number: int, block: Block, campaign: Campaign[DecidedCampaign]) -> tuple[str, ...]:
    candidate, reference = block.runs[CANDIDATE], block.runs.get(REFERENCE)
    ratio = log_ratio_of_pair(block, campaign.plan.calibration.slope)
    notes = [f"{arm}: {line.status}" for arm, line in block.runs.items() if line.status != JUDGED]
    if block.attempts > 1:
        notes.append(f"repeated {block.attempts - 1}x" + (", still disturbed" if block.disturbed else ""))
    return (
        str(number), output.fixed(candidate.seconds, 2), output.fixed(reference and reference.seconds, 2),
        output.fixed(candidate.val_loss, 4), output.fixed(reference and reference.val_loss, 4),
        "" if ratio is None else _ratio(math.exp(min(ratio, LARGEST_LOG))), "; ".join(notes),
    )  # fmt: skip


def describe_run(line: RunLine, blocks: int) -> str:
    """A finished run in a line."""
    again = f", repetition {line.attempt - 1}" if line.attempt > 1 else ""
    figures = f"{line.seconds:.2f} s, loss {line.val_loss:.4f}" if line.seconds and line.val_loss else _end(line)
    return f"{line.block + 1} of {blocks}{again}: {line.arm} {figures}"


def _end(line: RunLine) -> str:
    return "" if line.status == JUDGED else line.status


def interval(found: Interval) -> str:
    """A ratio with its limits."""
    return f"{_ratio(found.ratio)} ({_ratio(found.low)} to {_ratio(found.high)})"


def _ratio(value: float) -> str:
    return f"{value:.4f}" if value < READABLE_RATIO else f"over {READABLE_RATIO:,}"


def duration(seconds: float) -> str:
    """A time for people who wait: "40 s", "12 min", "3.5 h"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
