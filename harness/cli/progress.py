"""One line that follows a run: state, step, train loss, tokens per second, elapsed and remaining time."""

from __future__ import annotations

import time
from types import TracebackType

from rich.live import Live
from rich.text import Text

from harness.cli import output
from harness.core.plan import Event

PLAIN_SECONDS = 10.0  # how often a line is printed where there is no terminal


class Progress:
    """Takes the referee's events. On a terminal the line is redrawn in place; elsewhere it is printed now and then."""

    def __init__(self, silent: bool = False) -> None:
        self._silent = silent
        self._live = Live(console=output.errors, auto_refresh=False, transient=True)
        self._state = ""
        self._printed = 0.0

    def __enter__(self) -> Progress:
        if self._drawn:
            self._live.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._drawn:
            self._live.stop()

    def __call__(self, event: Event) -> None:
        if self._silent:
            return
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
            output.errors.print(output.clean(text), markup=False)


def describe_state(state: str) -> str:
    """What a state means to the person waiting."""
    return {
        "LAUNCHED": "set-up     imports, model, warm-up on synthetic tokens",
        "READY": "ready      start weights equal a fresh build",
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
        parts.append(f"step {step:,.0f}" + (f" of {steps:,.0f}" if steps else ""))
    if loss is not None:
        parts.append(f"train loss {loss:.4f}")
    if seconds > 0:
        parts.append(f"{tokens / seconds:,.0f} tokens/s")
    parts.append(f"{seconds:.0f} s elapsed")
    if step and steps and seconds > 0:
        parts.append(f"{seconds * (steps - step) / step:.0f} s remaining")
    return "  ".join(parts)
