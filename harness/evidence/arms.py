"""What the words on the command line name, and the sides of a campaign made from them.

A side is a word and changes to it. The word is `baseline`, `best` (the reigning record), a record such as
`gcide/cpu-1thread/001`, the path of a folder, or a name under submissions/. The changes are those of `speedrun run`:
`--drop METHOD` and `--set NAME=VALUE` change the candidate of a race, `--reference-drop` and `--reference-set` its
reference. They stay options, rather than a notation inside the word such as `x:-muon,lr=0.002`, because a path may
hold any of these characters, a value may hold a comma, and one notation is easier to remember than two.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from harness.core.task import Task
from harness.errors import UserError
from harness.evidence.records import reigning
from harness.evidence.sides import Side, Where
from harness.paths import BASELINES, SUBMISSIONS
from harness.submission import load_submission

BASELINE = "baseline"
BEST = "best"
RECORD_WORD = re.compile(r"(?P<task>[a-z0-9-]+)/(?P<hardware>[A-Za-z0-9-]+)/(?P<number>[0-9]{3})(?:-[a-z0-9-]+)?")
NAMES_SHOWN = 12


def submission_folder(word: str, where: Where) -> Path:
    """The folder of the submission that a word names. Raises UserError that says what exists."""
    if word == BASELINE:
        folder = BASELINES / "adamw" / where.task
        if (folder / "submission.toml").is_file():
            return folder
        known = _names(BASELINES / "adamw", "*/submission.toml")
        raise UserError(f"{word}: the task {where.task} has no baseline", f"tasks that have one: {known}")
    if word == BEST:
        if (record := reigning(where)) is not None:
            return record / "submission"
        what = f"{word}: there is no record yet for {where.task} on {where.hardware}"
        raise UserError(what, "race against `baseline`; `speedrun submit` files the first record")
    for folder in (Path(word), Path(word) / "submission", SUBMISSIONS / word):
        if (folder / "submission.toml").is_file():
            return folder
    if match := RECORD_WORD.fullmatch(word):
        return _record(word, match, where.records) / "submission"
    raise UserError(
        f"{word}: no such submission (no submission.toml in it, and no folder of that name in submissions/)",
        f"give a folder, a name under submissions/ ({_names(SUBMISSIONS, '*/submission.toml')}), the words baseline "
        f"or best, or a record such as gcide/cpu-1thread/001 ({_names(where.records, '*/*/[0-9]*/record.json')})",
    )


def sides_of_race(
    words: tuple[str, str],
    task: Task | None,
    where: Where,
    dropped: tuple[Sequence[str], Sequence[str]] = ((), ()),
    settings: tuple[Sequence[str], Sequence[str]] = ((), ()),
) -> tuple[Side, Side]:
    """Candidate and reference. Without a `task` of its own a relative word means the task of the other arm.

    Raises UserError for a word, method or hyperparameter that does not exist, and for arms of different tasks. Two
    arms that are the same thing are allowed: that is how a machine and the statistics are tried.
    """
    if task is None:
        fixed = [word for word in words if word not in (BASELINE, BEST)]
        if fixed:
            own = load_submission(submission_folder(fixed[0], where)).task.name
            where = Where(own, where.hardware, where.records)
    sides = [
        Side(word, load_submission(submission_folder(word, where), task), tuple(off), tuple(values))
        for word, off, values in zip(words, dropped, settings, strict=True)
    ]
    names = [side.submission.task.name for side in sides]
    if names[0] != names[1]:
        what = f"{words[0]} is for the task {names[0]}, {words[1]} for {names[1]}"
        raise UserError(what, "race two submissions of one task")
    return sides[0], sides[1]


def _record(word: str, match: re.Match[str], records: Path) -> Path:
    class_folder = records / match["task"] / match["hardware"]
    found = sorted(path.parent for path in class_folder.glob(f"{match['number']}-*/record.json"))
    if len(found) == 1:
        return found[0]
    known = _names(class_folder, "[0-9]*/record.json")
    what = "no such record" if not found else "several records have this number"
    raise UserError(f"{word}: {what}", f"records of {match['task']} on {match['hardware']}: {known}")


def _names(folder: Path, pattern: str) -> str:
    """What exists, for an error's remedy."""
    names = sorted(path.parent.relative_to(folder).as_posix() for path in folder.glob(pattern))
    return ", ".join(names[:NAMES_SHOWN]) + (", ..." if len(names) > NAMES_SHOWN else "") or "none yet"
