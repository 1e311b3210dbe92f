"""What a method was worth when it came: known where its record brought nothing else.

Own records: the ratio of the race against the parent, at equal loss, with its limits. Imported ones: what follows from
the seconds that it is stated to have saved, which nobody raced; it has no limits. A record that swapped one method for
its successor tells what the successor is worth over it. Whatever else changed in the record counts with the method.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from leaderboard.lifelines import COUNTED_KINDS

RACED, STATED = "race", "stated"  # of effect_by


def with_effects(methods: pd.DataFrame, records: pd.DataFrame) -> pd.DataFrame:
    """The frame of methods with effect, its limits and source, lines and seconds saved, where a record gives them."""
    named = records[records.kind.isin(COUNTED_KINDS)]
    by_number = {(row.board, row.number): row for row in named.itertuples()}
    changes = _changes(methods)
    found = []
    for method in methods.itertuples():
        at = method.history, method.introduced
        record = by_number.get(at)
        added, dropped = changes[at]
        alone = record is not None and added == [method.method] and set(dropped) <= set(method.replaces)
        found.append(_effect(record) if record is not None and alone else {})
    known = pd.DataFrame(found, index=methods.index)
    return methods.assign(**{name: known[name].astype(methods[name].dtype) for name in known.columns})


def _changes(methods: pd.DataFrame) -> dict[tuple[str, int], tuple[list[str], list[str]]]:
    """Methods added and dropped, by board and number of the record."""
    changes: dict[tuple[str, int], tuple[list[str], list[str]]] = {}
    for method in methods.itertuples():
        changes.setdefault((method.history, method.introduced), ([], []))[0].append(method.method)
        if pd.notna(method.dropped):
            changes.setdefault((method.history, method.dropped), ([], []))[1].append(method.method)
    return changes


def _effect(record: Any) -> dict[str, Any]:
    if pd.notna(record.ratio):
        limits = {"effect_low": record.ratio_low, "effect_high": record.ratio_high}
        found: dict[str, Any] = {"effect": record.ratio, "effect_by": RACED, **limits}
    elif pd.notna(record.seconds_saved):
        found = {"effect": 1 + record.seconds_saved / record.score, "effect_by": STATED}
    else:
        return {}
    if pd.notna(record.lines_added):
        found["lines"] = record.lines_added - record.lines_removed
    if pd.notna(record.seconds_saved):
        found["seconds_saved"] = record.seconds_saved
    return found
