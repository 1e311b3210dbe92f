"""Lines of code of a submission: without blank lines, docstrings, and lines that are nothing but a comment."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Mapping

BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")  # lists of statements in a statement
WITH_DOCSTRING = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def lines_of_code(files: Mapping[str, bytes]) -> dict[str, list[str]]:
    """The lines of code of every Python file."""
    texts = {name: content.decode(errors="replace") for name, content in files.items()}
    return {name: code_lines(text) for name, text in texts.items() if name.endswith(".py")}


def code_lines(source: str) -> list[str]:
    """The lines of code of one file without their indentation; where it is no Python, its docstrings count too.

    A line of a longer string that begins with # is taken for a comment.
    """
    try:
        docstrings = _docstrings(ast.parse(source))
    except (SyntaxError, ValueError, RecursionError):
        docstrings = set()
    lines = ((number, line.strip()) for number, line in enumerate(source.splitlines(), start=1))
    return [line for number, line in lines if line and not line.startswith("#") and number not in docstrings]


def changed_lines(before: Mapping[str, list[str]], after: Mapping[str, list[str]]) -> tuple[int, int]:
    """How many lines of code were added and removed, over all files."""
    added = removed = 0
    for name in {*before, *after}:
        pair = before.get(name, []), after.get(name, [])
        for kind, a, b, c, d in difflib.SequenceMatcher(None, *pair, autojunk=False).get_opcodes():
            if kind != "equal":
                removed, added = removed + b - a, added + d - c
    return added, removed


def _docstrings(tree: ast.Module) -> set[int]:
    """The numbers of the lines that docstrings take. Only statements are visited: expressions hold none."""
    found: set[int] = set()
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        for name in BLOCKS:
            waiting += getattr(node, name, ())
        if isinstance(node, WITH_DOCSTRING) and node.body and ast.get_docstring(node, clean=False) is not None:
            first = node.body[0]
            found.update(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    return found
