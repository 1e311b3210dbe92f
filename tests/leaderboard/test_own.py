"""Own records as rows: long chains, and parents that are not there."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.errors import UserError
from leaderboard import own
from leaderboard.store import Board, Store
from tests.evidence.board import Board as Raced

LONG = 999  # what three digits number: about as deep as Python lets functions call themselves


def numbered(known: own.History, count: int) -> own.History:
    """The last record again and again, each raced against the one before."""
    first, last = known.records[0], known.records[-1]
    board, records = first.board, [first]
    for number in range(2, count + 1):
        name = f"{board}/{number:03d}-again"
        record = last.record.model_copy(update={"id": name, "parent": records[-1].record.id})
        records.append(replace(last, place=name, record=record))
    return replace(known, records=records)


def test_a_chain_may_be_long(raced: Raced) -> None:
    known = own.read(raced.where.records)
    gain = known.records[-1].record.ratio
    assert gain is not None
    rows = own.records(numbered(known, LONG))
    assert len(rows) == LONG
    assert rows[1]["speedup"] == pytest.approx(gain.ratio)
    assert rows[10]["speedup"] == pytest.approx(gain.ratio**10)


@pytest.mark.parametrize("parent", ["toy/cpu-1thread/009-gone", "toy/cpu-1thread/003-again"])
def test_a_parent_that_is_no_earlier_record_is_named(raced: Raced, parent: str) -> None:
    known = numbered(own.read(raced.where.records), 3)
    last = known.records[-1]
    known.records[-1] = replace(last, record=last.record.model_copy(update={"parent": parent}))
    with pytest.raises(UserError, match=rf"003-again/record\.json: parent: {parent} is no earlier record"):
        own.records(known)


@pytest.mark.parametrize(
    ("kinds", "number"),
    [
        (["baseline"], 1),
        (["baseline", "race"], 2),
        (["baseline", "race", "race"], 3),
        (["baseline", "race", "race", "baseline"], 3),
        (["baseline", "baseline"], 2),
    ],
)
def test_the_latest_race_reigns_however_long_it_took(kinds: list[str], number: int) -> None:
    """Seconds of another machine say nothing: here every record took longer than the one before."""
    rows = [
        {
            "board": "toy/x",
            "number": at,
            "kind": kind,
            "score": 10.0 * at,
            "date": "2026-01-01",
            "record": f"toy/x/{at}",
        }
        for at, kind in enumerate(kinds, start=1)
    ]
    boards = {"toy/x": Board("toy/x", "A toy", 3.9, False, "seconds", False, "records/")}
    best = Store(boards, {}, rows, [], [], [], []).reigning("toy/x")
    assert best is not None and best["number"] == number


def test_the_fastest_of_an_imported_board_reigns() -> None:
    rows = [
        {"board": "x", "number": at, "kind": "record", "score": score, "date": "2026-01-01", "record": f"x/{at}"}
        for at, score in ((1, 20.0), (2, 10.0), (3, 15.0))
    ]
    best = Store({"x": Board("x", "X", 3.28, False, "seconds", True, "")}, {}, rows, [], [], [], []).reigning("x")
    assert best is not None and best["number"] == 2


def test_a_row_says_how_a_record_was_set(raced: Raced) -> None:
    rows = own.records(own.read(raced.where.records))
    assert [row["kind"] for row in rows] == ["baseline", "race", "race"]


def test_a_board_without_its_baseline_is_named(raced: Raced) -> None:
    known = own.read(raced.where.records)
    with pytest.raises(UserError, match="002-rope: its board has no baseline, which is record 001"):
        own.records(replace(known, records=known.records[1:]))
