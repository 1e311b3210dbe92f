"""The journal: a line when a run starts and one when it ends, failed or not, each chained to the line before.

A line is canonical JSON (ASCII, sorted keys, no spaces) and a newline, with exactly the fields of `Entry` and
`version`. `previous` is the sha256 of the preceding line's bytes without its newline (zeros in the first),
`hash` that of the line as it would be without the field `hash`. Lines are only ever appended, each by one
write under a lock on the journal itself and then fsync. What a killed writer leaves, the beginning of a line
without its newline, is never taken as an entry; the next append removes it and says how many bytes it was.
Anything else after the last newline was not left by a writer: it is reported and never removed.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from harness.core.files import parse_json
from harness.errors import UserError
from harness.journal_file import MOVE_ASIDE, content_of, locked, naming, read_whole, sync_folder, write_line

VERSION = 1
MAX_LINE_BYTES = 64 * 1024
MAX_PROBLEMS = 1000  # one edited line is enough to know; a file of noise must not fill the memory with reports
ENTRY_BEGINS = b'{"bundle_digest":'
FIRST_PREVIOUS = "0" * 64
CANNOT_FIND = (
    "This check cannot find a chain that was made again as a whole, nor lines cut off the end, unless the "
    "last hash was published elsewhere: then `speedrun journal verify --expect HASH` finds both."
)

_TEXT_OR_NONE = (str, type(None))
_FIELDS: dict[str, tuple[type, ...]] = {
    "version": (int,),
    "sequence": (int,),
    "time": (str,),
    "event": (str,),
    "run": (str,),
    "status": _TEXT_OR_NONE,
    "bundle_digest": _TEXT_OR_NONE,
    "facts": (dict,),
    "recovered_bytes": (int,),
    "previous": (str,),
    "hash": (str,),
}


@dataclass(frozen=True)
class Entry:
    """One line. `status` and `bundle_digest` are null at a start; `time` is UTC in ISO 8601.

    `recovered_bytes` is the size of the torn line that this append found after a killed writer and removed.
    """

    sequence: int
    time: str
    event: Literal["start", "end"]
    run: str
    status: str | None
    bundle_digest: str | None
    facts: dict[str, Any]
    recovered_bytes: int
    previous: str
    hash: str


@dataclass(frozen=True)
class Finding:
    """What `verify` has to say about one line, counted from 1; 0 stands for the file as a whole."""

    line: int
    what: str


@dataclass
class Verification:
    """What `verify` found. `notes` and `unfinished` (started, no end) are information, `problems` are not."""

    lines: int = 0
    runs: int = 0
    last_hash: str = FIRST_PREVIOUS
    unfinished: list[str] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)
    problems: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.problems


class Journal:
    """Appends to and reads one journal file, which need not exist yet. Every method raises UserError.

    Several processes may append at once. An append that fails leaves the file as it was.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    def start(self, run_id: str, **facts: Any) -> None:
        """Records that a run was started. Facts are JSON values; numbers that are not finite become text."""
        self._append("start", run_id, None, None, facts)

    def end(self, run_id: str, status: str, bundle_digest: str | None, **facts: Any) -> None:
        """Records how a started run ended; `bundle_digest` is None where it left no bundle."""
        self._append("end", run_id, status, bundle_digest, facts)

    def entries(self) -> list[Entry]:
        """Every whole line, oldest first; none where there is no journal yet. Damage raises UserError."""
        with naming(self.path):
            try:
                lines, _ = _split(read_whole(self.path))
            except FileNotFoundError:
                return []
        return [self._parsed(number, line) for number, line in enumerate(lines, start=1)]

    def _append(
        self, event: str, run_id: str, status: str | None, bundle_digest: str | None, facts: dict[str, Any]
    ) -> None:
        with naming(self.path), locked(self.path, write=True) as descriptor:
            content = content_of(descriptor, self.path)
            lines, torn = _split(content)
            if not _left_by_a_writer(torn):
                what = f"{len(torn):,} bytes after its last line, which no writer of the journal left"
                raise UserError(f"{self.path}: {what}", MOVE_ASIDE)
            self._check_order(event, run_id, lines)
            table = {
                "version": VERSION,
                "sequence": self._parsed(len(lines), lines[-1]).sequence + 1 if lines else 1,
                "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
                "event": event,
                "run": run_id,
                "status": status,
                "bundle_digest": bundle_digest,
                "facts": _plain(facts),
                "recovered_bytes": len(torn),
                "previous": _sha256(lines[-1]) if lines else FIRST_PREVIOUS,
            }
            line = self._encoded(table)
            if len(line) > MAX_LINE_BYTES:
                raise UserError(
                    f"{self.path}: the line of run {run_id[:100]!r} would be {len(line):,} bytes, more than "
                    f"{MAX_LINE_BYTES:,}",
                    "shorten the facts given with it; long text belongs in the run's bundle",
                )
            write_line(descriptor, line, len(content) - len(torn), torn)
            if not lines:
                sync_folder(self.path.parent)

    def _check_order(self, event: str, run_id: str, lines: list[bytes]) -> None:
        """A run starts once and ends once, after its start; only the lines that can name it are parsed."""
        named = b'"run":' + _canonical(run_id)
        candidates = [(number, line) for number, line in enumerate(lines, start=1) if named in line]
        entries = [self._parsed(number, line) for number, line in candidates]
        seen = [entry.event for entry in entries if entry.run == run_id]
        if seen != ([] if event == "start" else ["start"]):
            what = f"is already there ({', '.join(seen)})" if seen else "was never started"
            remedy = "a run starts once and ends once, under an id of its own"
            raise UserError(f"{self.path}: {event} of run {run_id!r}: the run {what}", remedy)

    def _encoded(self, table: dict[str, Any]) -> bytes:
        """The line of these fields, which is only written if it can be read again."""
        try:
            line = _canonical({**table, "hash": _sha256(_canonical(table))})
            if len(line) < MAX_LINE_BYTES:
                _parse(line)
        except (TypeError, ValueError, RecursionError) as error:
            raise UserError(f"{self.path}: facts that the journal cannot hold: {error}", "give plain values") from None
        return line + b"\n"

    def _parsed(self, number: int, line: bytes) -> Entry:
        try:
            return _parse(line)
        except ValueError as error:
            raise UserError(f"{self.path}: line {number}: {error}", MOVE_ASIDE) from None


def verify(path: Path | str, expect: str | None = None) -> Verification:
    """Checks every line, the chain between them, and that each run starts once and ends at most once.

    `expect` is a line's hash published elsewhere: that it is no longer in the chain is a problem.
    Raises UserError where the file cannot be read at all.
    """
    with naming(Path(path)):
        lines, torn = _split(read_whole(Path(path)))
    found = Verification(lines=len(lines))
    finished: dict[str, bool] = {}
    previous, sequence = FIRST_PREVIOUS, 1
    expected_at = None
    for number, line in enumerate(lines, start=1):
        try:
            entry = _parse(line)
        except ValueError as error:
            found.problems.append(Finding(number, str(error)))
            sequence += 1
        else:
            found.problems += _chain_problems(number, entry, previous, sequence)
            found.problems += _order_problems(number, entry, finished)
            if entry.recovered_bytes:
                what = f"removed a torn line of {entry.recovered_bytes} bytes that a killed writer left"
                found.notes.append(Finding(number, what))
            if entry.hash == expect:
                expected_at = number
            found.last_hash = entry.hash
            sequence = entry.sequence + 1
        previous = _sha256(line)
        if len(found.problems) >= MAX_PROBLEMS:
            found.problems.append(Finding(0, f"stopped at line {number:,} of {len(lines):,}: too many problems"))
            break
    if torn:
        what = "a write was cut short; the next append removes them"
        if not _left_by_a_writer(torn):
            what = "no writer of the journal left them, and it takes no further line"
        found.problems.append(Finding(len(lines) + 1, f"{len(torn):,} bytes without newline: {what}"))
    if expected_at:
        found.notes.append(Finding(expected_at, "has the expected hash"))
    elif expect:
        what = f"no line has the hash {expect}: lines were cut off the end, or the chain was made again"
        found.problems.append(Finding(0, what))
    found.runs = len(finished)
    found.unfinished = [run for run, ended in finished.items() if not ended]
    return found


def _chain_problems(number: int, entry: Entry, previous: str, sequence: int) -> list[Finding]:
    if entry.previous == previous and entry.sequence == sequence:
        return []
    place = f"sequence {entry.sequence} where {sequence} belongs" if entry.sequence != sequence else "hash differs"
    what = f"does not continue the line before it ({place}): edited, dropped, moved, inserted or repeated here"
    return [Finding(number, what)]


def _order_problems(number: int, entry: Entry, finished: dict[str, bool]) -> list[Finding]:
    """Enters the line into `finished` (run: has it ended) and says what does not fit."""
    ended = finished.get(entry.run)
    if entry.event == "start":
        finished.setdefault(entry.run, False)
        return [] if ended is None else [Finding(number, f"second start of run {entry.run!r}")]
    finished[entry.run] = True
    if ended is None:
        return [Finding(number, f"end of run {entry.run!r} without a start")]
    return [Finding(number, f"second end of run {entry.run!r}")] if ended else []


def _parse(line: bytes) -> Entry:
    """The entry of one line without its newline. Raises ValueError that says what is wrong."""
    if len(line) >= MAX_LINE_BYTES:
        raise ValueError(f"longer than a line can be ({len(line):,} bytes)")
    try:
        table = parse_json(line)
        canonical = _canonical(table)
    except ValueError:
        raise ValueError("not an entry: not valid JSON") from None
    if not isinstance(table, dict) or table.keys() != _FIELDS.keys():
        raise ValueError("not an entry: its fields are not those of a journal line")
    wrong = [name for name, types in _FIELDS.items() if type(table[name]) not in types]
    if wrong or table["event"] not in ("start", "end"):
        raise ValueError(f"not an entry: wrong value of {wrong[0] if wrong else 'event'}")
    if table["sequence"] < 1 or not 0 <= table["recovered_bytes"] <= MAX_LINE_BYTES:
        raise ValueError("not an entry: a count out of range")
    if table["version"] != VERSION:
        raise ValueError(f"version {table['version']} where this harness knows version {VERSION}")
    if line != canonical:
        raise ValueError("edited: not in the form in which the journal writes")
    claimed = table.pop("hash")
    if claimed != _sha256(_canonical(table)):
        raise ValueError("edited: its content does not match its hash")
    del table["version"]
    return Entry(**table, hash=claimed)


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def _plain(value: Any) -> Any:
    """The same value as JSON reads it back: keys are text, and a diverged loss is the text "nan" or "inf"."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(float(value))
    return value


def _left_by_a_writer(torn: bytes) -> bool:
    """Whether this can be the beginning of a line whose write was cut short.

    After a power cut a file system may have the file's new length but zeros in place of what was written.
    """
    written = torn.rstrip(b"\0")
    begins_well = written.startswith(ENTRY_BEGINS) or ENTRY_BEGINS.startswith(written)
    return begins_well and len(torn) < MAX_LINE_BYTES


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _split(content: bytes) -> tuple[list[bytes], bytes]:
    """The whole lines without their newlines, and what follows the last newline."""
    *lines, torn = content.split(b"\n")
    return lines, torn
