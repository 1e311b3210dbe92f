"""What a campaign is made from: its sides, and the board on which words are looked up and records lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.paths import BASELINES, RECORDS
from harness.submission import Submission


@dataclass(frozen=True)
class Side:
    """A submission with methods dropped and hyperparameters set; both are known to be declared."""

    word: str
    submission: Submission
    dropped: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The submission's own name; that of the record where it is filed as one, of the optimizer for a baseline."""
        folder = self.submission.folder
        return folder.parent.name if folder.name == "submission" or BASELINES in folder.parents else folder.name

    def __post_init__(self) -> None:
        self.submission.methods(list(self.dropped))
        self.submission.hparams(list(self.settings))


@dataclass(frozen=True)
class Where:
    """In which task and hardware class `baseline` and `best` are looked up, and where the records lie."""

    task: str
    hardware: str
    records: Path = RECORDS
