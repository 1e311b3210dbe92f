"""The table of cheats and the suite say the same."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from harness.checks.cheats import PAGE, Kind, cheats, count_by_status, kinds, with_table
from harness.checks.rules import RULES
from harness.core.failures import Failure
from harness.errors import UserError
from harness.paths import ROOT
from tests.cheats.conftest import FOLDER

FLAGS = {"same-losses", "beyond-its-tokens", "computes-off-the-clock"}
HONEST = "honest_"
FEWEST_SETTLED = 28


def folders() -> set[str]:
    return {path.parent.name for path in FOLDER.glob("*/submission.toml")}


def words_of_tests() -> set[str]:
    """Every string that stands in the code of a test of this folder."""
    trees = [ast.parse(path.read_text()) for path in FOLDER.glob("test_*.py") if path != Path(__file__)]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    return {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def test_every_folder_has_a_row_and_every_row_a_folder() -> None:
    assert {name for name in folders() if not name.startswith(HONEST)} == set(cheats())
    assert {cheat.twin for cheat in cheats().values()} - {""} <= folders()


def test_every_folder_is_run_by_a_test() -> None:
    assert folders() <= words_of_tests()


def test_every_cheat_shows_some_kind() -> None:
    assert {cheat.name for kind in kinds() for cheat in kind.cheats} == set(cheats())


def test_endings_are_reasons_of_failure_rules_or_flags() -> None:
    known = {*Failure, *(rule.id for rule in RULES), *FLAGS, "prevented", "recorded"}
    assert {cheat.ends for cheat in cheats().values()} <= known


@pytest.mark.parametrize("kind", [kind for kind in kinds() if kind.tests], ids=lambda kind: kind.id)
def test_tests_that_show_a_kind_are_there(kind: Kind) -> None:
    for test in kind.tests:
        path, _, name = test.partition("::")
        assert f"\ndef {name}(" in (ROOT / path).read_text()


def test_what_is_prevented_or_detected_is_shown() -> None:
    assert all(kind.cheats or kind.tests for kind in kinds() if kind.status != "recorded")


def test_enough_kinds_are_settled_by_the_harness() -> None:
    counts = count_by_status()
    assert counts["prevented"] + counts["detected"] >= FEWEST_SETTLED
    assert sum(counts.values()) == len(kinds())


def test_the_page_is_as_the_table() -> None:
    text = PAGE.read_text()
    assert with_table(text) == text, "run: python -m harness.checks.cheats"


def test_a_page_without_markers_is_an_error() -> None:
    with pytest.raises(UserError, match="markers"):
        with_table("# Cheats")
