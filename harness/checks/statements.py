"""What a method costs in lines and memory: which statements a short run executes with it on and not with it off.

The run is a dry run on made-up data, traced from inside (`traced.py`). A statement is known by its file and first line.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.checks.runs import Trials
from harness.checks.traced import LINE, MARKER
from harness.core.task import HardwareClass
from harness.errors import UserError
from harness.submission import Submission

STEPS = 3
SCRIPT = "train.py"
BUDGET = "steps"  # the hyperparameter set to 3, so that the script comes to its own end

Statements = frozenset[tuple[str, int]]  # file and first line


@dataclass(frozen=True)
class Executed:
    """What a short run went through, and the most bytes it held: on the GPU, or resident."""

    statements: Statements
    peak_memory: int


@dataclass(frozen=True)
class Difference:
    """What dropping methods takes away.

    own: statements executed with them on and not with them off, and that nothing else dropped alone takes away; shared:
    those that another method, dropped by itself, takes away too. Peak memory in bytes, with and without.
    """

    own: Statements
    shared: Statements
    executed: int
    peak_memory: int
    peak_memory_without: int


class Counter:
    """Runs one submission with methods dropped, each set once; everything lies in a folder that the caller removes."""

    def __init__(self, submission: Submission, hardware: HardwareClass, folder: Path) -> None:
        self._submission = submission
        self._trials = Trials(submission, hardware, folder)
        self._done: dict[frozenset[str], Executed | UserError] = {}

    def difference(self, dropped: Sequence[str]) -> Difference:
        """What dropping these methods takes away. Raises UserError where the submission cannot run without them."""
        methods = self._submission.manifest.methods
        others = [name for name, method in methods.items() if method.default and name not in dropped]
        everything, rest = self._run([]), self._run(dropped)
        gone = everything.statements - rest.statements
        elsewhere: set[tuple[str, int]] = set()
        for name in others:
            try:
                elsewhere |= everything.statements - self._run([name]).statements
            except UserError:
                continue  # it cannot be dropped by itself, so it takes nothing away
        return Difference(
            gone - elsewhere, gone & elsewhere, len(everything.statements), everything.peak_memory, rest.peak_memory
        )

    def _run(self, dropped: Sequence[str]) -> Executed:
        key = frozenset(dropped)
        if key not in self._done:
            try:
                self._done[key] = self._traced(dropped)
            except UserError as error:
                self._done[key] = error
        done = self._done[key]
        if isinstance(done, UserError):
            raise done
        return done

    def _traced(self, dropped: Sequence[str]) -> Executed:
        steps = self._submission.manifest.hparams.get(BUDGET)
        known = steps is not None and isinstance(steps.default, int) and steps.problem_with(STEPS) is None
        outcome, output = self._trials.instrumented_run(dropped, [f"{BUDGET}={STEPS}"] if known else [], _instrument)
        without = f" without {', '.join(dropped)}" if dropped else ""
        if outcome.reason is not None:
            what = f"{self._submission.folder}: its short run{without} failed: {outcome.reason}: {outcome.message}"
            raise UserError(what, f"speedrun check {self._submission.folder} says more")
        told = [line.removeprefix(MARKER) for line in output.splitlines() if line.startswith(MARKER)]
        if not told:
            what = f"{self._submission.folder}: its short run{without} printed too much to tell what it executed"
            raise UserError(what, "print less")
        python = python_files(self._submission.files)
        first, added = {name: first_lines(content) for name, content in python.items()}, head(python[SCRIPT])
        tables = [json.loads(text) for text in told]
        lines = {
            (name, line - 1 if name == SCRIPT and line > added else line)
            for table in tables
            for name, line in table["lines"]
            if (name, line) != (SCRIPT, added)
        }
        statements = {(name, first[name][line]) for name, line in lines if line in first.get(name, {})}
        return Executed(frozenset(statements), max(int(table["peak_memory"]) for table in tables))


def python_files(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The Python files of a submission."""
    return {name: content for name, content in files.items() if name.endswith(".py")}


def first_lines(source: bytes) -> dict[int, int]:
    """Maps every line of a statement to the statement's first line; a line of several goes to the innermost."""
    first: dict[int, int] = {}
    for node in ast.walk(ast.parse(source)):  # from the outside in
        if isinstance(node, ast.stmt):
            decorators = getattr(node, "decorator_list", [])
            begin = min([node.lineno, *(decorator.lineno for decorator in decorators)])
            for line in range(begin, (node.end_lineno or node.lineno) + 1):
                first[line] = node.lineno
    return first


def head(source: bytes) -> int:
    """The line of the first statement after docstring and imports from __future__: what is put before it runs first."""
    for node in ast.parse(source).body:
        is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if not is_docstring and not (isinstance(node, ast.ImportFrom) and node.module == "__future__"):
            return min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))])
    return source.count(b"\n") + 1


def _instrument(folder: Path) -> None:
    """Puts the line that begins to trace at the head of train.py."""
    path = folder / SCRIPT
    source = path.read_bytes()
    lines = source.split(b"\n")
    lines.insert(head(source) - 1, LINE.encode())
    path.unlink()  # the copy is read-only
    path.write_bytes(b"\n".join(lines))
