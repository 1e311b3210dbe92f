"""What the site's pages show of a board, a record or a method: charts made out of rows, and derived numbers."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

from markupsafe import Markup
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import DiffLexer

from leaderboard import charts
from leaderboard.charts import Line, Mark, Rule
from leaderboard.store import Board, Row

if TYPE_CHECKING:
    from leaderboard.site import BoardPage

FULL = (1080, 358)  # widths on a desk and on a phone
HALF = (530, 358)  # where two charts stand side by side on a desk


def progress(page: BoardPage, base: str) -> list[Markup]:
    """The progression chart, wide and narrow; none before there are two records with a date."""
    rows = [row for row in page.records if row["date"] and row["speedup"] and row["kind"] != "retiming"]
    if len(rows) < 2:
        return []
    marks = [
        Mark(
            datetime.date.fromisoformat(row["date"]).toordinal(), row["speedup"], _said(page.board, row),
            f"{base}{row['record'].rpartition('/')[2]}.html", "" if row["kind"] == "record" else "other",
        )
        for row in rows
    ]  # fmt: skip
    label = f"Speed-up over the first record against date, {page.board.name}"
    return [charts.progression(marks, width, label) for width in FULL]


def of_record(row: Row, parent: Row | None) -> dict[str, list[Markup]]:
    """A record's charts, wide and narrow: its runs' losses, and its median run's curve with its parent's."""
    made: dict[str, list[Markup]] = {"losses": [], "pairs": [], "steps": [], "seconds": []}
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
    for name, index, unit in (("steps", 0, "optimizer steps"), ("seconds", 2, "seconds of training")):
        lines = [_curve(row, index, "this record", "")]
        if parent is not None and (name == "steps" or _same_machine(row, parent)):
            lines.insert(0, _curve(parent, index, f"parent, {parent['record']}", "parent"))
        drawn = [line for line in lines if len(line.points) > 2]
        if drawn and drawn[-1].name == "this record":
            label = f"Validation loss against {unit}"
            made[name] = [charts.curves(drawn, row["target"], width, label, unit) for width in HALF]
    return made


def split(row: Row, parent: Row | None) -> dict[str, float] | None:
    """Why it is faster: the time ratio to the parent as fewer steps times faster steps, from the logs of both."""
    if parent is None or row["score_unit"] != "seconds" or not _same_machine(row, parent):
        return None
    if any(each["log"] != "own" or not each["time_mean"] or not each["steps"] for each in (row, parent)):
        return None
    time = parent["time_mean"] / row["time_mean"]
    steps = parent["steps"] / row["steps"]
    return {"time": time, "steps": steps, "speed": time / steps}


def lifeline_rows(page: BoardPage) -> list[dict[str, Any]]:
    """One row a method: its lifeline, and that as a bar."""
    last = max((row["number"] for row in page.records), default=1)
    by_id = {line.id: line for line in page.lifelines}
    rows = []
    for line in page.lifelines:
        end = line.span.dropped.record if line.span.dropped else None
        until = f"to {end}" if end else "and stands"
        kin = [
            (k.introduced.record, k.dropped.record if k.dropped else None) for k in (by_id[n].span for n in line.kin)
        ]
        label = f"record {line.span.introduced.record} {until}"
        rows.append({"line": line, "bar": charts.lifeline(line.span.introduced.record, end, last, kin, label)})
    return rows


def _same_machine(row: Row, parent: Row) -> bool:
    """Whether seconds of the two may be set side by side: both on machines of one known kind, perhaps not the same."""
    return all(row[name] is not None and row[name] == parent[name] for name in ("machine", "gpus"))


def highlighted(diff: list[str]) -> Markup:
    """A unified diff as HTML; Pygments escapes what is in it."""
    return Markup(highlight("\n".join(diff), DiffLexer(), HtmlFormatter(nowrap=True)))


def _said(board: Board, row: Row) -> str:
    number = row["record"].rpartition("/")[2]
    score = f"{board.shown_score(row['score'])} {board.shown_unit}, {row['speedup']:.2f}x"
    return f"{number}, {row['date']}: {score}. {row['title']}"


def _curve(row: Row, index: int, name: str, kind: str) -> Line:
    points = [(p[index], p[1]) for p in row["curve"] or () if p[index] is not None and p[1] is not None]
    return Line(name, points, kind)
