"""The frames: own records and the imported history in one shape. Columns and units: `leaderboard.columns`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from harness.paths import RECORDS
from leaderboard import columns, nanogpt, own, worth
from leaderboard.columns import DAY, LIST, Column


def records(folder: Path = RECORDS) -> pd.DataFrame:
    """Every record, own ones first; one row each."""
    return _shaped(columns.RECORDS, own.records(folder), nanogpt.records())


def runs(folder: Path = RECORDS) -> pd.DataFrame:
    """Every run that is evidence for or against a record, and archived runs that belong to none."""
    return _shaped(columns.RUNS, own.runs(folder), nanogpt.runs())


def curves(folder: Path = RECORDS) -> pd.DataFrame:
    """Validation losses along the runs, one row a point."""
    return _shaped(columns.CURVES, own.curves(folder), nanogpt.curves())


def methods(folder: Path = RECORDS) -> pd.DataFrame:
    """Every method that a record introduced, with its lifeline."""
    return _shaped(columns.METHODS, own.methods(folder), nanogpt.methods())


def verifications(folder: Path = RECORDS) -> pd.DataFrame:
    """Races by which somebody else tried a record again."""
    return _shaped(columns.VERIFICATIONS, own.verifications(folder))


def attempts(folder: Path = RECORDS) -> pd.DataFrame:
    """Every submission that was raced, whatever its verdict."""
    return _shaped(columns.ATTEMPTS, own.attempts(folder))


def ablations(folder: Path = RECORDS) -> pd.DataFrame:
    """Races of records without some of their methods against themselves."""
    return _shaped(columns.ABLATIONS, worth.rows(folder))


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
