"""The one place that reads records/<task>/<class>/: own records, runs, verifications and attempts to frame rows.

A record's folder is NNN-slug/ with record.json and runs.jsonl (one run.json a line), verifications/*.json beside them;
attempts/<id>/ has verdict.json. Keys are those of `leaderboard.columns`; others are ignored. A folder without records
gives no rows. A file that cannot be read raises UserError with its name: a board with a hole would mislead.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.core.files import parse_json, read_file
from harness.errors import UserError

Row = dict[str, Any]
MAX_BYTES = 64 << 20
REMEDY = "restore the file as it was filed: git checkout"


def records(folder: Path) -> list[Row]:
    """record.json of every record, named by its place."""
    return [_record(path, folder) for path in _record_files(folder)]


def runs(folder: Path) -> list[Row]:
    """Every line of every runs.jsonl."""
    return [row for path in _record_files(folder) for row in _runs_of(path.parent, folder)]


def curves(folder: Path) -> list[Row]:
    """Points of the runs' logs that carry a validation loss."""
    return [
        {"board": row["board"], "folder": row["folder"], "run": row["run"]} | point
        for row in runs(folder)
        for point in row.get("curve_points") or ()
    ]


def methods(folder: Path) -> list[Row]:
    """Lifelines out of `methods_added` and `methods_dropped` of the records, board by board."""
    standing: dict[tuple[str, str], Row] = {}
    ended: list[Row] = []
    for record in records(folder):
        for name in record.get("methods_dropped") or ():
            if line := standing.pop((record["board"], name), None):
                ended.append(line | {"dropped": record["number"], "dropped_on": record.get("date")})
        for method in record.get("methods_added") or ():
            fields = method if isinstance(method, dict) else {"method": method}
            born = {"introduced": record["number"], "introduced_on": record.get("date")}
            key = record["board"], fields["method"]
            standing[key] = {"history": record["board"], "name": fields["method"], "uncertain": False} | fields | born
    return [*ended, *standing.values()]


def verifications(folder: Path) -> list[Row]:
    """Every JSON file in a record's verifications/."""
    found = []
    for path in _record_files(folder):
        for file in sorted(path.parent.glob("verifications/*.json")):
            found.append(_object(file) | {"record": _name(path.parent, folder)})
    return found


def attempts(folder: Path) -> list[Row]:
    """verdict.json of every attempt."""
    found = []
    for path in sorted(folder.glob("*/*/attempts/*/verdict.json")):
        board = "/".join(path.relative_to(folder).parts[:2])
        found.append(_object(path) | {"attempt": f"{board}/attempts/{path.parent.name}", "board": board})
    return found


def _record_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*/[0-9][0-9][0-9]-*/record.json"))


def _record(path: Path, folder: Path) -> Row:
    name = _name(path.parent, folder)
    board, _, number = name.rpartition("/")
    defaults = {
        "kind": "record",
        "score_unit": "seconds",
        "verified": len(list(path.parent.glob("verifications/*.json"))),
    }
    placed = {"record": name, "board": board, "number": int(number), "reference": str(path.parent.relative_to(folder))}
    fields = _object(path)
    if "score" not in fields and "seconds" in fields:
        fields["score"] = fields["seconds"]
    return defaults | fields | placed


def _runs_of(record: Path, folder: Path) -> list[Row]:
    path = record / "runs.jsonl"
    if not path.exists():
        return []
    name = _name(record, folder)
    rows = []
    for line in read_file(path, MAX_BYTES, REMEDY).splitlines():
        run = _parsed(line, path)
        placed = {
            "record": name, "board": name.rpartition("/")[0], "run": run.get("run_id"), "loss": run.get("val_loss"),
            "complete": run.get("state") == "done", "folder": record.name, "file": path.name,
        }  # fmt: skip
        rows.append({"counted": placed["complete"]} | run | placed)
    return rows


def _name(record: Path, folder: Path) -> str:
    task, hardware, place = record.relative_to(folder).parts
    return f"{task}/{hardware}/{place[:3]}"


def _object(path: Path) -> Row:
    return _parsed(read_file(path, MAX_BYTES, REMEDY), path)


def _parsed(content: bytes, path: Path) -> Row:
    try:
        value = parse_json(content)
    except ValueError as error:
        raise UserError(f"{path}: {error}", REMEDY) from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: not a JSON object", REMEDY)
    return value
