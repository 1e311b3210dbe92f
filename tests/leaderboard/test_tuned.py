"""Tuned submissions on the page of attempts: raced ones with their verdicts, the others as screened out."""

from __future__ import annotations

from pathlib import Path

import pytest

from leaderboard.tuned import tuned
from tests.tuning.test_equal_budget import BASELINE_LOSSES, searched
from tests.tuning.test_report import copy_of_baseline


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Of submissions and of baselines: a rival that did better, one that did worse, one with nothing, one spoiled."""
    submissions = tmp_path / "submissions"
    searched(copy_of_baseline(tmp_path / "adamw" / "gcide"), BASELINE_LOSSES)
    for name, losses in (("worse", [3.3, 3.29]), ("better", [3.2]), ("failed", [None]), ("spoiled", [3.2])):
        folder = copy_of_baseline(submissions / name)
        manifest = folder / "submission.toml"
        title = next(line for line in manifest.read_text().splitlines() if line.startswith("title"))
        manifest.write_text(manifest.read_text().replace(title, f'title = "The {name} one"'))
        searched(folder, losses)
    trials = submissions / "spoiled" / "tuning" / "trials.csv"
    trials.write_text(trials.read_text().replace("search,", "serach,"))
    copy_of_baseline(submissions / "planned")
    return submissions, tmp_path / "adamw"


def test_the_best_against_adamw_comes_first(folders: tuple[Path, Path]) -> None:
    rows = tuned([], *folders)
    assert [row.name for row in rows] == ["better", "worse", "failed", "spoiled"]
    assert [row.found is not None for row in rows] == [True, True, False, False]
    assert rows[3].problem is not None and "trials.csv" in rows[3].problem


def test_attempts_are_found_by_task_and_title(folders: tuple[Path, Path]) -> None:
    attempts = [
        {"board": "gcide/cpu-1thread", "title": "The better one", "verdict": "record"},
        {"board": "gcide/cpu-1thread", "title": "The better one", "verdict": "slower"},
        {"board": "toy/cpu-1thread", "title": "The worse one", "verdict": "slower"},
    ]
    rows = {row.name: row.verdicts for row in tuned(attempts, *folders)}
    assert rows == {"better": ["record", "slower"], "worse": [], "failed": [], "spoiled": []}
