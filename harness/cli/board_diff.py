"""`speedrun board diff A B`: methods, hyperparameters and numbers on top, then the source."""

from __future__ import annotations

from typing import Any

from harness.cli import options, output
from harness.cli.board_show import RecordName

COLOURS = {"+": "green", "-": "red", "@": "cyan"}


def diff(first: RecordName, second: RecordName, as_json: options.Json = False, as_csv: options.Csv = False) -> None:
    """What differs between two records: methods, hyperparameters, numbers, then the source."""
    from leaderboard import store
    from leaderboard.compare import difference

    options.only_one_format(as_json, as_csv)
    known = store.load()
    found = difference(known, known.record(first), known.record(second))
    if as_json:
        output.as_json(found)
    elif as_csv:
        output.as_csv(("what", "name", "first", "second"), _as_rows(found))
    else:
        _print(found)


def _print(found: dict[str, Any]) -> None:
    output.line(f"{found['first']} -> {found['second']}", style="bold")
    for which in ("first", "second"):
        output.paragraph(f"methods only in {found[which]}: {', '.join(found['methods'][which]) or 'none'}")
    output.line()
    pairs = {f"hparam {name}": pair for name, pair in found["hparams"].items()} | found["facts"]
    rows = [(name, _shown(a), _shown(b)) for name, (a, b) in pairs.items()]
    output.table(("", found["first"], found["second"]), rows)
    output.line()
    if found["source"] is None:
        output.paragraph("No source is kept of both records. Theirs: " + ", ".join(found["references"]))
        return
    for text in found["source"]:
        output.line(text, COLOURS.get(text[:1]))


def _as_rows(found: dict[str, Any]) -> list[dict[str, Any]]:
    rows = [
        {"what": "method", "name": name, which: "on"}
        for which in ("first", "second")
        for name in found["methods"][which]
    ]
    for what in ("hparams", "facts"):
        rows += [{"what": what, "name": name, "first": a, "second": b} for name, (a, b) in found[what].items()]
    return rows


def _shown(value: object) -> object:
    if value is None:
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else value
