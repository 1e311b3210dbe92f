"""The frames have the documented columns, and the imported evidence is what the archived runs say."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pandas as pd
import pytest

import leaderboard
from harness.errors import UserError
from leaderboard import columns, export, frames, nanogpt, site, store
from leaderboard.lifelines import lifelines
from tests.toy_submission import MANIFEST, SCRIPT, write_submission

ROPE = {"kind": "architecture", "summary": "Rotary embeddings.", "source": "a paper"}
MUON = {"kind": "optimizer", "summary": "Orthogonalized momentum.", "source": "a note"}


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
    first = write_own_record(tmp_path, 1, 10.0, methods={"rope": ROPE}, added=["rope"])
    write_own_record(tmp_path, 2, 8.0, parent=first, methods={"muon": MUON}, added=["muon"], dropped=["rope"])
    records = frames.records(tmp_path).query("board == 'toy/cpu-1thread'").set_index("record")
    assert records.score.tolist() == [10.0, 8.0]
    assert records.parent.iloc[1] == "toy/cpu-1thread/001"
    assert records.speedup.iloc[0] == 1
    assert records.speedup.iloc[1] == pytest.approx(1.25)
    assert records.speedup_low.iloc[1] < 1.25 < records.speedup_high.iloc[1]
    assert set(records.trust) == {"isolated"}
    runs = frames.runs(tmp_path).query("board == 'toy/cpu-1thread'")
    assert runs.groupby(["record", "arm"]).counted.sum().to_dict() == {
        ("toy/cpu-1thread/001", "candidate"): 2,
        ("toy/cpu-1thread/002", "candidate"): 2,
        ("toy/cpu-1thread/002", "reference"): 0,
    }
    methods = frames.methods(tmp_path).query("history == 'toy/cpu-1thread'").set_index("method")
    assert methods.introduced.to_dict() == {"rope": 1, "muon": 2}
    assert methods.dropped.fillna(0).to_dict() == {"rope": 2, "muon": 0}


def test_the_speedup_is_the_product_of_the_chain(tmp_path: Path) -> None:
    first = write_own_record(tmp_path, 1, 10.0)
    second = write_own_record(tmp_path, 2, 8.0, parent=first)
    write_own_record(tmp_path, 3, 5.0, parent=second)
    speedups = frames.records(tmp_path).query("board == 'toy/cpu-1thread'").speedup
    assert speedups.tolist() == pytest.approx([1.0, 1.25, 1.5625])  # every race says 1.25


def test_a_repeated_pair_is_not_counted_twice(tmp_path: Path) -> None:
    place = tmp_path / write_own_record(tmp_path, 1, 10.0)
    again = json.loads((place / "runs.jsonl").read_text().splitlines()[0]) | {"attempt": 2, "run_id": "again"}
    with (place / "runs.jsonl").open("a") as file:
        file.write(json.dumps(again) + "\n")
    runs = frames.runs(tmp_path).query("board == 'toy/cpu-1thread'")
    assert runs.run.tolist() == ["candidate-1", "again"]


def test_attempts_and_verifications(tmp_path: Path) -> None:
    place = tmp_path / write_own_record(tmp_path, 1, 10.0)
    found = {"date": "2026-01-05T10:00:00", "machine": "x", "verdict": "record", "agrees": True, "found": None}
    (place / "verifications" / "a").mkdir(parents=True)
    (place / "verifications" / "a" / "verification.json").write_text(json.dumps(found))
    assert frames.records(tmp_path).verified.iloc[0] == 1
    assert frames.verifications(tmp_path).agrees.tolist() == [True]
    attempt = tmp_path / "toy/cpu-1thread/attempts/b"
    attempt.mkdir(parents=True)
    plan = {"started": "2026-01-06T10:00:00", "arms": {"candidate": {"title": "slow", "methods": {}}}}
    (attempt / "plan.json").write_text(json.dumps(plan))
    assert frames.attempts(tmp_path).verdict.tolist() == ["not decided yet"]
    interval = {"ratio": 0.8, "low": 0.7, "high": 0.9}
    verdict = {
        "verdict": "slower",
        "reason": "",
        "pairs": 4,
        "equal_loss": interval,
        "arms": {"candidate": {"mean_loss": 3.4}},
    }
    (attempt / "verdict.json").write_text(json.dumps(verdict))
    assert frames.attempts(tmp_path)[["verdict", "ratio", "pairs"]].to_numpy().tolist() == [["slower", 0.8, 4]]


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"filed": 1}'])
def test_a_record_that_cannot_be_read_is_an_error_with_its_name(tmp_path: Path, content: str) -> None:
    place = tmp_path / write_own_record(tmp_path, 1, 10.0)
    (place / "record.json").write_text(content)
    with pytest.raises(UserError, match=r"001-a/record\.json"):
        frames.records(tmp_path)


def test_an_own_record_has_its_page_with_its_difference_to_its_parent(tmp_path: Path) -> None:
    records = tmp_path / "records"
    first = write_own_record(records, 1, 10.0)
    second = write_own_record(records, 2, 8.0, parent=first)
    for place, rate in ((first, "0.1"), (second, "0.2")):
        write_submission(records / place / "submission", SCRIPT + f"# {rate}\n", MANIFEST.replace('"toy"', '"gcide"'))
    site.build(tmp_path / "site", store.from_content(export.contents(records)), records)
    page = (tmp_path / "site/toy-cpu-1thread/002.html").read_text()
    assert re.search("1.250. as fast at equal loss", page)
    assert re.search("1.000. by fewer tokens to the target times 1.250. by more tokens per second", page)
    assert "in 2 pairs" in page
    assert "speedrun verify toy/cpu-1thread/002" in page
    assert '<span class="gi">+# 0.2</span>' in page
    assert "no record yet" not in (tmp_path / "site/toy-cpu-1thread/index.html").read_text()


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


def write_own_record(
    folder: Path,
    number: int,
    seconds: float,
    parent: str | None = None,
    methods: dict[str, object] | None = None,
    added: list[str] | None = None,
    dropped: list[str] | None = None,
) -> str:
    """A record as the harness files one, with two pairs of runs; answers its id."""
    name = f"toy/cpu-1thread/{number:03d}-a"
    (folder / name).mkdir(parents=True)
    estimate = {"log_ratio": math.log(1.25), "loss_gain": 0.0, "standard_error": 0.01, "degrees_of_freedom": 3.0}
    record = {
        "filed": f"2026-01-0{number}", "title": "A toy", "authors": ["@a"], "seconds": seconds, "val_loss": 3.37,
        "loss_spread": 0.004, "p_target": 0.001, "holdout_gap": 0.01, "target": 3.38,
        "runs": 2, "tokens": 1000.0, "machine": "x",
        "submission": f"{number}" * 64, "parent": parent, "methods": methods or {}, "methods_added": added or [],
        "methods_dropped": dropped or [], "ratio": {"ratio": 1.25, "low": 1.2, "high": 1.3} if parent else None,
        "estimate": estimate if parent else None,
        "slope": {"nats_per_efold": 0.3, "standard_error": 0.01, "degrees_of_freedom": 5.0},
    }  # fmt: skip
    (folder / name / "record.json").write_text(json.dumps(record))
    run = {"status": "JUDGED", "attempt": 1, "val_loss": 3.37, "trust": "isolated"}
    lines = [
        run | {"arm": arm, "block": block, "run_id": f"{arm}-{block}", "seconds": seconds + 0.1 * block}
        for block in range(2)
        for arm in ("candidate", *(["reference"] if parent else []))
    ]
    factors = {"tokens": {"ratio": 1.0}, "speed": {"ratio": 1.25}} if parent else {"tokens": None, "speed": None}
    (folder / name / "verdict.json").write_text(json.dumps(factors))
    (folder / name / "runs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return name


def test_missing_values_are_missing() -> None:
    assert pd.isna(leaderboard.records().set_index("record").loss_mean["nanogpt/1/003"])
