"""Submissions that were tuned, raced or not, each beside what AdamW reached in as many trials."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UserError
from harness.paths import BASELINES, SUBMISSIONS
from harness.submission import load_submission
from harness.text import clean
from harness.tuning.equal_budget import EqualBudget, equal_budget
from harness.tuning.protocol import FOLDER
from harness.tuning.tune import TRIALS_FILE, Tuning
from leaderboard.store import Row


@dataclass(frozen=True)
class Tuned:
    """A tuned submission. `verdicts`: of its attempts, none where it was screened out before a race.

    `problem` says why its trials cannot be shown; without one and without `found` there is no full trial yet.
    """

    name: str
    title: str
    task: str
    verdicts: list[str]
    found: EqualBudget | None = None
    problem: str | None = None


def tuned(attempts: Iterable[Row], folder: Path = SUBMISSIONS, baselines: Path = BASELINES / "adamw") -> list[Tuned]:
    """The submissions with trials, the best against AdamW first. An attempt is matched by task and title."""
    raced = [(str(row["board"]).partition("/")[0], row["title"], str(row["verdict"])) for row in attempts]
    rows = []
    for path in sorted(folder.glob(f"*/{FOLDER}/{TRIALS_FILE}")):
        submission = load_submission(path.parent.parent)
        title, task = submission.manifest.title, submission.task.name
        verdicts = [verdict for board, name, verdict in raced if (board, clean(str(name))) == (task, clean(title))]
        try:
            found, problem = equal_budget(Tuning(submission), baselines), None
        except UserError as error:
            found, problem = None, clean(error.message)
        rows.append(Tuned(submission.name, clean(title), task, verdicts, found, problem))
    return sorted(rows, key=lambda row: (row.task, row.found.difference if row.found else float("inf"), row.name))
