"""`speedrun check SUB`: every rule that a submission must fulfil, from cheap to dear. Needs no corpus and no GPU."""

from __future__ import annotations

import shutil
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli import options, output

if TYPE_CHECKING:
    from harness.checks.check import Checker, Result

WIDTH = 80
MAX_WIDTH = 120
ID_WIDTH = 20
KIND_WIDTH = 24
KIND_STYLE = {"prevented": "green", "detected": "cyan", "recorded": "yellow"}
STYLE = {"ok": "green", "FAILED": "bold red", "skipped": "dim"}


def check(
    submission: Annotated[
        str | None, typer.Argument(metavar="SUB", help="Folder, name, or `baseline`.", show_default=False)
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Print all rules, and all known ways to cheat.")] = False,
    setting: options.Set = None,
    hardware: options.HardwareName = options.DEFAULT_CLASS,
    task: Annotated[str | None, typer.Option(help="Another task file than the submission names.")] = None,
    as_json: options.Json = False,
) -> None:
    """Check a submission against every rule, in minutes, before its first run.

    --set makes a large model small enough for a laptop. `speedrun submit` checks it as it is declared.
    """
    if explain:
        print_rules()
        output.line()
        print_cheats()
    if submission is None:
        if not explain:
            raise typer.BadParameter("name a submission, or use --explain")
        return
    from harness.checks.check import Checker
    from harness.core.task import hardware_class, load_task
    from harness.machine import fingerprint, require_gpus

    require_gpus(hardware_class(hardware), fingerprint())
    folder = options.submission_folder(submission)
    waiting = _Waiting(silent=as_json)
    checker = Checker(folder, load_task(task) if task else None, hardware, waiting.show, setting or [])
    began = time.monotonic()
    results = []
    with waiting:
        for result in checker.results():
            results.append(result)
            if not as_json:
                _print(result)
    seconds = time.monotonic() - began
    if as_json:
        output.as_json(_report(folder, checker, results, seconds))
    else:
        _print_end(results, seconds)
    if any(result.failures for result in results):
        raise typer.Exit(1)


def print_rules() -> None:
    """All rules: what each asks for, why, and the remedy."""
    from harness.checks.rules import RULES

    stage, width = "", _page_width()
    for rule in RULES:
        if rule.stage != stage:
            stage = rule.stage
            output.line(f"Stage: {stage}", style="bold")
        _block(f"{rule.id:<{ID_WIDTH}} ", rule.what.replace("`", ""), width)
        _block(" " * (ID_WIDTH + 1), f"why: {rule.why}", width)
        _block(" " * (ID_WIDTH + 1), f"remedy: {rule.remedy.replace('`', '')}", width)


def print_cheats() -> None:
    """All known kinds of cheats: what each is, what stands against it, and what shows that."""
    from harness.checks.cheats import kinds, summary

    width = _page_width()
    output.line("Known ways to cheat, and what stands against them", style="bold")
    _block("", summary() + " A name is a submission in tests/cheats/ that tries it; behind it, how that ends.", width)
    for kind in kinds():
        output.line()
        output.line(f"{kind.id:<{KIND_WIDTH}} {kind.status}", style=KIND_STYLE[kind.status])
        _block("  ", kind.what, width)
        _block("  ", f"defence: {kind.defence.replace('`', '')}", width)
        if kind.shown_by:
            shown = ", ".join(kind.shown_by).replace("::", ": ")  # a test's path and name may stand on two lines
            _block("  shown by: ", shown, width)


def _page_width() -> int:
    """Columns for text that people read at length: the terminal's, within reason."""
    return min(max(shutil.get_terminal_size((WIDTH, 24)).columns, WIDTH), MAX_WIDTH)


class _Waiting:
    """A line on a terminal that says what is being done, and for how long already."""

    def __init__(self, silent: bool) -> None:
        from rich.progress import Progress, TextColumn, TimeElapsedColumn

        drawn = output.errors.is_terminal and not silent
        columns = (TextColumn("{task.description}", markup=False), TimeElapsedColumn())
        self._progress = Progress(*columns, console=output.errors, transient=True, disable=not drawn)
        self._line = self._progress.add_task("reading")

    def show(self, text: str) -> None:
        self._progress.update(self._line, description=output.clean(text))

    def __enter__(self) -> _Waiting:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()


def _print(result: Result) -> None:
    line = f"{result.status:<8} {result.rule.id:<{ID_WIDTH}} {result.seconds:5.1f} s"
    reason = result.skipped or result.note
    output.line(line + (f"  {reason}" if len(line) + 2 + len(reason) <= WIDTH and reason else ""), STYLE[result.status])
    if reason and len(line) + 2 + len(reason) > WIDTH:
        _block(" " * 9, reason)
    for finding in result.failures:
        _block(" " * 9, finding.message)
        if finding.remedy:
            _block(" " * 9, f"remedy: {finding.remedy}")
    if result.failures:
        _block(" " * 9, f"why the rule: {result.rule.why}")
        _block(" " * 9, f"remedy: {result.rule.remedy}")
    for warning in result.warnings:
        _block(" " * 9, f"warning: {warning}")


def _print_end(results: list[Result], seconds: float) -> None:
    failed = [result.rule.id for result in results if result.failures]
    output.line()
    if failed:
        _block("", f"FAILED: {', '.join(failed)} ({seconds:.0f} s)")
    else:
        skipped = sum(result.status == "skipped" for result in results)
        output.line(f"passed: {len(results) - skipped} rules, {skipped} skipped ({seconds:.0f} s)", style="green")


def _block(indent: str, text: str, width: int = WIDTH) -> None:
    """Text folded to `width` columns; the first line begins with `indent`, further ones align under it."""
    first, further = indent, " " * len(indent)
    for paragraph in text.splitlines():
        for line in textwrap.wrap(paragraph, width, initial_indent=first, subsequent_indent=further) or [first]:
            output.line(line)
        first = further


def _report(folder: Path, checker: Checker, results: list[Result], seconds: float) -> dict[str, Any]:
    loaded = checker.submission
    return {
        "status": "failed" if any(result.failures for result in results) else "passed",
        "submission": str(folder),
        "digest": loaded.digest if loaded else None,
        "task": loaded.task.name if loaded else None,
        "seconds": round(seconds, 1),
        "rules": [
            {
                "id": result.rule.id,
                "stage": result.rule.stage,
                "status": result.status,
                "failures": [
                    {"message": finding.message, "remedy": finding.remedy or result.rule.remedy}
                    for finding in result.failures
                ],
                "warnings": result.warnings,
                "note": result.skipped or result.note,
                "seconds": result.seconds,
            }
            for result in results
        ],
    }
