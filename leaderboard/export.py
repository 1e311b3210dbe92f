"""Everything that is generated out of the frames and kept in the repository; a test fails where one is stale.

    python -m leaderboard.export        # or: speedrun board export

leaderboard.json, the table between the markers of README.md, CITATION.cff, docs/badge.svg and docs/columns.md.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from harness.core.task import load_task
from harness.errors import UserError
from harness.paths import RECORDS, ROOT
from leaderboard import columns, frames, nanogpt, store
from leaderboard.lifelines import COUNTED_KINDS
from leaderboard.store import Store

DIGITS = 6  # significant digits of what is computed; what is stated has fewer
BEGIN = "<!-- board: written by `speedrun board export` -->"
END = "<!-- end of board -->"
DEFAULT_BOARD = "gcide/cpu-1thread"


def main() -> None:
    """Writes every generated file."""
    for path, text in generated().items():
        path.write_text(text)


def generated(records: Path = RECORDS) -> dict[Path, str]:
    """Every generated file and what it has to hold. Raises UserError for a record that cannot be read."""
    content = contents(frames.every(records))
    board = store.from_content(content)
    readme = ROOT / "README.md"
    return {
        store.FILE: dumped(content),
        readme: with_table(readme.read_text(), board),
        ROOT / "CITATION.cff": citation(),
        ROOT / "docs" / "badge.svg": badge(board),
        ROOT / "docs" / "columns.md": described_columns(),
    }


def contents(known: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    """What leaderboard.json holds, from the frames (`frames.every`)."""
    record_rows, method_rows = _rows(known["records"]), _rows(known["methods"])
    _add_methods(record_rows, method_rows)
    _add_runs(record_rows, known["runs"], known["curves"])
    extra = ["methods_added", "methods_dropped", "run_list", "curve", "pair_ratios"]
    return {
        "schema": store.SCHEMA,
        "boards": _boards(record_rows),
        "columns": {
            "records": [*columns.RECORDS, *extra],
            "methods": list(columns.METHODS),
            "verifications": list(columns.VERIFICATIONS),
            "attempts": list(columns.ATTEMPTS),
            "ablations": list(columns.ABLATIONS),
        },
        "records": record_rows,
        "methods": method_rows,
        "verifications": _rows(known["verifications"]),
        "attempts": _rows(known["attempts"]),
        "ablations": _rows(known["ablations"]),
    }


def dumped(content: dict[str, Any]) -> str:
    """JSON with one row a line, so that a diff shows which record changed. ASCII."""
    parts = []
    for name, value in content.items():
        if isinstance(value, list):
            rows = ",\n".join(json.dumps(row, allow_nan=False) for row in value)
            parts.append(f'"{name}": [\n{rows}\n]' if rows else f'"{name}": []')
        else:
            parts.append(f'"{name}": {json.dumps(value, allow_nan=False)}')
    return "{\n" + ",\n".join(parts) + "\n}\n"


def with_table(readme: str, board: Store) -> str:
    """The README with its table renewed. Raises UserError where the markers are gone."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UserError("README.md: the markers of the table of records are gone", f"put back {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{table(board)}\n{END}{after}"


def table(board: Store) -> str:
    """The reigning record of every board, in Markdown, and what does not compare with today's measurements."""
    rows = ["| board | records | standing | set | by | speed-up | evidence |", "|---|---|---|---|---|---|---|"]
    notes = []
    for name, fields in board.boards.items():
        best = board.reigning(name)
        if best is None:
            rows.append(f"| `{name}` | 0 | no record yet | | | | |")
            continue
        score = f"{fields.shown_score(best['score'])} {fields.shown_unit}"
        by = ", ".join(best["authors"]).replace("|", "\\|")
        count = sum(row["board"] == name and row["kind"] in COUNTED_KINDS for row in board.records)
        speedup = f"{best['speedup']:.2f}x over {fields.speedup_over}" if best["speedup"] else ""
        rows.append(f"| `{name}` | {count} | {score} | {best['date']} | {by} | {speedup} | {best['trust']} |")
        if best["note"] and not fields.imported:
            notes.append(f"\n`{name}`: {best['note']}")
    return "\n".join([*rows, *notes])


def citation() -> str:
    """CITATION.cff, from pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return (
        "# written by `speedrun board export`\n"
        "cff-version: 1.2.0\n"
        "message: If you use this software or its records, please cite it.\n"
        "type: software\n"
        f"title: {project['name']}\n"
        f"abstract: {project['description']}\n"
        f"version: {project['version']}\n"
        f"license: {project['license']}\n"
        "authors:\n"
        f"  - name: The {project['name']} contributors\n"
    )


def described_columns() -> str:
    """docs/columns.md: every column of every frame."""
    parts = [
        "# The frames\n\nWritten by `speedrun board export` from `leaderboard/columns.py`. `import leaderboard` gives "
        "each\nas a pandas frame, such as `leaderboard.records()`; the site has them as CSV and Parquet.\n\n"
        f"{columns.CONVENTIONS}\n"
    ]
    for name, described in columns.FRAMES.items():
        rows = "\n".join(f"| `{column}` | {what.shown_type} | {what.what} |" for column, what in described.items())
        parts.append(f"\n## {name}\n\n| column | type | what it is |\n|---|---|---|\n{rows}\n")
    return "".join(parts)


def badge(board: Store) -> str:
    """A small picture of the default board's standing, for a README."""
    best = board.reigning(DEFAULT_BOARD)
    says = "no record yet" if best is None else f"{board.boards[DEFAULT_BOARD].shown_score(best['score'])} s"
    left, right = _text_width(DEFAULT_BOARD), _text_width(says)
    label = escape(f"{DEFAULT_BOARD}: {says}")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + right}" height="20" role="img" aria-label="{label}">\n'
        f"<title>{label}</title>\n"
        f'<rect width="{left + right}" height="20" rx="3" fill="#2b2b2b"/>\n'
        f'<path d="M{left} 0h{right - 3}a3 3 0 0 1 3 3v14a3 3 0 0 1 -3 3h-{right - 3}z" fill="#1f5f8b"/>\n'
        '<g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11" text-anchor="middle">\n'
        f'<text x="{left / 2}" y="14">{escape(DEFAULT_BOARD)}</text>\n'
        f'<text x="{left + right / 2}" y="14">{escape(says)}</text>\n'
        "</g>\n</svg>\n"
    )


def _text_width(text: str) -> int:
    return 7 * len(text) + 10


def _boards(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Own boards first: the default one always, others once they have a record; then the imported tracks."""
    names = dict.fromkeys([DEFAULT_BOARD, *(row["board"] for row in rows)])
    own, imported = {}, {}
    for name in names:
        if name.startswith("nanogpt/"):
            imported[name] = _imported_board(int(name[-1]))
        else:
            own[name] = _own_board(name, [row for row in rows if row["board"] == name])
    return own | imported


def _own_board(name: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """A board of ours; one of a task that this harness no longer has is described by its last record."""
    task_name, _, hardware = name.partition("/")
    try:
        task = load_task(task_name)
        title, target, provisional = task.title, task.target.val_loss, task.target.provisional
        unit = "steps" if task.step_tokens else "seconds"
    except UserError:
        title, target, provisional, unit = task_name, rows[-1]["target"], False, rows[-1]["score_unit"]
    return {
        "title": f"{title}, on {hardware}",
        "target": target,
        "target_provisional": provisional,
        "unit": unit,
        "imported": False,
        "source": "records/",
    }


def _imported_board(track: int) -> dict[str, Any]:
    return {
        "title": nanogpt.TITLES[track],
        "target": nanogpt.TARGETS[track],
        "target_provisional": False,
        "unit": "steps" if track == 3 else "seconds",
        "imported": True,
        "source": nanogpt.REPOSITORY,
    }


def _add_methods(records: list[dict[str, Any]], methods: list[dict[str, Any]]) -> None:
    """Which methods each record added and dropped, by the lifelines of its board."""
    events: dict[tuple[str, str, int], list[str]] = {}
    for method in methods:
        for event in ("introduced", "dropped"):
            if event in method:
                events.setdefault((event, method["history"], method[event]), []).append(method["method"])
    for record in records:
        if record["kind"] != "retiming":
            record["methods_added"] = events.get(("introduced", record["board"], record["number"]), [])
            record["methods_dropped"] = events.get(("dropped", record["board"], record["number"]), [])


def _add_runs(records: list[dict[str, Any]], runs: pd.DataFrame, curves: pd.DataFrame) -> None:
    """The runs of each record, and the curve of the counted one whose loss is the median."""
    by_record: dict[str, list[Any]] = {}
    for run in runs[runs.record.notna()].itertuples(index=False):
        by_record.setdefault(run.record, []).append(run)
    by_run = curves.groupby(nanogpt.RUN_KEY, dropna=False).indices
    for record in records:
        found = by_record.get(record["record"], [])
        if not found:
            continue
        record["run_list"] = [[_plain(getattr(run, name)) for name in store.RUN_FIELDS] for run in found]
        if any(pd.notna(run.pair) for run in found):
            record["pair_ratios"] = _pair_ratios(found)
        counted = sorted((run for run in found if run.counted and pd.notna(run.loss)), key=lambda run: run.loss)
        if counted:
            median = counted[(len(counted) - 1) // 2]
            places = by_run.get(tuple(getattr(median, name) for name in nanogpt.RUN_KEY), [])
            record["curve"] = _points(curves, places, record.get("steps"))


def _points(curves: pd.DataFrame, places: Sequence[int], last: int | None) -> list[list[Any]]:
    """The points of a curve up to a step."""
    if not len(places):
        return []
    points = curves.iloc[places]
    shown = points if last is None else points[points.step <= last]
    return [[_plain(value) for value in row] for row in shown[list(store.POINT_FIELDS)].itertuples(index=False)]


def _pair_ratios(runs: Sequence[Any]) -> list[Any]:
    """Seconds of the reference over those of the candidate, of every pair that has both."""
    seconds = {(run.pair, run.arm): run.seconds for run in runs if run.complete and pd.notna(run.pair)}
    pairs = sorted({pair for pair, _ in seconds})
    whole = [pair for pair in pairs if {(pair, "candidate"), (pair, "reference")} <= seconds.keys()]
    return [_plain(seconds[pair, "reference"] / seconds[pair, "candidate"]) for pair in whole]


def _rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """A frame's rows as plain dictionaries without what is missing."""
    plain = [{name: _plain(value) for name, value in row.items()} for row in frame.to_dict("records")]
    return [{name: value for name, value in row.items() if value is not None} for row in plain]


def _plain(value: Any) -> Any:
    """A value as JSON has it; missing ones are None."""
    if isinstance(value, list):
        return value
    if pd.isna(value):
        return None
    if isinstance(value, pd.Timestamp):
        return value.date().isoformat()
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return value


if __name__ == "__main__":
    main()
