"""A run's folder while the run lasts, entered in the journal at both ends; and what killed commands left behind.

What belongs to a process that lives is never touched: see core/owned.py.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from types import TracebackType
from typing import Any

from harness.core import cgroup
from harness.core.owned import LOCK, Claim, abandoned, remove_abandoned_temporaries
from harness.errors import UserError
from harness.journal import Journal

HARNESS_ERROR = "harness-error"  # a full disk, a bug of ours: no fault of the submission
KILLED = "killed"  # its start stands in the journal, its end was written by another command
JOURNAL = "journal.jsonl"


class RunFolder:
    """The folder of one run. Leaving the context ends the run in the journal, whatever happened inside.

    Where even that cannot be written, the folder keeps its lock file, and the next command writes it.
    """

    def __init__(self, runs_dir: Path, run_id: str) -> None:
        """Makes the folder and claims it. Raises UserError."""
        self._run_id = run_id
        self._journal = Journal(runs_dir / JOURNAL)
        self._started = self._ended = False
        try:
            (runs_dir / run_id).mkdir(parents=True)
            self.path = (runs_dir / run_id).resolve()
            self._claim = Claim(self.path)
        except OSError as error:
            shutil.rmtree(runs_dir / run_id, ignore_errors=True)
            remedy = "choose a folder you can write to: --runs-dir"
            raise UserError(f"{runs_dir / run_id}: {error.strerror}", remedy) from None

    def start(self, **facts: Any) -> None:
        """Enters the start. Raises UserError."""
        self._journal.start(self._run_id, **facts)
        self._started = True

    def end(self, status: str, bundle_digest: str | None, **facts: Any) -> None:
        """Enters the end. Raises UserError."""
        self._journal.end(self._run_id, status, bundle_digest, **facts)
        self._ended = True
        self._claim.drop()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            _remove_temporaries(self.path)
            if not self._started:
                shutil.rmtree(self.path, ignore_errors=True)
            elif not self._ended:
                self.end(HARNESS_ERROR, None)
        except UserError:
            if error is None:
                raise  # else what went wrong first is told
        finally:
            self._claim.close()
        if isinstance(error, OSError):
            message = f"{self.path}: {error.strerror or error}"
            raise UserError(message, "free space or choose another --runs-dir") from None


def clean_up(runs_dir: Path | None = None) -> list[str]:
    """Tidies up after killed commands; returns the runs that only now got their end. Raises UserError."""
    remove_abandoned_temporaries()
    cgroup.remove_abandoned()
    ended = []
    if runs_dir is not None:
        journal = Journal(runs_dir / JOURNAL)
        for folder in abandoned(sorted(lock.parent for lock in runs_dir.glob(f"*/{LOCK}"))):
            _remove_temporaries(folder)
            if [entry.event for entry in journal.entries() if entry.run == folder.name] == ["start"]:
                journal.end(folder.name, KILLED, None, closed_by="a later command; its own wrote no end")
                ended.append(folder.name)
            (folder / LOCK).unlink(missing_ok=True)
    return ended


def _remove_temporaries(folder: Path) -> None:
    """Removes what a run folder holds only while the run lasts."""
    shutil.rmtree(folder / "scratch", ignore_errors=True)
    for file in folder.glob("*.partial"):
        file.unlink(missing_ok=True)
