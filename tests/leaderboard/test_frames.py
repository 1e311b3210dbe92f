"""The frames have the documented columns, and the imported evidence is what the archived runs say."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

import leaderboard
from harness.errors import UserError
from leaderboard import columns, frames, nanogpt
from leaderboard.lifelines import lifelines


@pytest.mark.parametrize("name", sorted(columns.FRAMES))
def test_a_frame_has_the_documented_columns_and_types(name: str) -> None:
    frame = getattr(leaderboard, name)()
    documented = columns.FRAMES[name]
    assert list(frame.columns) == list(documented)
    assert {column: str(frame[column].dtype) for column in documented} == {c: d.dtype for c, d in documented.items()}


def test_the_imported_history_is_whole() -> None:
    records = leaderboard.records()
    assert records.groupby("board").size().to_dict() == {"nanogpt/1": 91, "nanogpt/2": 18, "nanogpt/3": 46}
    assert not records.record.duplicated().any()
    assert len(leaderboard.methods()) == 185
    assert len(leaderboard.runs()) == 1734
    assert set(records.trust) == {"self-reported, not raced here"}


def test_no_run_is_evidence_twice_for_one_record() -> None:
    runs = leaderboard.runs()
    counted = runs[runs.counted]
    assert not counted.duplicated(["record", "folder", "file", "run"]).any()
    assert counted.record.notna().all()


def test_p_values_are_those_that_were_computed_from_the_archive_before() -> None:
    """record_stats.csv was made with scipy.stats; its numbers are rounded to three digits."""
    records = leaderboard.records()
    timed = records[records.board != "nanogpt/3"].reset_index(drop=True)
    before = nanogpt.table("record_stats")
    known = before.n_runs_same_source.notna()
    assert (timed.runs[known] == before.n_runs_same_source[known]).all()
    for ours, theirs in (("p_value", "p_one_sided"), ("p_same_steps", "p_same_steps")):
        assert (timed[ours].notna() == before[theirs].notna())[known].all()
        assert ((timed[ours] - before[theirs]).abs().dropna() <= 0.01 * before[theirs].dropna()).all()


def test_losses_of_track_3_are_those_that_its_table_states() -> None:
    records = leaderboard.records()
    steps = records[records.board == "nanogpt/3"]
    assert ((steps.loss_mean - steps.stated_loss).abs() < 0.0002).all()
    fewer = steps[steps.runs != steps.stated_runs]
    assert fewer.number.tolist() == [41]  # one of twenty runs of result 41 is archived


def test_a_baseline_linked_as_evidence_is_marked() -> None:
    records = leaderboard.records().set_index("record")
    assert records.log["nanogpt/1/048"] == "baseline's"
    assert records.log["nanogpt/1/086"] == "none"
    assert records.source["nanogpt/1/048"] == records.source["nanogpt/1/047"]


def test_every_replaced_method_ends_where_its_successor_begins() -> None:
    methods = leaderboard.methods().set_index("method")
    for name, row in methods.iterrows():
        for replaced in row.replaces:
            assert methods.dropped[replaced] == row.introduced, (name, replaced)


def test_own_records_fill_the_same_frames(tmp_path: Path) -> None:
    write_own_record(tmp_path, 1, methods_added=["rope", {"method": "muon", "kind": "optimizer"}])
    write_own_record(tmp_path, 2, methods_dropped=["rope"])
    records = frames.records(tmp_path)
    own = records[records.board == "toy/cpu-1thread"]
    assert own.record.tolist() == ["toy/cpu-1thread/001", "toy/cpu-1thread/002"]
    assert own.score.tolist() == [81.0, 82.0]
    runs = frames.runs(tmp_path)
    assert runs[runs.board == "toy/cpu-1thread"].loss.tolist() == [3.37, 3.37]
    rows = frames.methods(tmp_path).query("history == 'toy/cpu-1thread'")
    assert rows.set_index("method").dropped.fillna(0).to_dict() == {"rope": 2, "muon": 0}


def test_a_record_that_cannot_be_read_is_an_error_with_its_name(tmp_path: Path) -> None:
    write_own_record(tmp_path, 1)
    (tmp_path / "toy/cpu-1thread/001-a/record.json").write_text("{")
    with pytest.raises(UserError, match=r"001-a/record\.json"):
        frames.records(tmp_path)


def test_without_own_records_the_imported_ones_stand_alone(tmp_path: Path) -> None:
    assert set(frames.records(tmp_path / "nothing").board) == {"nanogpt/1", "nanogpt/2", "nanogpt/3"}
    assert frames.attempts(tmp_path).empty


def test_lifelines_of_a_small_history() -> None:
    history = [record(n, f"2025-01-0{n}", [f"@{'abcde'[n % 5]}"]) for n in range(1, 7)]
    history[3] = history[3] | {"kind": "software-upgrade"}
    history[4] = history[4] | {"authors": ["@a", "AI System X"]}
    rows = [method("old", 1, 4), method("new", 4, None, replaces=["old"])]
    by_id = {line.id: line for line in lifelines(rows, history)}
    assert by_id["old"].span.records == [2, 3]  # neither its own record nor the one that dropped it
    assert by_id["old"].span.people == ["@c", "@d"]
    assert by_id["old"].line.records == [2, 3, 5, 6]  # 4 is an upgrade of software, which nobody set by a method
    assert by_id["old"].line.dropped is None
    assert by_id["new"].span.records == [5, 6]
    assert by_id["new"].span.people == ["@a", "@b"]


def test_lifelines_know_nothing_of_the_days_after() -> None:
    history = [record(n, f"2025-01-0{n}", ["@a"]) for n in range(1, 7)]
    rows = [method("old", 1, 4), method("new", 4, None, replaces=["old"])]
    (line,) = lifelines(rows, history, as_of="2025-01-03")
    assert line.id == "old"
    assert line.span.dropped is None
    assert line.kin == []
    assert line.span.records == [2, 3]


def test_lifelines_agree_with_the_counts_of_the_archive() -> None:
    """records_survived counts from the introducing record on, software upgrades too."""
    data = leaderboard.records().query("board == 'nanogpt/1'")
    upgrades = set(data[data.kind == "software-upgrade"].number)
    rows = json.loads(leaderboard.methods().to_json(orient="records", date_format="iso"))
    history = json.loads(data.to_json(orient="records", date_format="iso"))
    survived = nanogpt.table("methods").set_index("method_id").records_survived
    for line in lifelines(rows, history):
        end = line.span.dropped.record if line.span.dropped else 90
        between = [n for n in upgrades if line.span.introduced.record < n < end]
        assert len(line.span.records) + len(between) == max(0, survived[line.id] - 1), line.id


def record(number: int, date: str, authors: list[str]) -> dict[str, object]:
    return {"number": number, "date": date, "kind": "record", "authors": authors}


def method(name: str, introduced: int, dropped: int | None, replaces: list[str] | None = None) -> dict[str, object]:
    return {
        "method": name, "name": name, "kind": "optimizer", "introduced": introduced,
        "introduced_on": f"2025-01-0{introduced}", "dropped": dropped,
        "dropped_on": f"2025-01-0{dropped}" if dropped else None, "replaces": replaces or [],
    }  # fmt: skip


def write_own_record(folder: Path, number: int, **fields: object) -> Path:
    """A record as `leaderboard.own` reads it."""
    place = folder / "toy" / "cpu-1thread" / f"{number:03d}-a"
    place.mkdir(parents=True)
    known = {"title": "A toy", "authors": ["@a"], "date": f"2026-01-0{number}", "seconds": 80.0 + number}
    (place / "record.json").write_text(
        json.dumps({**known, "loss_mean": 3.37, "runs": 1, "trust": "isolated", **fields})
    )
    run = {"run_id": f"run-{number}", "state": "done", "val_loss": 3.37, "seconds": 80.0 + number}
    (place / "runs.jsonl").write_text(json.dumps(run) + "\n")
    return place


def test_missing_values_are_missing() -> None:
    assert pd.isna(leaderboard.records().set_index("record").loss_mean["nanogpt/1/003"])
