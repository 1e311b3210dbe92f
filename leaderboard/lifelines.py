"""How long did a method stand, and who built on it? Standard library only: read by verbs within half a second.

A method stands from the record that introduced it up to, not including, the first record without it. A record was
*set while it stood* if its number lies between the two: the introducing record itself is not counted, nor are upgrades
of software and re-timings, which nobody set by a method. The method's *line* goes on in its kin: what took its place,
what took the place of that, and so on. While any of them stood the line stood, and the record that swapped one for the
next counts for the line. A method that comes back has another life, with a lifeline of its own.
"""

from __future__ import annotations

import datetime
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from harness.errors import UserError

SYSTEMS = ("ai system",)  # a credit that begins so names a program
GROUPS = ("llm.c contributors", "the enigma project")
COUNTED_KINDS = ("record", "race", "baseline")  # records that somebody set: imported ones, and our own two kinds


@dataclass(frozen=True)
class Event:
    """An introduction or a drop: the record's number and its day (ISO 8601), where known."""

    record: int
    date: str | None


@dataclass(frozen=True)
class Span:
    """What happened between an introduction and a drop (None: still standing).

    records: numbers of the records set meanwhile; people: who set them, each once; people_besides_introducers: those
    among them that the introducing record does not credit. Programs and groups that are credited are no people.
    """

    introduced: Event
    dropped: Event | None
    records: list[int]
    people: list[str]
    people_besides_introducers: int


@dataclass(frozen=True)
class Lifeline:
    """A method's own span, and that of its line with the kin that succeeded it."""

    id: str
    name: str
    kind: str
    summary: str
    source: str
    span: Span
    kin: list[str]
    line: Span
    replaces: list[str]
    uncertain: bool
    evidence: str

    def table(self) -> dict[str, Any]:
        """For `--json`: the counts first, then what is counted."""
        return {
            "id": self.id,
            "name": self.name,
            "kind": self.kind,
            "summary": self.summary or None,
            "source": self.source or None,
            **_span_table(self.span),
            "with_kin": {"kin": self.kin, **_span_table(self.line)},
            "replaces": self.replaces,
            "uncertain": self.uncertain,
            "evidence": self.evidence,
        }


def lifelines(
    methods: Sequence[dict[str, Any]], records: Iterable[dict[str, Any]], as_of: str | None = None
) -> list[Lifeline]:
    """The lifelines of one board's methods, in order of introduction, as they were known at the end of a day.

    methods, records: rows of the frames (`leaderboard.columns`) as dictionaries, dates ISO 8601 or None. A record
    without a date counts as of the day of the one before it.
    """
    rows = dated(records)
    known = _Records([row for row in rows if as_of is None or row["date"] is None or row["date"] <= as_of])
    born = [method for method in methods if not _after(method["introduced_on"], as_of)]
    lives: dict[_Life, dict[str, Any]] = {_life(method): method for method in born}
    successors: dict[_Life, list[_Life]] = {}
    for method in born:
        for replaced in method["replaces"]:
            if before := _latest(lives, replaced, method["introduced"]):
                successors.setdefault(before, []).append(_life(method))
    return [
        _lifeline(method, lives, successors, known, as_of) for method in sorted(born, key=lambda m: m["introduced"])
    ]


_Life = tuple[str, int]  # of which method, and from which record on


def _life(method: dict[str, Any]) -> _Life:
    return method["method"], method["introduced"]


def _latest(lives: Iterable[_Life], name: str, number: int) -> _Life | None:
    """The last life of a method that began by that record."""
    return max((life for life in lives if life[0] == name and life[1] <= number), default=None)


def dated(records: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Records in order; one without a date has that of the one before it."""
    out: list[dict[str, Any]] = []
    for row in records:
        out.append(row | {"date": row["date"] or (out[-1]["date"] if out else None)})
    return out


def parse_day(text: str | None) -> str | None:
    """An ISO 8601 day as it was given. Raises UserError for anything else."""
    if text is None:
        return None
    try:
        return datetime.date.fromisoformat(text).isoformat()
    except ValueError:
        raise UserError(f"--as-of {text!r}: not a day", "write it as 2025-12-31") from None


def people_of(credits: Iterable[str]) -> list[str]:
    """The people among those credited: no programs, no groups."""
    return [who for who in credits if not who.lower().startswith(SYSTEMS) and who.lower() not in GROUPS]


class _Records:
    """Records by number: a board of a thousand has as many methods, each of which asks which records it stood in."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        counted = [row | {"people": people_of(row["authors"])} for row in rows if row["kind"] in COUNTED_KINDS]
        self._counted = sorted(counted, key=lambda row: row["number"])
        self._numbers = [row["number"] for row in self._counted]
        self.authors: dict[int, set[str]] = {}
        for row in rows:
            self.authors.setdefault(row["number"], set()).update(row["authors"])

    def stood(self, spans: list[tuple[Event, Event | None]], first: int) -> list[dict[str, Any]]:
        """The counted records from number `first` on in which any of the spans stood."""
        places: set[int] = set()
        for begin, end in spans:
            low = bisect_left(self._numbers, max(first, begin.record))
            places.update(range(low, bisect_left(self._numbers, end.record) if end else len(self._numbers)))
        return [self._counted[place] for place in sorted(places)]


def _lifeline(
    method: dict[str, Any],
    lives: dict[_Life, dict[str, Any]],
    successors: dict[_Life, list[_Life]],
    known: _Records,
    as_of: str | None,
) -> Lifeline:
    kin: list[_Life] = []
    waiting = list(successors.get(_life(method), ()))
    while waiting:
        life = waiting.pop(0)
        if life not in kin:
            kin.append(life)
            waiting += successors.get(life, ())
    spans = [_stood(member, as_of) for member in (method, *(lives[life] for life in kin))]
    own = _span(spans[:1], known)
    return Lifeline(
        id=method["method"],
        name=method["name"],
        kind=method["kind"],
        summary=method.get("summary") or "",
        source=method.get("source") or "",
        span=own,
        kin=list(dict.fromkeys(name for name, _ in kin)),
        line=_span(spans, known) if kin else own,
        replaces=list(method["replaces"]),
        uncertain=bool(method.get("uncertain")),
        evidence=method.get("evidence") or "",
    )


def _stood(method: dict[str, Any], as_of: str | None) -> tuple[Event, Event | None]:
    ended = method["dropped"] is not None and not _after(method["dropped_on"], as_of)
    end = Event(method["dropped"], method["dropped_on"]) if ended else None
    return Event(method["introduced"], method["introduced_on"]), end


def _span(spans: list[tuple[Event, Event | None]], known: _Records) -> Span:
    """The records after the first introduction at which any of the spans stood."""
    introduced = min((begin for begin, _ in spans), key=lambda event: event.record)
    ends = [end for _, end in spans]
    dropped = None if None in ends else max((end for end in ends if end), key=lambda event: event.record)
    meanwhile = known.stood(spans, introduced.record + 1)
    people = list(dict.fromkeys(who for row in meanwhile for who in row["people"]))
    introducers = known.authors.get(introduced.record, set())
    besides = sum(who not in introducers for who in people)
    return Span(introduced, dropped, [row["number"] for row in meanwhile], people, besides)


def _span_table(span: Span) -> dict[str, Any]:
    return {
        "introduced": asdict(span.introduced),
        "dropped": asdict(span.dropped) if span.dropped else None,
        "records_while_it_stood": len(span.records),
        "people_who_set_them": len(span.people),
        "people_besides_introducers": span.people_besides_introducers,
        "records": span.records,
        "people": span.people,
    }


def _after(day: str | None, as_of: str | None) -> bool:
    return day is not None and as_of is not None and day > as_of
