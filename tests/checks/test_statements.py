"""Which statements a method costs: lines to statements, own and shared ones, and what cannot be counted."""

from __future__ import annotations

import ast
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.checks import statements
from harness.checks.statements import Counter, first_lines, head
from harness.checks.traced import LINE, MARKER
from harness.core.failures import Failure
from harness.core.plan import Outcome
from harness.core.task import hardware_class
from harness.errors import UserError
from harness.submission import load_submission
from tests.conftest import Toy
from tests.evidence.loaded import BALLAST, loaded_script
from tests.toy_submission import MANIFEST, write_submission

SOURCE = b'''"""Of a module."""

@decorated
def f(
    x,
):
    if x:
        return g(
            x
        )
    return None
'''


def test_a_line_belongs_to_the_innermost_statement() -> None:
    first = first_lines(SOURCE)
    assert [first.get(line) for line in range(1, 12)] == [1, None, 4, 4, 4, 4, 7, 8, 8, 8, 11]


class FakeTrials:
    """Says that lines 1 to 9 are executed, fewer with a method off: 5 is momentum's, 7 ballast's, 6 needs both."""

    GONE = {"momentum": {5, 6}, "ballast": {6, 7}}

    def __init__(self, *_: object) -> None:
        self.settings: list[Sequence[str]] = []

    def instrumented_run(self, dropped: Sequence[str], settings: Sequence[str], _: Any) -> tuple[Outcome, str]:
        self.settings.append(settings)
        lines = set(range(1, 10)).difference(*(self.GONE[name] for name in dropped))
        moved = [line + 1 for line in sorted(lines)]  # behind the line that begins to trace, at the head
        told = {"lines": [["train.py", line] for line in moved], "peak_memory": 100 + len(lines)}
        return Outcome(), f"printed by the script\n{MARKER}{json.dumps(told)}\n"


@pytest.fixture
def counter(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Counter:
    monkeypatch.setattr(statements, "Trials", FakeTrials)
    monkeypatch.setattr(statements, "head", lambda source: 1)
    monkeypatch.setattr(statements, "first_lines", lambda source: {line: line for line in range(1, 100)})
    manifest = MANIFEST.replace("[hparams.steps]", BALLAST.lstrip("\n"), 1)
    folder = write_submission(tmp_path / "loaded", loaded_script(), manifest)
    return Counter(load_submission(folder, toy.task), hardware_class("cpu-1thread"), tmp_path)


def test_what_several_methods_need_is_counted_apart(counter: Counter) -> None:
    found = counter.difference(["momentum"])
    assert (found.own, found.shared) == (frozenset({("train.py", 5)}), frozenset({("train.py", 6)}))
    assert (found.executed, found.peak_memory, found.peak_memory_without) == (9, 109, 107)
    together = counter.difference(["momentum", "ballast"])
    assert together.own == frozenset(("train.py", line) for line in (5, 6, 7)) and not together.shared
    assert counter._trials.settings == [["steps=3"]] * 4  # each set of methods is run once


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ((Outcome(reason=Failure.CRASH, message="no optimizer"), ""), "its short run failed: crash: no optimizer"),
        ((Outcome(), "flood\n" * 100), "printed too much"),
    ],
)
def test_a_short_run_that_says_nothing_is_named(
    counter: Counter, monkeypatch: pytest.MonkeyPatch, told: tuple[Outcome, str], said: str
) -> None:
    monkeypatch.setattr(FakeTrials, "instrumented_run", lambda *_: told)
    with pytest.raises(UserError, match=said):
        counter.difference(["momentum"])


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("import a\n", 1),
        ('"""Text\nin two lines."""\n\nfrom __future__ import annotations\n\n# why\n@b\ndef a():\n    pass\n', 7),
        ('"""Text."""\n', 2),
    ],
)
def test_tracing_begins_before_the_first_statement(source: str, line: int, tmp_path: Path) -> None:
    assert head(source.encode()) == line
    (tmp_path / "train.py").write_text(source)
    statements._instrument(tmp_path)
    traced = (tmp_path / "train.py").read_text()
    assert traced.split("\n")[line - 1] == LINE
    ast.parse(traced)
