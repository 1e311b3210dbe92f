"""The imported history of the public NanoGPT speedrun: facts in history/nanogpt/ to the frames' columns.

What the public table states (minutes, steps) is kept as stated. Losses, spreads and p-values are computed here, from
the archived runs: those of the linked log's source that went to its steps, each curve once.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd

from harness.statistics.student import mean_and_spread, one_sided_p

FOLDER = Path(__file__).parent / "history" / "nanogpt"
REPOSITORY = "https://github.com/KellerJordan/modded-nanogpt"
TRUST = "self-reported, not raced here"
TARGETS = {1: 3.28, 2: 2.92, 3: 3.28}
TITLES = {
    1: "GPT-2 small on FineWeb to 3.28, minutes on 8xH100",
    2: "GPT-2 medium on FineWeb to 2.92, minutes on 8xH100",
    3: "One model and batch on FineWeb to 3.28, optimizer steps",
}
TRACK_3_FOLDER = "records/track_3_optimization/"
TRACK_3_TOKENS_A_STEP = 524_288
# One result is the loss of averaged weights, which its logs print beside the plain one.
TRACK_3_AVERAGED = {46: re.compile(r"val_ema_loss:([\d.]+)")}
RUN_KEY = ["folder", "file", "run"]


def board_name(track: int) -> str:
    return f"nanogpt/{track}"


@cache
def table(name: str) -> pd.DataFrame:
    """One of the CSV files, as it is."""
    return pd.read_csv(FOLDER / f"{name}.csv", dtype={"source_sha": "str", "curve_sha": "str", "torch": "str"})


@cache
def curves() -> pd.DataFrame:
    """Every archived validation loss, in the columns of `leaderboard.columns.CURVES`."""
    raw = pd.read_parquet(FOLDER / "curves.parquet")
    return pd.DataFrame(
        {
            "board": raw.track.map(board_name),
            "folder": raw.record_dir,
            "file": raw.log_file,
            "run": raw.run_id,
            "step": raw.step,
            "loss": raw.val_loss,
            "seconds": raw.train_time_ms / 1000,
            "tokens": (raw.step * TRACK_3_TOKENS_A_STEP).where(raw.track == 3).astype("Int64"),
            "variant": raw.variant,
        }
    )


@cache
def _archived() -> pd.DataFrame:
    raw = table("runs")
    return pd.DataFrame(
        {
            "board": raw.track.map(board_name),
            "run": raw.run_id,
            "loss": raw.final_val_loss,
            "seconds": raw.final_train_time_ms / 1000,
            "steps": raw.final_step,
            "complete": raw.complete,
            "gpus": raw.n_gpus,
            "machine": raw.gpu,
            "torch": raw.torch,
            "driver": raw.driver,
            "source": raw.source_sha,
            "curve": raw.curve_sha,
            "duplicate_of": raw.duplicate_of,
            "folder": raw.record_dir,
            "file": raw.log_file,
        }
    )


@cache
def _evidence() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Records and their runs of all tracks."""
    notes = {(note.track, note.number): note for note in table("notes").itertuples()}
    rows: list[dict[str, Any]] = []
    runs: list[pd.DataFrame] = []
    for row, found in [*_timed_rows(), *_step_rows()]:
        note = notes.get((int(row["board"][-1]), row["number"]))
        row["note"] = note.note if note and row["kind"] != "retiming" else None
        row["log"] = "none" if found is None else note.log if note and row["kind"] != "retiming" else "own"
        rows.append(row)
        if found is not None:
            runs.append(found.assign(record=row["record"]))
    belonging = pd.concat(runs, ignore_index=True)
    strangers = _archived().merge(belonging[RUN_KEY], on=RUN_KEY, how="left", indicator=True)
    strangers = strangers[strangers._merge == "left_only"].drop(columns="_merge").assign(counted=False, record=None)
    return pd.DataFrame(rows), pd.concat([belonging, strangers], ignore_index=True)


def records() -> pd.DataFrame:
    return _evidence()[0]


def runs() -> pd.DataFrame:
    return _evidence()[1]


def _timed_rows() -> list[tuple[dict[str, Any], pd.DataFrame | None]]:
    """Tracks 1 and 2: a row of the public table and the runs of its folder to its steps, or None without a log."""
    joined = pd.concat([table("records"), table("record_stats").drop(columns=["track", "number", "kind"])], axis=1)
    lines = table("loc").drop(columns=["track", "number", "kind", "minutes"])
    out = []
    first = {track: rows.minutes.iloc[0] * 60 for track, rows in joined.groupby("track")}
    retimings: dict[int, int] = {}
    for row in pd.concat([joined, lines], axis=1).itertuples():
        if row.kind == "retiming":
            retimings[row.number] = retimings.get(row.number, 0) + 1
        suffix = "abc"[retimings[row.number] - 1] if row.kind == "retiming" else ""
        seconds = row.minutes * 60
        parent = row.number if row.kind == "retiming" else row.number - 1
        facts = _common(row, row.track, f"{row.number:03d}{suffix}") | {
            "kind": row.kind,
            "score": round(seconds, 3),
            "score_unit": "seconds",
            "speedup": first[row.track] / seconds,
            "parent": f"{board_name(row.track)}/{parent:03d}" if parent else None,
            "steps": row.steps,
            "log_seconds": row.linked_log_minutes * 60,
            "log_minus_score": row.linked_log_minutes * 60 - seconds,
            "gpus": row.n_gpus,
            "machine": row.gpu,
            "torch": row.torch,
            "source": row.source_sha,
            "code_lines": row.merged_code_lines if pd.notna(row.merged_code_lines) else row.embedded_code_lines,
            "lines_added": row.merged_added,
            "lines_removed": row.merged_removed,
            "seconds_saved": row.seconds_saved,
            "merged": row.merged_date,
        }
        found = None if pd.isna(row.record_dir) else _timed_evidence(row)
        out.append((facts | (_summary(found, row.track) if found is not None else {}), found))
    return out


def _timed_evidence(row: Any) -> pd.DataFrame:
    archived = _archived()
    in_folder = archived[(archived.board == board_name(row.track)) & (archived.folder == row.record_dir)]
    found = in_folder[(in_folder.steps == row.steps) & _beside(in_folder, row.log_path, row.record_dir)].copy()
    same_source = found.source.isna() if pd.isna(row.source_sha) else found.source == row.source_sha
    found["counted"] = same_source & ~found.curve.where(same_source).duplicated()
    found["timed"] = found.counted & (found.machine == row.gpu) & (found.gpus == row.n_gpus)
    return found


def _beside(archived: pd.DataFrame, log_path: object, folder: str) -> pd.Series:
    """Which runs lie where the linked log lies: sub-folders beside it hold baselines and earlier versions."""
    below = str(log_path).partition(f"/{folder}/")[2]
    place = below if "." not in below.rpartition("/")[2] else below.rpartition("/")[0]
    beside = archived.file.map(lambda name: name.rpartition("/")[0]) == place
    return beside if beside.any() else ~beside  # the link may be to the folder above all of them


def _step_rows() -> list[tuple[dict[str, Any], pd.DataFrame | None]]:
    """Track 3: the score is the stated step; the losses are those at that step, which may lie before a run's end.

    Several sources may make one result; where the linked log's own accounts for the stated runs, only it counts.
    """
    out = []
    results = table("records_track3")
    for row in results.itertuples():
        based_on = f"nanogpt/3/{int(row.based_on):03d}" if pd.notna(row.based_on) else None
        facts = _common(row, 3, f"{row.number:03d}") | {
            "kind": "record" if row.is_world_record else "result",
            "score": float(row.steps),
            "score_unit": "steps",
            "speedup": results.steps.iloc[0] / row.steps,
            "parent": based_on,
            "steps": row.steps,
            "stated_runs": row.n_runs,
            "stated_loss": row.mean_loss,
            "stated_pass": row.evidence_mark == "pass",
        }
        found = _step_evidence(row)
        summary: dict[str, Any] = {}
        if found is not None:
            one = {name: found[name].dropna().unique() for name in ("machine", "torch", "source", "gpus")}
            summary = _summary(found, 3) | {name: values[0] for name, values in one.items() if len(values) == 1}
        out.append((facts | summary, found))
    return out


def _step_evidence(row: Any) -> pd.DataFrame | None:
    path = PurePosixPath(row.log_path.removeprefix(TRACK_3_FOLDER))
    archived = _archived()
    of_track = archived[archived.board == board_name(3)]
    if str(path.parent) == "results":  # a result of one file, which may hold many runs
        found = of_track[(of_track.folder == "results") & (of_track.file == path.name)]
    else:
        found = of_track[of_track.folder == str(path.parent)]
        if found.empty:
            above = of_track[of_track.folder == str(path.parent.parent)]
            found = above[above.file.str.startswith(f"{path.parent.name}/")]
    points = curves()
    at_step = points[(points.board == board_name(3)) & (points.step == row.steps)].drop_duplicates(RUN_KEY)
    found = found.drop(columns=["loss", "seconds", "steps"]).merge(
        at_step[[*RUN_KEY, "step", "loss", "seconds", "variant"]], on=RUN_KEY
    )
    if found.empty:
        return None
    if row.number in TRACK_3_AVERAGED:
        found["loss"] = found.variant.str.extract(TRACK_3_AVERAGED[row.number], expand=False).astype(float)
    found = found.drop(columns="variant").rename(columns={"step": "steps"})
    linked = found.source[found.file.map(lambda name: name.rpartition("/")[2]) == path.name]
    of_linked_source = found.source.isin(linked)
    counts = of_linked_source if of_linked_source.sum() == row.n_runs else pd.Series(True, found.index)
    found["counted"] = counts & ~found.duplicated(["loss", "seconds"])
    found["timed"] = found.counted
    return found


def _common(row: Any, track: int, number: str) -> dict[str, Any]:
    source = f"{REPOSITORY}/pull/{int(row.pr)}" if pd.notna(row.pr) else REPOSITORY
    return {
        "record": f"{board_name(track)}/{number}",
        "board": board_name(track),
        "number": row.number,
        "date": row.date,
        "title": row.description,
        "authors": row.contributors.split(";") if isinstance(row.contributors, str) else [],
        "target": TARGETS[track],
        "trust": TRUST,
        "verified": 0,
        "reference": source,
    }


def _summary(found: pd.DataFrame, track: int) -> dict[str, Any]:
    """Statistics of the evidence. The p-value is Student's one-sided t-test against the track's target."""
    counted, timed = found[found.counted], found[found.timed]
    apart = found[~found.curve.duplicated()]
    mean, spread, p_value = _test(counted.loss.to_numpy(), TARGETS[track])
    return {
        "runs": len(counted),
        "loss_mean": mean,
        "loss_std": spread,
        "p_value": p_value,
        "runs_same_steps": len(apart),
        "p_same_steps": _test(apart.loss.to_numpy(), TARGETS[track])[2],
        "time_mean": timed.seconds.mean() if len(timed) else None,
        "time_std": timed.seconds.std() if len(timed) > 1 else None,
    }


def _test(losses: np.ndarray, target: float) -> tuple[float | None, float | None, float | None]:
    """Mean, standard deviation and one-sided p; None for what too few runs cannot give."""
    if len(losses) < 2:
        return (float(losses[0]) if len(losses) else None), None, None
    mean, spread = mean_and_spread(losses)
    return mean, spread, one_sided_p(target - mean, spread / np.sqrt(len(losses)), len(losses) - 1)


@cache
def methods() -> pd.DataFrame:
    """Lifelines of track 1. A method dropped in a re-timing of a record counts as dropped in that record."""
    raw = table("methods")
    first = table("records").query("track == 1").drop_duplicates("number").set_index("number").date
    other_days = {(event.method_id, event.event): event.date for event in table("event_dates").itertuples()}
    replaces = {
        method: {replaced}
        for method, replaced in zip(raw.method_id, raw.replaced, strict=True)
        if isinstance(replaced, str)
    }
    for method, successor in zip(raw.method_id, raw.replaced_by, strict=True):
        if isinstance(successor, str):
            replaces.setdefault(successor, set()).add(method)
    return pd.DataFrame(
        {
            "history": board_name(1),
            "method": raw.method_id,
            "name": raw["name"],
            "kind": raw.kind,
            "introduced": raw.introduced_in,
            "introduced_on": [
                other_days.get((m, "introduced"), first[n])
                for m, n in zip(raw.method_id, raw.introduced_in, strict=True)
            ],
            "dropped": raw.dropped_in,
            "dropped_on": [
                other_days.get((m, "dropped"), first[n]) if pd.notna(n) else None
                for m, n in zip(raw.method_id, raw.dropped_in, strict=True)
            ],
            "replaces": [sorted(replaces.get(method, ())) for method in raw.method_id],
            "evidence": raw.evidence,
            "uncertain": raw.uncertain == "yes",
        }
    )
