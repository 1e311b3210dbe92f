"""The records in the repository: they follow from their runs, their notes are written, the baseline is theirs."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.evidence.ablations import check_ablations
from harness.evidence.calibration_checks import check_calibration
from harness.evidence.notes import FOR_AUTHORS
from harness.evidence.record_checks import check_records
from harness.evidence.records import NOTES, history, load_record, reigning
from harness.evidence.sides import Where
from harness.evidence.verifications import check_verifications
from harness.paths import BASELINES, RECORDS
from harness.submission import load_submission

CLASSES = [Where(path.parent.name, path.name, RECORDS) for path in sorted(RECORDS.glob("*/*")) if path.is_dir()]
every = pytest.mark.parametrize("where", CLASSES, ids=lambda where: f"{where.task}-{where.hardware}")


@every
def test_everything_follows_from_the_runs(where: Where) -> None:
    checked = [*check_records(where), *check_verifications(where), *check_ablations(where), *check_calibration(where)]
    assert {found.name: found.problems for found in checked if found.problems} == {}


@every
def test_the_runs_of_the_calibration_are_kept(where: Where) -> None:
    assert len(check_calibration(where)) == 1


@every
def test_notes_are_written(where: Where) -> None:
    unwritten = [str(folder) for folder in history(where) if FOR_AUTHORS in (folder / NOTES).read_text()]
    assert unwritten == []


@every
def test_the_folder_of_the_baseline_holds_the_latest_baseline_record(where: Where) -> None:
    """`make baseline`, calibrations and the comparison at an equal budget go by that folder."""
    record: Path | None = reigning(where, as_baseline=True)
    if record is not None:
        assert load_record(record).submission == load_submission(BASELINES / "adamw" / where.task).digest
