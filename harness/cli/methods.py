"""`speedrun methods [NAME]`: how long each method stood, and how many records were set by whom meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli import options, output
from harness.errors import UserError

if TYPE_CHECKING:
    from leaderboard.lifelines import Event, Lifeline, Span
    from leaderboard.store import Store

COLUMNS = (
    "id", "name", "kind", "summary", "source", "replaces",
    "introduced_record", "introduced_date", "dropped_record", "dropped_date",
    "records_while_it_stood", "people_who_set_them", "people_besides_introducers",
    "kin", "with_kin_dropped_record", "with_kin_dropped_date", "with_kin_records_while_it_stood",
    "with_kin_people_who_set_them", "uncertain", "evidence",
)  # fmt: skip
COST_COLUMNS = ("record", "method", "", "faster with it, equal loss", "lines", "seconds saved", "a line")
NARROW = 100  # columns of a terminal below which the kind of a method is left to its own page
MEANING = (
    "records: set after its introduction while it stood; people: who set them, each once (programs and groups are not "
    "people); with kin: the same for the line that what took its place continues"
)


def methods(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One method, with all it took part in.")] = None,
    task: Annotated[str, typer.Option(help="Task to show.")] = options.DEFAULT_TASK,
    hardware: options.HardwareName = options.DEFAULT_CLASS,
    history: options.History = None,
    track: options.Track = 1,
    as_of: options.AsOf = None,
    costs: Annotated[bool, typer.Option("--costs", help="What methods save and what they cost, by ablation.")] = False,
    svg: Annotated[Path | None, typer.Option("--svg", metavar="FILE", help="Write that as a picture.")] = None,
    as_json: options.Json = False,
    as_csv: options.Csv = False,
) -> None:
    """Show which methods survived: introduced, dropped, the records set meanwhile and the people who set them.

    With a name also what ablations found of it, and the attempts without it. --costs: seconds saved per line of code.
    """
    from leaderboard import store
    from leaderboard.lifelines import lifelines, parse_day

    options.only_one_format(as_json, as_csv)
    day = parse_day(as_of)
    known = store.load()
    board = options.board_name(task, hardware, history, track)
    if history is not None:
        known.board(board)
    if costs or svg is not None:
        _costs(known, board, svg, as_json, as_csv)
        return
    found = lifelines(known.methods_of(board), known.records_of(board), day)
    if name is not None:
        found = [_one(found, name, board)]
    if as_json:
        output.as_json(_table(known, board, day, found) | (_evidence(known, board, name) if name else {}))
    elif as_csv:
        output.as_csv(COLUMNS, [_flat(line.table()) for line in found])
    elif name is not None:
        _print_one(known, board, found[0])
    else:
        _print(known, board, day, found)


def _costs(known: Store, board: str, svg: Path | None, as_json: bool, as_csv: bool) -> None:
    """The ablations of a board's records: what methods save, and by how many lines; as a picture too."""
    rows = known.ablations_of(board)
    if svg is not None:
        _draw(rows, board, svg)
    columns = known.columns["ablations"]
    if as_json:
        output.as_json({"board": board, "ablations": rows})
    elif as_csv:
        output.as_csv(columns, rows)
    elif not rows:
        output.line(f"{board}: no ablation yet: speedrun ablate RECORD, then speedrun board export")
    else:
        output.line(f"what methods save and cost on {board}", style="bold")
        output.table(COST_COLUMNS, [_cost_row(row) for row in rows])


def _draw(rows: list[dict[str, Any]], board: str, path: Path) -> None:
    from leaderboard.charts import standalone
    from leaderboard.worth import tradeoff

    drawn = tradeoff(rows, None, (1080,))
    if not drawn:
        raise UserError(f"{board}: no ablation with a ratio yet", "speedrun ablate RECORD, then speedrun board export")
    try:
        path.write_text(standalone(drawn[0]), encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}", "choose a file you can write to") from None
    output.note(f"wrote {path}")


def _cost_row(row: dict[str, Any]) -> tuple[object, ...]:
    return (
        row["record"], ", ".join(row["methods"]), row["word"], _limits(row, "ratio", 3), row["lines"],
        _limits(row, "seconds_saved", 2), output.fixed(row["saved_per_line"], 3),
    )  # fmt: skip


def _limits(row: dict[str, Any], name: str, digits: int) -> str:
    """A value with its limits; empty where there is none."""
    if row[name] is None:
        return ""
    value, low, high = (output.fixed(row[field], digits) for field in (name, f"{name}_low", f"{name}_high"))
    return f"{value} ({low} to {high})"


def _evidence(known: Store, board: str, name: str) -> dict[str, Any]:
    """What was found of one method: the ablations that dropped it, and the attempts without it, or with it anew."""
    attempts = [row for row in known.attempts if row["board"] == board]
    return {
        "ablations": [row for row in known.ablations_of(board) if name in row["methods"]],
        "attempts_without_it": [row for row in attempts if name in (row["methods_dropped"] or ())],
        "attempts_with_it": [row for row in attempts if name in (row["methods_added"] or ())],
    }


def _one(found: list[Lifeline], name: str, board: str) -> Lifeline:
    for line in reversed(found):  # of a method that came back the present life
        if line.id == name:
            return line
    near = [line.id for line in found if name.lower() in line.id or name.lower() in line.name.lower()]
    known = f"there are {', '.join(near[:8])}" if near else "see speedrun methods for the names"
    raise UserError(f"{name}: no such method on {board} by then", known)


def _table(known: Store, board: str, day: str | None, found: list[Lifeline]) -> dict[str, Any]:
    fields = known.boards.get(board)
    records = known.records_of(board, day)
    return {
        "board": board,
        "as_of": day,
        "last_record": records[-1]["record"] if records else None,
        "provenance": records[-1]["trust"] if records else None,
        "source": fields.source if fields else None,
        "meaning": MEANING,
        "methods": [line.table() for line in found],
    }


def _flat(table: dict[str, Any]) -> dict[str, Any]:
    """The nested table of one method as one row."""
    row = dict(table) | {"kin": table["with_kin"]["kin"]}
    for prefix, span in (("", table), ("with_kin_", table["with_kin"])):
        for event in ("introduced", "dropped"):
            for field, value in (span[event] or {}).items():
                row[f"{prefix}{event}_{field}"] = value
        for count in ("records_while_it_stood", "people_who_set_them"):
            row[f"{prefix}{count}"] = span[count]
    return row


def _print(known: Store, board: str, day: str | None, found: list[Lifeline]) -> None:
    when = f" at the end of {day}" if day else ""
    output.line(f"methods on {board}{when}", style="bold")
    if not found:
        output.line("none: no record there has introduced one")
        return
    if board in known.boards and known.boards[board].imported:
        output.paragraph(f"{known.records_of(board)[0]['trust']}; facts from {known.boards[board].source}")
    output.paragraph(MEANING)
    output.line()
    columns = ("method", "kind", "from", "until", "records", "people", "with kin\nrecords", "with kin\npeople")
    shown = [index for index, name in enumerate(columns) if name != "kind" or output.console.width >= NARROW]
    output.table([columns[index] for index in shown], [[_row(line)[index] for index in shown] for line in found])
    standing = sum(line.span.dropped is None for line in found)
    output.line()
    output.line(f"{len(found)} methods, {standing} stand; one of them: speedrun methods NAME")


def _row(line: Lifeline) -> tuple[object, ...]:
    until = line.span.dropped.record if line.span.dropped else "stands"
    with_kin = (len(line.line.records), len(line.line.people)) if line.kin else ("", "")
    counts = len(line.span.records), len(line.span.people), *with_kin
    return line.id, line.kind, line.span.introduced.record, until, *counts


def _print_one(known: Store, board: str, line: Lifeline) -> None:
    titles = {row["number"]: row["title"] for row in known.records_of(board) if row["kind"] != "retiming"}
    output.paragraph(f"{line.id}: {line.name}", style="bold")
    if line.summary:
        output.paragraph(f"{line.summary} ({line.source})")
    output.paragraph(f"{line.kind}; {board}" + ("; the sources leave room" if line.uncertain else ""))
    output.paragraph(f"evidence: {line.evidence}")
    if line.replaces:
        output.paragraph(f"took the place of {', '.join(line.replaces)}")
    output.line()
    _print_span(line.span, titles)
    if line.kin:
        output.line()
        output.paragraph(f"with its kin ({', '.join(line.kin)}):")
        _print_span(line.line, titles)
    _print_evidence(_evidence(known, board, line.id))


def _print_evidence(found: dict[str, Any]) -> None:
    if any(found.values()):
        output.line()
    for row in found["ablations"]:
        together = f" (dropped together: {', '.join(row['methods'])})" if len(row["methods"]) > 1 else ""
        faster = f", {_limits(row, 'ratio', 4)} times as fast with it" if row["ratio"] is not None else ""
        text = f"in {row['record']}: {row['word']}{faster}, {row['lines']} lines{together}"
        output.paragraph_after("ablation    ", text)
    for key, label in (("attempts_without_it", "without it  "), ("attempts_with_it", "with it     ")):
        for row in found[key]:
            ratio = f", {_limits(row, 'ratio', 4)} times as fast" if row["ratio"] is not None else ""
            output.paragraph_after(label, f"{row['date']}, {row['title']}: {row['verdict']}{ratio}")


def _print_span(span: Span, titles: dict[int, str]) -> None:
    output.paragraph_after("introduced  ", _shown(span.introduced, titles))
    output.paragraph_after("dropped     ", _shown(span.dropped, titles) if span.dropped else "no: it stands")
    numbers = ", ".join(str(number) for number in span.records)
    output.paragraph_after("records     ", f"{len(span.records)} set while it stood: {numbers}")
    besides = f"{len(span.people)} in all, {span.people_besides_introducers} besides who introduced it"
    output.paragraph_after("people      ", f"{besides}: {', '.join(span.people)}")


def _shown(event: Event, titles: dict[int, str]) -> str:
    return f"record {event.record}, {event.date}: {titles.get(event.record, '')}"
