"""The `speedrun` command. One file per verb; every verb imports what is heavy only when it runs.

Exit codes: 0 done, 1 a check failed or something the user can fix, 2 usage, 130 interrupted.
"""

from __future__ import annotations

import io
import signal
import sys
import threading
from types import FrameType
from typing import Any

import typer

from harness.cli import board, check, data, doctor, journal, new, output, run
from harness.errors import UserError

# typer exports only the class that is made from this one, which moved from click into typer itself.
USAGE_ERROR: Any = typer.BadParameter.__bases__[0]

app = typer.Typer(
    help="Race training scripts to a fixed validation loss: frozen data, clock and evaluation.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(run.run)
app.command()(new.new)
app.command()(check.check)
app.command()(doctor.doctor)
app.command()(board.board)
app.add_typer(data.app, name="data")
app.add_typer(journal.app, name="journal")


def main() -> None:
    """Runs the command line; the one place where a UserError becomes a line and an exit code."""
    signal.signal(signal.SIGTERM, _interrupt)
    sys.excepthook = output.show_traceback
    threading.excepthook = lambda raised: output.show_traceback(*raised[:3])
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal without UTF-8 shows names too
    try:
        sys.exit(app(standalone_mode=False))
    except UserError as error:
        output.error(error)
        sys.exit(1)
    except USAGE_ERROR as error:
        said = io.StringIO()
        error.show(said)  # quotes the command line
        output.usage(said.getvalue())
        sys.exit(error.exit_code)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Being asked to end is an interrupt like Ctrl-C: the run is ended, kept and journalled."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
