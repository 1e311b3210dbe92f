"""leaderboard.json: what every reading verb reads, with the standard library alone.

`leaderboard.export` writes it out of the frames. Rows have the frames' columns (`leaderboard.columns`) without what is
missing, dates as ISO 8601 days; a record also has `run_list` (`RUN_FIELDS` of every run), `curve` (`POINT_FIELDS`) of
its median run, `pair_ratios` of its race, and the names of the methods it added and dropped.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.core.files import read_file
from harness.errors import UserError

FILE = Path(__file__).parent / "leaderboard.json"
SCHEMA = 1
MAX_BYTES = 256 << 20
KINDS = ("records", "methods", "verifications", "attempts", "ablations")
RUN_FIELDS = ("run", "loss", "seconds", "counted", "arm", "status")  # of an entry in a record's run_list
POINT_FIELDS = ("step", "loss", "seconds", "tokens")  # of an entry in its curve
REMEDY = "write it anew: speedrun board export"

Row = dict[str, Any]


@dataclass(frozen=True)
class Board:
    """One ranking: a (task, class), or a track of the imported history.

    unit: seconds or steps, fewer is better. imported: nothing on it was raced by this harness.
    """

    name: str
    title: str
    target: float
    target_provisional: bool
    unit: str
    imported: bool
    source: str

    def shown_score(self, score: float | None) -> str:
        """A score as people read it."""
        if score is None:
            return ""
        if self.unit == "steps":
            return f"{score:,.0f}"
        return f"{score:,.2f}" if not self.imported else f"{score / 60:.3f}"

    @property
    def shown_unit(self) -> str:
        """The unit of `shown_score`: the public history counts in minutes."""
        return "minutes" if self.imported and self.unit == "seconds" else self.unit

    @property
    def speedup_over(self) -> str:
        """What the speed-ups of its records are told over."""
        return "the first record" if self.imported else "the baseline"


@dataclass(frozen=True)
class Store:
    """Everything on the boards."""

    boards: dict[str, Board]
    columns: dict[str, list[str]]
    records: list[Row]
    methods: list[Row]
    verifications: list[Row]
    attempts: list[Row]
    ablations: list[Row]

    @property
    def record_columns(self) -> list[str]:
        """The columns of a record that are single values or lists of names."""
        return [name for name in self.columns["records"] if name not in ("run_list", "curve", "pair_ratios")]

    def board(self, name: str) -> Board:
        """Raises UserError for a board that is not there."""
        if name not in self.boards:
            raise UserError(f"{name}: no such board", f"there are {', '.join(self.boards)}")
        return self.boards[name]

    def records_of(self, board: str, as_of: str | None = None) -> list[Row]:
        """The records of a board up to a day, in order; one without a date has the day of the one before it."""
        from leaderboard.lifelines import dated

        rows = dated(row for row in self.records if row["board"] == board)
        return [row for row in rows if as_of is None or (row["date"] or "") <= as_of]

    def reigning(self, board: str) -> Row | None:
        """The record to beat: our own as `harness.evidence.records.due_parent` has it, for seconds do not travel.

        Of an imported board the fastest, upgrades of software included.
        """
        rows = self.records_of(board)
        if not self.board(board).imported:
            raced = [row for row in rows if row["kind"] == "race"]
            return next(reversed(raced or rows), None)
        known = [row for row in rows if row["kind"] in ("record", "software-upgrade")]
        return min(known, key=lambda row: (row["score"], -row["number"]), default=None)

    def not_listed(self, folder: Path) -> list[str]:
        """Records that lie in records/ and are not in the file."""
        listed = {row["reference"] for row in self.records}
        found = sorted(path.parent.relative_to(folder).as_posix() for path in folder.glob("*/*/[0-9]*/record.json"))
        return [place for place in found if place not in listed]

    def methods_of(self, board: str) -> list[Row]:
        return [row for row in self.methods if row["history"] == board]

    def ablations_of(self, board: str) -> list[Row]:
        """The latest ablation of every set of methods of every record of a board, oldest record first."""
        known = sorted((row for row in self.ablations if row["board"] == board), key=lambda row: row["ablation"])
        return list({(row["record"], *row["methods"]): row for row in known}.values())

    def standing_methods(self, record: Row) -> list[str]:
        """The methods that stood at a record, its own included, in order of introduction.

        A baseline stands beside the chain of records: it has its own methods only.
        """
        if record["kind"] == "baseline":
            return list(record["methods_added"] or [])
        number = record["number"]
        return [
            method["method"]
            for method in self.methods_of(record["board"])
            if method["introduced"] <= number and (method["dropped"] is None or number < method["dropped"])
        ]

    def content(self) -> dict[str, Any]:
        """What the file holds: the inverse of `from_content`."""
        boards = {
            name: {key: value for key, value in asdict(b).items() if key != "name"} for name, b in self.boards.items()
        }
        rows = {kind: [_known(row) for row in getattr(self, kind)] for kind in KINDS}
        return {"schema": SCHEMA, "boards": boards, "columns": self.columns, **rows}

    def record(self, name: str) -> Row:
        """A record by its name: `gcide/cpu-1thread/3`, `nanogpt/1/041`, `nanogpt/41` (track 1). Raises UserError."""
        board, number = parse_record(name)
        found = [row for row in self.records if row["board"] == board and row["record"].rpartition("/")[2] == number]
        if not found:
            raise UserError(f"{name}: no such record", "see speedrun board for the numbers, or name its board in full")
        return found[0]


def _known(row: Row) -> Row:
    return {name: value for name, value in row.items() if value is not None}


def parse_record(name: str) -> tuple[str, str]:
    """The board and the three-digit number in a record's name. Raises UserError."""
    matched = re.fullmatch(r"(?:records/)?([\w.-]+(?:/[\w.-]+)?)/(\d{1,4})([a-z]?)(?:-[\w.-]*)?/?", name)
    if matched is None:
        raise UserError(f"{name}: not the name of a record", "write BOARD/NUMBER, such as nanogpt/1/41")
    board, number, letter = matched.groups()
    return ("nanogpt/1" if board == "nanogpt" else board), f"{int(number):03d}{letter}"


def load(path: Path = FILE) -> Store:
    """Reads the file. Raises UserError where it is missing or of another version."""
    try:
        content = json.loads(read_file(path, MAX_BYTES, REMEDY))
        if content["schema"] != SCHEMA:
            raise UserError(f"{path}: schema {content['schema']}, not {SCHEMA}", REMEDY)
        return from_content(content)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: {type(error).__name__}: {error}", REMEDY) from None


def from_content(content: dict[str, Any]) -> Store:
    """The parsed file as boards and rows with every column: what is missing is None."""
    boards = {name: Board(name=name, **fields) for name, fields in content["boards"].items()}
    rows = {}
    for kind in KINDS:
        empty = dict.fromkeys(content["columns"][kind])
        rows[kind] = [empty | row for row in content[kind]]
    return Store(boards=boards, columns=content["columns"], **rows)
