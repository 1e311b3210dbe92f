"""The frames: own records and the imported history in one shape. Columns and units: `leaderboard.columns`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from harness.paths import RECORDS
from leaderboard import columns, nanogpt, own, worth
from leaderboard.columns import DAY, LIST, Column
from leaderboard.effects import with_effects


def records(folder: Path = RECORDS) -> pd.DataFrame:
    """Every record, own ones first; one row each."""
    return _records(own.read(folder))


def runs(folder: Path = RECORDS) -> pd.DataFrame:
    """Every run that is evidence for or against a record, and archived runs that belong to none."""
    return _runs(own.read(folder))


def curves(folder: Path = RECORDS) -> pd.DataFrame:
    """Validation losses along the runs, one row a point. A run of ours is judged once, at its end: it has none."""
    return _shaped(columns.CURVES, nanogpt.curves())


def methods(folder: Path = RECORDS) -> pd.DataFrame:
    """Every method that a record introduced, with its lifeline and what it was worth there."""
    known = own.read(folder)
    return _methods(known, _records(known))


def verifications(folder: Path = RECORDS) -> pd.DataFrame:
    """Races by which somebody tried a record again."""
    return _verifications(own.read(folder))


def attempts(folder: Path = RECORDS) -> pd.DataFrame:
    """Every submission that was raced, whatever its verdict."""
    return _attempts(own.read(folder))


def ablations(folder: Path = RECORDS) -> pd.DataFrame:
    """Races of records without some of their methods against themselves."""
    return _ablations(own.read(folder))


def every(folder: Path = RECORDS, as_of: str | None = None) -> dict[str, pd.DataFrame]:
    """All frames by name, records/ read once; as they were known at the end of a day (ISO 8601) where one is given."""
    return every_of(own.read(folder, as_of), as_of)


def every_of(known: own.History, as_of: str | None = None) -> dict[str, pd.DataFrame]:
    """The same of own records that were read as of that day."""
    found = {"records": _records(known), "runs": _runs(known), "curves": curves()}
    found["methods"] = _methods(known, found["records"])
    found |= {"verifications": _verifications(known), "attempts": _attempts(known), "ablations": _ablations(known)}
    return found if as_of is None else _known_by(found, pd.Timestamp(as_of))


def _records(known: own.History) -> pd.DataFrame:
    return _shaped(columns.RECORDS, own.records(known), nanogpt.records())


def _runs(known: own.History) -> pd.DataFrame:
    return _shaped(columns.RUNS, own.runs(known), nanogpt.runs())


def _methods(known: own.History, found: pd.DataFrame) -> pd.DataFrame:
    return with_effects(_shaped(columns.METHODS, own.methods(known), nanogpt.methods()), found)


def _verifications(known: own.History) -> pd.DataFrame:
    return _shaped(columns.VERIFICATIONS, own.verifications(known))


def _attempts(known: own.History) -> pd.DataFrame:
    return _shaped(columns.ATTEMPTS, own.attempts(known))


def _ablations(known: own.History) -> pd.DataFrame:
    return _shaped(columns.ABLATIONS, worth.rows(known.ablations))


def _known_by(found: dict[str, pd.DataFrame], day: pd.Timestamp) -> dict[str, pd.DataFrame]:
    """What the imported history did not have yet is left out; own rows are read as of the day already.

    A record without a date has that of the one before it. Archived runs of no record have no day, and are left out.
    """
    found = dict(found)
    dates = found["records"].groupby("board").date.ffill()
    found["records"] = found["records"][dates.isna() | (dates <= day)].reset_index(drop=True)
    found["runs"] = found["runs"][found["runs"].record.isin(found["records"].record)].reset_index(drop=True)
    keys = found["runs"][nanogpt.RUN_KEY].drop_duplicates()
    found["curves"] = found["curves"].merge(keys, on=nanogpt.RUN_KEY).reindex(columns=list(columns.CURVES))
    lines = found["methods"]
    lines = lines[lines.introduced_on.isna() | (lines.introduced_on <= day)].reset_index(drop=True)
    later = lines.dropped_on.notna() & (lines.dropped_on > day)
    found["methods"] = lines.assign(
        dropped=lines.dropped.mask(later), dropped_on=lines.dropped_on.mask(later),
        replaces=lines.replaces.map(lambda names: [name for name in names if name in set(lines.method)]),
    )  # fmt: skip
    return found


def _shaped(documented: Mapping[str, Column], *parts: pd.DataFrame | list[dict[str, object]]) -> pd.DataFrame:
    """The parts below each other, in exactly the documented columns and types."""
    frames = [part if isinstance(part, pd.DataFrame) else pd.DataFrame(part) for part in parts]
    filled = [frame.reindex(columns=list(documented)).astype(object) for frame in frames if len(frame)]
    joined = pd.concat(filled, ignore_index=True) if filled else pd.DataFrame(columns=list(documented), dtype=object)
    return pd.DataFrame({name: _typed(joined[name], column) for name, column in documented.items()})


def _typed(values: pd.Series, column: Column) -> pd.Series:
    if column.dtype == DAY:
        return pd.to_datetime(values, errors="coerce").astype(DAY)
    if column.dtype == LIST:
        return values.map(lambda item: item if isinstance(item, list) else [])
    return values.where(values.notna(), None).astype(column.dtype)
