"""Lines of code of a submission: those with code on them, without blank lines, comments and docstrings."""

from __future__ import annotations

import ast
import difflib
import io
import tokenize
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.submission import Submission

LAYOUT = (
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER,
)  # fmt: skip
WITH_DOCSTRING = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def lines_of_code(submission: Submission) -> dict[str, list[str]]:
    """The lines of every Python file, without indentation and what follows the code."""
    files = {name: content.decode(errors="replace") for name, content in submission.files.items()}
    return {name: code_lines(text) for name, text in files.items() if name.endswith(".py")}


def code_lines(source: str) -> list[str]:
    """The lines with code of one file; all that are not blank where it is no Python."""
    lines = source.splitlines()
    try:
        docstrings = _docstrings(ast.parse(source))
        tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    except (SyntaxError, ValueError, RecursionError, tokenize.TokenError):
        return [line.strip() for line in lines if line.strip()]
    held = {n for token in tokens if token.type not in LAYOUT for n in range(token.start[0], token.end[0] + 1)}
    shown = sorted(number for number in held - docstrings if number <= len(lines))
    return [lines[number - 1].strip() for number in shown if lines[number - 1].strip()]


def changed_lines(before: dict[str, list[str]], after: dict[str, list[str]]) -> tuple[int, int]:
    """How many lines of code were added and removed, over all files."""
    added = removed = 0
    for name in {*before, *after}:
        pair = before.get(name, []), after.get(name, [])
        for kind, a, b, c, d in difflib.SequenceMatcher(None, *pair, autojunk=False).get_opcodes():
            if kind != "equal":
                removed, added = removed + b - a, added + d - c
    return added, removed


def _docstrings(tree: ast.Module) -> set[int]:
    """The numbers of the lines that docstrings take."""
    found: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, WITH_DOCSTRING) and node.body and ast.get_docstring(node, clean=False) is not None:
            first = node.body[0]
            found.update(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    return found
