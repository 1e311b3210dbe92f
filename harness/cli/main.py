"""The `speedrun` command. One file per verb; every verb imports what is heavy only when it runs.

Exit codes: 0 done, 1 a check failed or something the user can fix, 2 usage, 130 interrupted.
"""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

import typer

from harness.cli import (
    ablate,
    board,
    budget,
    calibrate,
    check,
    data,
    doctor,
    import_logs,
    journal,
    methods,
    new,
    output,
    race,
    records,
    rehearse,
    resume,
    revert,
    run,
    submit,
    tune,
    verify,
)
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
app.command()(tune.tune)
app.command()(budget.budget)
app.command()(new.new)
app.command()(check.check)
app.command()(race.race)
app.command()(submit.submit)
app.command()(verify.verify)
app.command()(ablate.ablate)
app.command()(revert.revert)
app.command()(resume.resume)
app.command()(calibrate.calibrate)
app.command()(rehearse.rehearse)
app.command()(doctor.doctor)
app.command()(methods.methods)
app.command("import-logs")(import_logs.import_logs)
app.add_typer(board.app, name="board")
app.add_typer(data.app, name="data")
app.add_typer(journal.app, name="journal")
app.add_typer(records.app, name="records")


def main() -> None:
    """Runs the command line; the one place where a UserError becomes a line and an exit code."""
    interrupt = _Interrupt()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    sys.excepthook = output.show_traceback
    threading.excepthook = lambda raised: output.show_traceback(*raised[:3])
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal without UTF-8 shows names too
    try:
        sys.exit(app(standalone_mode=False))
    except UserError as error:
        output.error(error)
        sys.exit(1)
    except (KeyboardInterrupt, typer.Abort):
        output.note("interrupted")
        sys.exit(output.INTERRUPTED)
    except USAGE_ERROR as error:
        said = io.StringIO()
        error.show(said)  # quotes the command line
        output.usage(said.getvalue())
        sys.exit(error.exit_code)


class _Interrupt:
    """Ctrl-C and the request to end (SIGTERM). The first ends the command in order: a run is kept and journalled.

    That takes seconds at most, and a second one must not break it off. The third does: the next command tidies up.
    """

    def __init__(self) -> None:
        self._times = 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self._times += 1
        if self._times == 1:
            raise KeyboardInterrupt
        if self._times == 2:
            os.write(sys.stderr.fileno(), b"ending in order, which takes seconds; once more ends it at once\n")
            return
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


if __name__ == "__main__":
    main()
