"""The site's data: leaderboard.json, every frame as CSV and Parquet, and a feed of records."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from feedgen.feed import FeedGenerator

from leaderboard import columns
from leaderboard.export import dumped
from leaderboard.lifelines import COUNTED_KINDS
from leaderboard.store import Row, Store

FEED_ENTRIES = 50
DESCRIPTIONS = {
    "leaderboard.json": "everything the command line reads: boards, records with their runs, methods",
    **{f"{name}.csv": f"the frame of {name}, lists joined by semicolons" for name in columns.FRAMES},
    **{f"{name}.parquet": f"the frame of {name} for pandas, polars or DuckDB" for name in columns.FRAMES},
    "feed.atom": f"the latest {FEED_ENTRIES} records of every board",
}


def write(out: Path, printed: Store, known: Mapping[str, pd.DataFrame]) -> None:
    """Writes every file of `DESCRIPTIONS` into a folder. `printed`: the store with printable texts; `known`: frames."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "leaderboard.json").write_text(dumped(printed.content()))
    for name in columns.FRAMES:
        frame = known[name]
        frame.to_parquet(out / f"{name}.parquet", index=False)
        _flat(name, frame).to_csv(out / f"{name}.csv", index=False)
    (out / "feed.atom").write_bytes(feed(printed))


def feed(printed: Store) -> bytes:
    """An Atom feed, newest first. Its time is the newest record's, so that the same history gives the same file."""
    dated = [row for row in printed.records if row["date"] and row["kind"] in (*COUNTED_KINDS, "software-upgrade")]
    newest = sorted(dated, key=lambda row: (row["date"], row["number"]), reverse=True)[:FEED_ENTRIES]
    made = FeedGenerator()
    made.id("tag:speedrun-harness,2026:board")
    made.title("speedrun-harness: records")
    made.author(name="The speedrun-harness contributors")
    made.link(href="../index.html", rel="alternate")
    made.updated(_moment(newest[0]["date"]) if newest else datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC))
    for row in newest:
        _add(made, printed, row)
    return bytes(made.atom_str(pretty=True))


def _add(made: FeedGenerator, printed: Store, row: Row) -> None:
    board = printed.boards[row["board"]]
    folder, number = row["board"].replace("/", "-"), row["record"].rpartition("/")[2]
    entry = made.add_entry(order="append")
    entry.id(f"tag:speedrun-harness,2026:{row['record']}")
    entry.title(f"{row['record']}: {row['title']}")
    entry.link(href=f"../{folder}/{number}.html")
    entry.updated(_moment(row["date"]))
    entry.author([{"name": name} for name in row["authors"]] or [{"name": "not stated"}])
    entry.summary(f"{board.shown_score(row['score'])} {board.shown_unit}; {row['trust']}")


def _moment(day: str) -> datetime.datetime:
    return datetime.datetime.combine(datetime.date.fromisoformat(day), datetime.time(), datetime.UTC)


def _flat(name: str, frame: pd.DataFrame) -> pd.DataFrame:
    lists = [column for column, described in columns.FRAMES[name].items() if described.dtype == columns.LIST]
    return frame.assign(**{column: frame[column].map(";".join) for column in lists})
