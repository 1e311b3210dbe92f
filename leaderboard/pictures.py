"""What the site's pages show of a board, a record or a method: charts made out of rows, and derived numbers."""

from __future__ import annotations

import datetime
from typing import Any

from markupsafe import Markup
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import DiffLexer

from leaderboard import charts
from leaderboard.board_page import BoardPage
from leaderboard.charts import Line, Mark, Rule
from leaderboard.lifelines import COUNTED_KINDS
from leaderboard.store import Board, Row

FULL = (1080, 358)  # widths on a desk and on a phone
HALF = (530, 358)  # where two charts stand side by side on a desk
FEW = 20  # records, for a chart against their number
FARTHEST = 2.0  # times as far as the record: a curve that goes farther would squeeze it


def progress(page: BoardPage, base: str) -> list[Markup]:
    """The progression chart, wide and narrow; none before there are two records with a date."""
    rows = [row for row in page.records if row["date"] and row["speedup"] and row["kind"] != "retiming"]
    if len(rows) < 2:
        return []
    numbered = by_number(page)
    marks = [
        Mark(
            row["number"] if numbered else datetime.date.fromisoformat(row["date"]).toordinal(), row["speedup"],
            _said(page.board, row), f"{base}{row['record'].rpartition('/')[2]}.html",
            "" if row["kind"] in COUNTED_KINDS else "other", _limits(row),
        )
        for row in rows
    ]  # fmt: skip
    label = f"Speed-up over {page.board.speedup_over} against {'number' if numbered else 'date'}, {page.board.name}"
    return [charts.progression(marks, width, label, numbered) for width in FULL]


def by_number(page: BoardPage) -> bool:
    """Whether the progression of our own records is drawn against their numbers: several share a day, and are few."""
    days = {row["date"] for row in page.records}
    return not page.board.imported and len(days) < len(page.records) < FEW


def _limits(row: Row) -> tuple[float, float] | None:
    low, high = row["speedup_low"], row["speedup_high"]
    return (low, high) if low is not None and high is not None else None


def of_record(row: Row, parent: Row | None, first: Row) -> dict[str, list[Markup]]:
    """A record's charts, wide and narrow: its runs, and its median run's curve with its parent's and the first's."""
    made: dict[str, list[Markup]] = {"losses": [], "pairs": [], "runs": [], "steps": [], "seconds": []}
    losses = [(run[0], run[1]) for run in row["run_list"] or () if run[3] and run[1] is not None]
    if len(losses) > 1:
        label = f"Losses of {len(losses)} runs against the target {row['target']:g}"
        rules = [Rule("target", row["target"], "target"), Rule("mean", row["loss_mean"], "mean")]
        made["losses"] = [charts.strip(losses, rules, width, label) for width in FULL]
    pairs = [(f"pair {number}", ratio) for number, ratio in enumerate(row["pair_ratios"] or (), 1)]
    if pairs:
        rules = [Rule("as fast", 1.0, "target"), Rule("at equal loss", row["ratio"], "mean")]
        label = f"Time of the parent over that of the record in {len(pairs)} pairs"
        made["pairs"] = [charts.strip(pairs, rules, width, label) for width in FULL]
    made["runs"] = _race(row)
    for name, index, unit in (("steps", 0, "optimizer steps"), ("seconds", 2, "seconds of training")):
        lines = [_curve(row, index, "this record", "")]
        for other, kind in ((parent, "parent"), (first, "first")):
            if other is not None and other is not row and (name == "steps" or _same_machine(row, other)):
                lines.insert(0, _curve(other, index, f"{kind}, {other['record']}", kind))
        drawn = [line for line in lines if len(line.points) > 2]
        if drawn:
            drawn = [line for line in drawn if line.points[-1][0] <= FARTHEST * drawn[-1].points[-1][0]]
        if drawn and drawn[-1].name == "this record":
            label = f"Validation loss against {unit}"
            made[name] = [charts.curves(drawn, row["target"], width, label, unit) for width in HALF]
    return made


def _race(row: Row) -> list[Markup]:
    """Loss against seconds of every run of a race, of both sides; none for what was not raced."""
    groups = []
    for arm, name, kind in (("reference", "parent", "parent"), ("candidate", "this record", "")):
        ended = [run for run in row["run_list"] or () if run[4] == arm and None not in (run[1], run[2])]
        if ended:
            groups.append(Line(name, [(run[2], run[1]) for run in ended], kind))
    if not groups:
        return []
    label = "Loss against seconds of every run of the race"
    return [charts.scatter(groups, row["target"], width, label, "seconds on the clock") for width in FULL]


def split(row: Row, parent: Row | None) -> dict[str, float] | None:
    """Why it is faster: the time ratio to the parent as fewer steps times faster steps, from the logs of both."""
    if parent is None or row["score_unit"] != "seconds" or not _same_machine(row, parent):
        return None
    if any(each["log"] != "own" or not each["time_mean"] or not each["steps"] for each in (row, parent)):
        return None
    time = parent["time_mean"] / row["time_mean"]
    steps = parent["steps"] / row["steps"]
    return {"time": time, "steps": steps, "speed": time / steps}


def lifeline_rows(page: BoardPage, methods: list[Row]) -> list[dict[str, Any]]:
    """One row a method: its lifeline, that as a bar, and what it was worth when it came."""
    worth = {(method["method"], method["introduced"]): method for method in methods}
    last = max((row["number"] for row in page.records), default=1)
    rows = []
    for line in page.lifelines:
        end = line.span.dropped.record if line.span.dropped else None
        until = f"to {end}" if end else "and stands"
        later = [one.span for one in page.lifelines if one.id in line.kin]
        kin = [
            (span.introduced.record, span.dropped.record if span.dropped else None)
            for span in later
            if span.introduced.record >= line.span.introduced.record
        ]
        label = f"record {line.span.introduced.record} {until}"
        bar = charts.lifeline(line.span.introduced.record, end, last, kin, label)
        rows.append({"line": line, "bar": bar, "worth": worth[line.id, line.span.introduced.record]})
    return rows


def _same_machine(row: Row, parent: Row) -> bool:
    """Whether seconds of the two may be set side by side: both on machines of one known kind, perhaps not the same."""
    return all(row[name] is not None and row[name] == parent[name] for name in ("machine", "gpus"))


_LEXER, _FORMATTER = DiffLexer(), HtmlFormatter(nowrap=True)  # making a formatter takes longer than most diffs


def highlighted(diff: list[str]) -> Markup:
    """A unified diff as HTML; Pygments escapes what is in it."""
    return Markup(highlight("\n".join(diff), _LEXER, _FORMATTER))


def _said(board: Board, row: Row) -> str:
    number = row["record"].rpartition("/")[2]
    score = f"{board.shown_score(row['score'])} {board.shown_unit}, {row['speedup']:.2f}x"
    return f"{number}, {row['date']}: {score}. {row['title']}"


def _curve(row: Row, index: int, name: str, kind: str) -> Line:
    points = [(p[index], p[1]) for p in row["curve"] or () if p[index] is not None and p[1] is not None]
    return Line(name, points, kind)
