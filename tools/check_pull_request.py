"""What a pull request may change, and which submissions it brings. Standard library and git only.

    python tools/check_pull_request.py BASE HEAD

Prints the folders that `speedrun check` has to look at, one a line. Exits with 1, and says why on standard error,
where the change touches what is frozen together with records or submissions, rewrites what was filed (records and
attempts are added to, never edited), or leaves a line of a record's notes to its authors. It is run from the base's
checkout, so that a change cannot excuse itself.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

FROZEN = ("harness/core/", "harness/frozen.toml")
FREE = ("notes.md", "calibration.json", "README.md")  # of records/: written by people, or measured anew
UNFINISHED = ("runs.jsonl", "bundles.jsonl.gz")  # may grow while its campaign has no final verdict
RESULTS = ("verdict.json", "verification.json")
CAMPAIGNS = ("attempts", "verifications")
SUBMISSION = re.compile(
    r"(submissions/[A-Za-z0-9][\w.-]*|records/[\w.-]+/[\w.-]+/[0-9]{3}-[\w.-]+/submission)/.+", re.ASCII
)
NOTES = re.compile(r"records/[\w.-]+/[\w.-]+/[0-9]{3}-[\w.-]+/notes\.md", re.ASCII)
PLACEHOLDER = "For the authors:"  # as harness/evidence/notes.py writes it


@dataclass(frozen=True)
class Change:
    """A file that differs. status: A added, M modified, D deleted, T of another kind."""

    status: str
    path: str


def main(arguments: Sequence[str]) -> int:
    """Prints folders and problems; the exit code."""
    if len(arguments) != 2:
        print("usage: python tools/check_pull_request.py BASE HEAD", file=sys.stderr)
        return 2
    base, head = arguments
    changed = changes(base, head)
    before = files_of(base)
    found = problems(changed, before - not_final(base, before, changed)) + unwritten(head, changed)
    for problem in found:
        print(f"error: {problem}", file=sys.stderr)
    for folder in folders(changed):
        print(folder)
    return 1 if found else 0


def changes(base: str, head: str) -> list[Change]:
    """What HEAD changes since it left BASE. A renamed file is one deleted and one added."""
    text = _git("diff", "--name-status", "--no-renames", "-z", f"{base}...{head}")
    fields = text.split("\0")[:-1]
    return [Change(status, path) for status, path in zip(fields[::2], fields[1::2], strict=True)]


def files_of(base: str) -> set[str]:
    """Every file under records/ as it was."""
    return set(_git("ls-tree", "-r", "-z", "--name-only", base, "--", "records").split("\0")[:-1])


def not_final(base: str, before: set[str], changed: Iterable[Change]) -> set[str]:
    """The results in base of campaigns, among those that are changed, which were given up and may be gone on with."""
    folders = {PurePosixPath(change.path).parent for change in changed if change.status != "A"}
    verdicts = {str(folder / "verdict.json"): folder for folder in folders if folder.parent.name in CAMPAIGNS}
    found: set[str] = set()
    for path in sorted(before & verdicts.keys()):
        if _given_up(_git("show", f"{base}:{path}")):
            found |= {str(verdicts[path] / name) for name in RESULTS}
    return found


def _given_up(verdict: str) -> bool:
    try:
        table = json.loads(verdict)
    except (ValueError, RecursionError):
        return False
    return isinstance(table, dict) and table.get("final") is False


def problems(changed: Iterable[Change], before: set[str]) -> list[str]:
    """What the change may not do, a line each. `before`: the files of records/ that were filed for good."""
    changed = list(changed)
    found = [f"{change.path!a}: {why}" for change in changed if (why := _rewrites(change, before))]
    brings = [change for change in changed if change.path.startswith(("records/", "submissions/"))]
    frozen = [change.path for change in changed if change.path.startswith(FROZEN)]
    if brings and frozen:
        what = f"{frozen[0]!a} is frozen: what it measures would no longer be what the records measured"
        found.append(f"{what}; send it as a change of its own, without records and submissions")
    return found


def unwritten(head: str, changed: Iterable[Change]) -> list[str]:
    """The notes of records in which a line still waits for its authors."""
    paths = [change.path for change in changed if change.status != "D" and NOTES.fullmatch(change.path)]
    left = [path for path in paths if PLACEHOLDER in _git("show", f"{head}:{path}")]
    return [f"{path!a}: has a line {PLACEHOLDER!r}: write what it asks for, or remove it" for path in left]


def folders(changed: Iterable[Change]) -> list[str]:
    """The folders of submissions, own ones and those of new records, that were added or changed."""
    matched = (SUBMISSION.fullmatch(change.path) for change in changed if change.status != "D")
    return sorted({match[1] for match in matched if match})


def _rewrites(change: Change, before: set[str]) -> str | None:
    """Why a change of a file under records/ is none that adds; None where it is."""
    if not change.path.startswith("records/") or change.status == "A":
        return None
    path = PurePosixPath(change.path)
    in_campaign = path.parent.parent.name in CAMPAIGNS
    if change.status in "MD" and path.name in RESULTS and in_campaign and change.path not in before:
        return None  # the campaign went on
    if change.status == "D":
        return "was filed, and may not be removed"
    if change.status == "M" and path.name in FREE:
        return None
    if change.status == "M" and path.name in UNFINISHED and in_campaign:
        decided = [name for name in RESULTS if str(path.with_name(name)) in before]
        return "its campaign was decided, and may not grow" if decided else None
    return "was filed, and may not be edited"


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, check=False)
    if done.returncode:
        sys.exit(f"error: git {arguments[0]}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout.decode(errors="surrogateescape")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
