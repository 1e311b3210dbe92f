"""Known ways to fool a board of this kind, and what this harness does about each: the data is in cheats.toml.

    python -m harness.checks.cheats       # writes docs/cheats.md

A kind is a way to cheat or to fool oneself; the list is ordered by how often it hit public boards. A cheat is a small
submission in tests/cheats/ that tries it, and the tests there hold it to the ending that stands here.
"""

from __future__ import annotations

import tomllib
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from harness.checks.rules import between_markers
from harness.paths import ROOT

TABLE = Path(__file__).with_name("cheats.toml")
PAGE = ROOT / "docs" / "cheats.md"
BEGIN = "<!-- cheats: written by `python -m harness.checks.cheats` -->"
END = "<!-- end of cheats -->"

Status = Literal["prevented", "detected", "recorded"]
STRENGTH: tuple[Status, ...] = ("recorded", "detected", "prevented")  # from the weakest


@dataclass(frozen=True)
class Cheat:
    """A submission in tests/cheats/ that cheats. `ends` is `prevented` where it gains nothing, `recorded` where only a
    person can judge it, else the reason of failure, the rule or the review flag that names it. `twin` is an honest
    submission close to it, which passes.
    """

    name: str
    what: str
    ends: str
    twin: str = ""

    @property
    def status(self) -> Status:
        return self.ends if self.ends in ("prevented", "recorded") else "detected"  # type: ignore[return-value]


@dataclass(frozen=True)
class Kind:
    """A way to cheat, and the defence. It is shown by cheats, or by `tests` where no submission can try it."""

    id: str
    what: str
    defence: str
    cheats: tuple[Cheat, ...]
    tests: tuple[str, ...]
    status: Status

    @property
    def shown_by(self) -> list[str]:
        """Cheats with their endings, then tests."""
        return [*(f"{cheat.name} ({cheat.ends})" for cheat in self.cheats), *self.tests]


@cache
def cheats() -> dict[str, Cheat]:
    """Every cheat by name."""
    return {name: Cheat(name, **row) for name, row in _table()["cheats"].items()}


@cache
def kinds() -> tuple[Kind, ...]:
    """Every kind, in order. The status is that of its weakest cheat; without cheats it stands in the row."""
    return tuple(_kind(id, row) for id, row in _table()["kinds"].items())


def _kind(id: str, row: dict) -> Kind:
    shown = tuple(cheats()[name] for name in row.get("cheats", ()))
    status = min((cheat.status for cheat in shown), key=STRENGTH.index, default=row.get("status"))
    assert status is not None and ("status" in row) != bool(shown), f"{id}: give either cheats or a status"
    return Kind(id, row["what"], row["defence"], shown, tuple(row.get("tests", ())), status)


def count_by_status() -> dict[Status, int]:
    """How many kinds are prevented, detected and recorded."""
    found = Counter(kind.status for kind in kinds())
    return {status: found[status] for status in reversed(STRENGTH)}


def summary() -> str:
    """The counts in a sentence."""
    counted = ", ".join(f"{count} {status}" for status, count in count_by_status().items())
    return f"{len(kinds())} kinds: {counted}."


def markdown() -> str:
    """Both tables, as they stand in docs/cheats.md."""
    rows = [
        f"| `{kind.id}` | {kind.what} | {kind.defence} | {kind.status} | {', '.join(map(_code, kind.shown_by))} |"
        for kind in kinds()
    ]
    tried = [
        f"| `{cheat.name}` | {cheat.what} | {_code(cheat.ends)} | {_code(cheat.twin)} |" for cheat in cheats().values()
    ]
    return "\n".join(
        [
            summary(), "",
            "| kind | what it is | what stands against it | status | shown by |", "|---|---|---|---|---|", *rows, "",
            "| cheat | what it does | how it ends | honest twin |", "|---|---|---|---|", *tried,
        ]
    )  # fmt: skip


def with_table(text: str) -> str:
    """A page with the tables between its markers renewed. Raises UserError where it has no markers."""
    return between_markers(text, markdown(), BEGIN, END, PAGE)


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


@cache
def _table() -> dict:
    return tomllib.loads(TABLE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text()))
