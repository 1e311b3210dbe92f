"""One line that follows a run: state, step, train loss, tokens per second, elapsed and remaining time."""

from __future__ import annotations

import queue
import threading
import time
from types import TracebackType
from typing import Self

from rich.live import Live
from rich.text import Text

from harness.cli import output
from harness.core.plan import Event

LAST_SECONDS = 2.0  # how long the end waits for a terminal that stands still
READABLE = 1e15  # larger numbers are shown in short: they are mistakes, or meant to flood the line
PLAIN_SECONDS = 10.0  # how often a line is printed where there is no terminal


class Progress:
    """Takes the referee's events. On a terminal the line is redrawn in place; elsewhere it is printed now and then.

    Events are shown by a thread of its own: a terminal that stands still must not stop the referee's loop.
    """

    def __init__(self, silent: bool = False) -> None:
        self._silent = silent
        self._live = Live(console=output.errors, auto_refresh=False, transient=True)
        self._state = ""
        self._printed = 0.0
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Self:
        if self._drawn:
            self._live.start()
        self._thread.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._events.put(None)
        self._thread.join(LAST_SECONDS)
        if self._drawn:
            self._live.stop()

    def __call__(self, event: Event) -> None:
        if not self._silent:
            self._events.put(event)

    def _follow(self) -> None:
        while (event := self._events.get()) is not None:
            self._take(event)

    def _take(self, event: Event) -> None:
        values = event.values
        if event.kind == "note":
            output.warn(f"warning: {values['text']}")
        elif event.kind == "state":
            self._state = values["state"]
            self._show(describe_state(self._state), now=True)
        elif event.kind == "log" and values["rows"]:
            self._show(describe_row(values["rows"][-1]))
        elif event.kind == "judging":
            self._show(f"judging   batch {values['batch']:,} of {values['batches']:,}")

    @property
    def _drawn(self) -> bool:
        return output.errors.is_terminal and not self._silent

    def _show(self, text: str, now: bool = False) -> None:
        if self._drawn:
            self._live.update(Text(output.clean(text)), refresh=True)
        elif now or time.monotonic() - self._printed > PLAIN_SECONDS:
            self._printed = time.monotonic()
            output.note(text)


def describe_state(state: str) -> str:
    """What a state means to the person waiting."""
    return {
        "COMPILING": "compiling  filling the submission's compile cache, without data",
        "LAUNCHED": "set-up     imports, model, warm-up on synthetic tokens",
        "READY": "ready      comparing the start weights with a fresh build",
        "RUNNING": "running    the clock has started, the data is out",
        "FINISHED": "finished   weights sealed, clock stopped; judging",
        "JUDGED": "judged",
        "FAILED": "failed",
    }[state]


def describe_row(row: dict[str, float | None]) -> str:
    """A log row as a line; rates and remaining time follow from the harness's own columns."""
    seconds, tokens = row.get("seconds") or 0.0, row.get("tokens") or 0
    step, steps, loss = row.get("step"), row.get("steps"), row.get("loss")
    parts = ["running   "]
    if step is not None:
        parts.append(f"step {_count(step)}" + (f" of {_count(steps)}" if steps else ""))
    if loss is not None:
        parts.append(f"train loss {loss:.4f}" if abs(loss) < READABLE else f"train loss {loss:.3g}")
    if seconds > 0:
        parts.append(f"{_count(tokens / seconds)} tokens/s")
    parts.append(f"{_count(seconds)} s elapsed")
    if step and steps and seconds > 0:
        parts.append(f"{_count(seconds * ((steps - step) / step))} s remaining")
    return "  ".join(parts)


def _count(value: float) -> str:
    """A whole number for people; a script may log any."""
    return f"{value:,.0f}" if abs(value) < READABLE else f"{value:.3g}"
