"""The `speedrun` command. One file per verb; every verb imports what is heavy only when it runs.

Exit codes: 0 done, 1 a check failed or something the user can fix, 2 usage, 130 interrupted.
"""

from __future__ import annotations

import signal
import sys
from types import FrameType

import typer

from harness.cli import board, check, data, doctor, journal, new, output, run
from harness.errors import UserError

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
    try:
        app()
    except UserError as error:
        output.errors.print(f"error: {output.clean(str(error))}", markup=False, style="red")
        sys.exit(1)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Being asked to end is an interrupt like Ctrl-C: the run is ended, kept and journalled."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
