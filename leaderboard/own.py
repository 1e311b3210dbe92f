"""The one place that reads records/<task>/<class>/: own records, runs, verifications and attempts to frame rows.

A record's folder is NNN-slug/ with record.json, the submission, and the attempt it rests on: plan.json, runs.jsonl (a
run a line) and verdict.json; verifications/*/verification.json lie in it. attempts/<id>/ has plan.json, and
verdict.json once it is decided. A folder without records gives no rows. What cannot be read raises UserError with the
file's name: a board with a hole would mislead.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.core.files import parse_json, read_file
from harness.errors import UserError
from harness.statistics import RatioEstimate, Slope, chain_product

Row = dict[str, Any]
MAX_BYTES = 8 << 20
REMEDY = "restore the file as it was filed: git checkout"
CANDIDATE = "candidate"
JUDGED = "JUDGED"
LEVEL = 0.99  # of the intervals of a chain, one-sided, as in its races


def records(folder: Path) -> list[Row]:
    """Every record, board by board; its speed-up is the product of the races of its chain."""
    rows: list[Row] = []
    for path in _record_files(folder):
        record, name = _object(path), _name(path.parent, folder)
        with _named(path):
            rows.append(_record(record, path.parent, name, path.parent.relative_to(folder), rows))
    return rows


def runs(folder: Path) -> list[Row]:
    """Every run of the races that the records rest on, those of the parent too."""
    found = []
    for path in _record_files(folder):
        name, record = _name(path.parent, folder), _object(path)
        with _named(path.parent / "runs.jsonl"):
            found += [_run(line, record, name, path.parent) for line in _lines(path.parent)]
    return found


def curves(folder: Path) -> list[Row]:
    """None: a run of ours is judged once, at its end."""
    return []


def methods(folder: Path) -> list[Row]:
    """Lifelines out of the methods that the records added and dropped."""
    standing: dict[tuple[str, str], Row] = {}
    ended: list[Row] = []
    for path in _record_files(folder):
        board, _, number = _name(path.parent, folder).rpartition("/")
        record = _object(path)
        with _named(path):
            gone: list[Row] = []
            for name in record["methods_dropped"]:
                if line := standing.pop((board, name), None):
                    gone.append(line | {"dropped": int(number), "dropped_on": record["filed"]})
            ended += gone
            for name in record["methods_added"]:
                declared = record["methods"][name]
                standing[board, name] = {
                    "history": board, "method": name, "name": name, "summary": declared["summary"],
                    "source": declared["source"], "kind": declared["kind"],
                    "introduced": int(number), "introduced_on": record["filed"],
                    "replaces": [line["method"] for line in gone if line["kind"] == declared["kind"]],
                    "evidence": f"declared in record {number} of {board}", "uncertain": False,
                }  # fmt: skip
    return sorted([*ended, *standing.values()], key=lambda row: (row["history"], row["introduced"], row["method"]))


def verifications(folder: Path) -> list[Row]:
    """Every finished verification of every record."""
    found = []
    for path in _record_files(folder):
        for file in sorted(path.parent.glob("verifications/*/verification.json")):
            table = _object(file)
            with _named(file):
                found.append(
                    {"record": _name(path.parent, folder), "date": table["date"][:10], "machine": table["machine"],
                     "verdict": table["verdict"], "agrees": table["agrees"], **_ratio(table["found"])}
                )  # fmt: skip
    return found


def attempts(folder: Path) -> list[Row]:
    """Every attempt that was planned; one without a verdict is not decided yet."""
    found = []
    for path in sorted(folder.glob("*/*/attempts/*/plan.json")):
        board = "/".join(path.relative_to(folder).parts[:2])
        plan, decided = _object(path), path.with_name("verdict.json")
        verdict = _object(decided) if decided.exists() else None
        with _named(path):
            reference = plan["arms"].get("reference")
            before, now = _methods_on(reference), _methods_on(plan["arms"][CANDIDATE])
            row = {
                "attempt": f"{board}/attempts/{path.parent.name}", "board": board, "date": plan["started"][:10],
                "title": plan["arms"][CANDIDATE]["title"], "reference": reference["word"] if reference else None,
                "methods_added": sorted(now - before), "methods_dropped": sorted(before - now),
            }  # fmt: skip
            if verdict is None:
                found.append(row | {"verdict": "not decided yet"})
                continue
        with _named(decided):
            loss = verdict["arms"][CANDIDATE]["mean_loss"]
            made = {"verdict": verdict["verdict"], "reason": verdict["reason"], "pairs": verdict["pairs"]}
            found.append(row | made | {"loss_mean": loss} | _ratio(verdict["equal_loss"]))
    return found


def _methods_on(arm: Row | None) -> set[str]:
    return {name for name, on in arm["methods"].items() if on} if arm else set()


def _record(record: Row, folder: Path, name: str, place: Path, before: list[Row]) -> Row:
    board, _, number = name.rpartition("/")
    counted = [line for line in _lines(folder) if _counts(line)]
    seconds = [line["seconds"] for line in counted]
    agreeing = sum(_object(file)["agrees"] for file in folder.glob("verifications/*/verification.json"))
    estimates = [*_estimates(board, before), *([record["estimate"]] if record["estimate"] else [])]
    return {
        "record": name, "board": board, "number": int(number), "kind": "record", "date": record["filed"],
        "title": record["title"], "authors": record["authors"], "score": record["seconds"], "score_unit": "seconds",
        "parent": _short(record["parent"]), "target": record["target"], "runs": record["runs"],
        "loss_mean": record["val_loss"], "loss_std": record["loss_spread"], "p_value": record["p_target"],
        "holdout_gap": record["holdout_gap"],
        "time_mean": record["seconds"], "time_std": statistics.stdev(seconds) if len(seconds) > 1 else None,
        "tokens": record["tokens"], "machine": record["machine"], "source": record["submission"],
        "trust": ", ".join(sorted({line["trust"] for line in counted})), "verified": agreeing, "reference": str(place),
        "estimates": estimates, **_ratio(record["ratio"]), **_speedup(estimates, record["slope"]),
        **_factors(_object(folder / "verdict.json")),
    }  # fmt: skip


def _estimates(board: str, before: list[Row]) -> list[Row]:
    """The races along the chain up to the record before."""
    return before[-1]["estimates"] if before and before[-1]["board"] == board else []


def _speedup(estimates: list[Row], slope: Row) -> Row:
    """The product of the chain's races with its limits; 1 for the first record."""
    if not estimates:
        return {"speedup": 1.0}
    product = chain_product([RatioEstimate(**race) for race in estimates]).interval(Slope(**slope), LEVEL)
    return {"speedup": product.ratio, "speedup_low": product.low, "speedup_high": product.high}


def _run(line: Row, record: Row, name: str, place: Path) -> Row:
    source = record["submission"] if line["arm"] == CANDIDATE else None
    return {
        "record": name, "board": name.rpartition("/")[0], "run": line["run_id"], "arm": line["arm"],
        "pair": line["block"],
        "counted": _counts(line), "loss": line["val_loss"], "seconds": line["seconds"],
        "complete": line["status"] == JUDGED, "machine": record["machine"],
        "source": source, "folder": place.name, "file": "runs.jsonl",
    }  # fmt: skip


def _counts(line: Row) -> bool:
    return bool(line["arm"] == CANDIDATE and line["status"] == JUDGED)


def _lines(record: Path) -> list[Row]:
    """runs.jsonl, without runs whose pair was repeated."""
    path = record / "runs.jsonl"
    lines = [_parsed(text, path) for text in read_file(path, MAX_BYTES, REMEDY, follow_link=False).splitlines()]
    with _named(path):
        last = {line["block"]: line["attempt"] for line in lines}
        return [line for line in lines if line["attempt"] == last[line["block"]]]


def _factors(verdict: Row) -> Row:
    """The ratio's split: tokens to the target times tokens per second."""
    return {f"ratio_{name}": verdict[name]["ratio"] if verdict[name] else None for name in ("tokens", "speed")}


def _ratio(interval: Row | None) -> Row:
    if interval is None:
        return {}
    return {"ratio": interval["ratio"], "ratio_low": interval["low"], "ratio_high": interval["high"]}


def _short(record_id: str | None) -> str | None:
    """task/class/NNN out of task/class/NNN-slug."""
    if record_id is None:
        return None
    board, _, place = record_id.rpartition("/")
    return f"{board}/{place[:3]}"


def _record_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*/[0-9][0-9][0-9]-*/record.json"))


def _name(record: Path, folder: Path) -> str:
    return str(_short(record.relative_to(folder).as_posix()))


def _object(path: Path) -> Row:
    return _parsed(read_file(path, MAX_BYTES, REMEDY, follow_link=False), path)


def _parsed(content: bytes, path: Path) -> Row:
    try:
        value = parse_json(content)
    except ValueError as error:
        raise UserError(f"{path}: {error}", REMEDY) from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: not a JSON object", REMEDY)
    return value


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """What is missing or of a wrong kind in a file becomes a UserError with its name."""
    try:
        yield
    except KeyError as error:
        raise UserError(f"{path}: {error.args[0]}: missing", REMEDY) from None
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: {error}", REMEDY) from None
