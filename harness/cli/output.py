"""What every verb prints with: plain lines, tables, one JSON object. Foreign text is made harmless first."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

PIPE_WIDTH = 200  # a table that goes to a file or program is not folded to a terminal's 80 columns

console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else PIPE_WIDTH)
errors = Console(highlight=False, soft_wrap=True, stderr=True)


def clean(text: str) -> str:
    """Control characters made visible, so that no child's output can steer the terminal."""
    return "".join(char if char.isprintable() or char in "\n\t" else repr(char)[1:-1] for char in text)


def line(text: str = "", style: str | None = None) -> None:
    """One line of plain text; markup in it is not interpreted."""
    console.print(escape(clean(text)), style=style)


def warn(text: str) -> None:
    """A warning on standard error."""
    errors.print(escape(clean(text)), style="yellow")


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None) -> None:
    """A table; columns whose cells are all numbers are aligned to the right."""
    cells = [[clean(str(cell)) for cell in row] for row in rows]
    drawn = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        numeric = bool(cells) and all(_is_number(row[index]) for row in cells)
        drawn.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for texts in cells:
        drawn.add_row(*(escape(text) for text in texts))
    console.print(drawn)


def as_json(value: Any) -> None:
    """One JSON object on standard output, for programs."""
    sys.stdout.write(json.dumps(value, indent=2, sort_keys=False) + "\n")


def _is_number(cell: str) -> bool:
    return cell.strip("-+%,.xs ").replace(",", "").replace(".", "").isdigit() or cell in {"", "-"}
