"""What every verb prints with: plain lines, tables, one JSON object. Foreign text is made harmless first.

Names, titles, log columns and output come from submissions that anybody wrote. They reach the terminal only
through `clean`: control and escape sequences, bidi overrides, surrogates and line breaks are shown as `\\x1b`, so
that no text can steer the terminal, hide a part of a line or pass for a line of ours. rich gets `Text` and never
markup.
"""

from __future__ import annotations

import csv
import json
import math
import sys
import textwrap
import traceback
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.errors import UserError
from harness.text import clean

INTERRUPTED = 130  # exit code after Ctrl-C, as shells have it
PIPE_WIDTH = 200  # a table that goes to a file or program is not folded to a terminal's 80 columns
CELL_CHARACTERS = 200
QUOTE = "  | "

console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else PIPE_WIDTH)
errors = Console(highlight=False, soft_wrap=True, stderr=True)


def clean_lines(text: str) -> str:
    """Text of several lines, each clean; all but the first are marked as quoted, so that none passes for ours."""
    first, *others = (clean(line.rstrip("\r").expandtabs(4)) for line in text.split("\n"))
    return "\n".join([first, *(QUOTE + other for other in others)])


def line(text: str = "", style: str | None = None) -> None:
    """One line of plain text; markup in it is not interpreted."""
    _print(console, clean(text), style)


def lines(text: str, style: str | None = None) -> None:
    """Plain text of several lines, such as the end of a script's output."""
    _print(console, clean_lines(text), style)


def warn(text: str) -> None:
    """A warning on standard error."""
    _print(errors, clean_lines(text), "yellow")


def note(text: str) -> None:
    """A line on standard error that is no warning."""
    _print(errors, clean(text), None)


def error(failed: UserError) -> None:
    """What the user can put right, and how, on standard error."""
    remedy = f"\n  remedy: {clean(failed.remedy)}" if failed.remedy else ""
    _print(errors, f"error: {clean_lines(failed.message)}{remedy}", "red")


def usage(text: str) -> None:
    """What typer says about a command line that it does not take, on standard error."""
    for said in text.rstrip("\n").split("\n"):
        _print(errors, clean(said), None)


def show_traceback(kind: type[BaseException], raised: BaseException | None, trace: TracebackType | None = None) -> None:
    """For `sys.excepthook`: an error of ours keeps its traceback, which may quote foreign text too."""
    for part in "".join(traceback.format_exception(kind, raised, trace)).rstrip("\n").split("\n"):
        _print(errors, clean(part), None)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None) -> None:
    """A table; columns whose cells are all numbers are aligned to the right, long cells are cut."""
    console.print(drawn_table(columns, rows, title))


def drawn_table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None) -> Table:
    """What `table` prints, for a display that is redrawn."""
    cells = [[_cell(cell) for cell in row] for row in rows]
    heading = None if title is None else Text(clean(title))
    drawn = Table(title=heading, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        numeric = bool(cells) and all(_is_number(row[index]) for row in cells)
        drawn.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for texts in cells:
        drawn.add_row(*(Text(text) for text in texts))
    return drawn


def as_json(value: Any) -> None:
    """One JSON object on standard output, for programs: ASCII, and null for what is no finite number."""
    sys.stdout.write(json.dumps(_finite(value), indent=2, allow_nan=False) + "\n")


def as_csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Rows on standard output for programs: a list is joined by semicolons, what is missing is empty."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_csv_cell(row.get(column)) for column in columns])


def paragraph(text: str, indent: int = 0, style: str | None = None) -> None:
    """One line of text folded to the terminal's width between words; every line is indented."""
    paragraph_after(" " * indent, text, style)


def paragraph_after(start: str, text: str, style: str | None = None) -> None:
    """The same, the first line after `start` and the others indented by as much."""
    width, first, margin = max(console.width, len(start) + 20), clean(start), " " * len(start)
    wrapper = textwrap.TextWrapper(width, initial_indent=first, subsequent_indent=margin)
    wrapper.break_on_hyphens = wrapper.break_long_words = False  # names and addresses stay whole, to be copied
    folded = wrapper.wrap(clean(text))
    for part in folded or [first.rstrip()]:
        _print(console, part, style)


def fixed(value: object, digits: int) -> str:
    """A number with that many decimals; empty for what is no number, or none that a person could read."""
    readable = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15
    return f"{value:,.{digits}f}" if readable else ""


def _print(to: Console, text: str, style: str | None) -> None:
    to.print(Text(text, style or ""))


def _cell(value: object) -> str:
    text = clean(str(value)[: CELL_CHARACTERS + 1])
    return text if len(text) <= CELL_CHARACTERS else f"{text[:CELL_CHARACTERS]}…"


def _csv_cell(value: object) -> str:
    if isinstance(value, list | tuple):
        return ";".join(_csv_cell(item) for item in value)
    return "" if value is None else clean(str(value))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _is_number(cell: str) -> bool:
    return cell.strip("-+%,.xs ").replace(",", "").replace(".", "").isdigit() or cell in {"", "-"}
