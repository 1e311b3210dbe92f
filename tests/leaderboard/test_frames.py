"""The frames have the documented columns, and the imported evidence is what the archived runs say."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest

import leaderboard
from harness.campaign import Request
from harness.errors import UserError
from harness.evidence.folder import read_campaign
from harness.evidence.records import history, load_record
from harness.evidence.verdict import CampaignVerdict, read_verdict
from leaderboard import columns, export, frames, nanogpt, site, store
from leaderboard.lifelines import lifelines
from leaderboard.lines import code_lines
from tests.evidence.board import Board
from tests.evidence.fake import FakeRunner, Given
from tests.evidence.test_records import edit
from tests.toy_submission import SCRIPT

ROPE = """[methods.rope]
kind = "architecture"
summary = "Rotary embeddings."
source = "a paper"

[hparams.steps]"""


@pytest.mark.parametrize("name", sorted(columns.FRAMES))
def test_a_frame_has_the_documented_columns_and_types(name: str) -> None:
    frame = getattr(leaderboard, name)()
    documented = columns.FRAMES[name]
    assert list(frame.columns) == list(documented)
    assert {column: str(frame[column].dtype) for column in documented} == {c: d.dtype for c, d in documented.items()}


def imported(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of boards that nothing was raced for here: what is filed here changes none of them."""
    boards = frame.board if "board" in frame else frame.history
    return frame[boards.str.startswith("nanogpt/")].reset_index(drop=True)


def test_the_imported_history_is_whole() -> None:
    records, runs = imported(leaderboard.records()), imported(leaderboard.runs())
    assert records.groupby("board").size().to_dict() == {"nanogpt/1": 91, "nanogpt/2": 18, "nanogpt/3": 46}
    assert not records.record.duplicated().any()
    assert len(imported(leaderboard.methods())) == 185
    assert len(runs) == 1734
    assert set(records.trust) == {"self-reported, not raced here"}


def test_no_run_is_evidence_twice_for_one_record() -> None:
    runs = leaderboard.runs()
    counted = runs[runs.counted]
    assert not counted.duplicated(["record", "folder", "file", "run"]).any()
    assert counted.record.notna().all()


def test_p_values_are_those_that_were_computed_from_the_archive_before() -> None:
    """record_stats.csv was made with scipy.stats; its numbers are rounded to three digits."""
    records = imported(leaderboard.records())
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
    methods = imported(leaderboard.methods()).set_index("method")
    for name, row in methods.iterrows():
        for replaced in row.replaces:
            assert methods.dropped[replaced] == row.introduced, (name, replaced)


def load_verdict(folder: Path) -> CampaignVerdict:
    return read_verdict(read_campaign(folder))


def own_rows(frame: pd.DataFrame, column: str = "board") -> pd.DataFrame:
    return frame[frame[column] == "toy/cpu-1thread"]


def test_own_records_fill_the_same_frames(chain: Board) -> None:
    chain.submit(chain.submission("rope", 0.6, **{"[hparams.steps]": ROPE}))
    first, second, third = history(chain.where)
    found = frames.every(chain.where.records)
    records = own_rows(found["records"]).set_index("record")
    assert records.score.tolist() == [load_record(folder).seconds for folder in (first, second, third)]
    assert records.parent.iloc[1] == "toy/cpu-1thread/001" and records.date.notna().all()
    assert records.ratio.iloc[1] == pytest.approx(1.25, abs=0.02)
    assert records.ratio_speed.iloc[1] == pytest.approx(1.25, abs=0.02)
    assert records.seconds_saved.iloc[1] == pytest.approx(2, abs=0.2)
    assert set(records.trust) == {"isolated"} and records.chain.notna().all()
    assert records.speedup.iloc[0] == 1
    assert records.speedup.iloc[2] == pytest.approx(records.ratio.iloc[1] * records.ratio.iloc[2])
    assert (records.speedup_low < records.speedup)[1:].all() and (records.speedup < records.speedup_high)[1:].all()
    for name, column in (("records", "board"), ("runs", "board"), ("methods", "history")):
        alone = getattr(frames, name)(chain.where.records)
        pd.testing.assert_frame_equal(own_rows(alone, column), own_rows(found[name], column))
    methods = own_rows(found["methods"], "history").set_index("method")
    assert methods.introduced.to_dict() == {"momentum": 1, "rope": 3}
    assert methods.dropped.isna().all()


def test_runs_of_both_arms_are_listed_and_the_records_own_are_counted(chain: Board) -> None:
    runs = own_rows(frames.runs(chain.where.records))
    counted = runs.groupby(["record", "arm"]).counted.agg(["size", "sum"])
    assert counted.loc[("toy/cpu-1thread/001", "candidate")].tolist() == [12, 12]
    assert counted.loc[("toy/cpu-1thread/002", "reference"), "sum"] == 0
    pairs = load_verdict(history(chain.where)[1]).pairs
    assert counted.loc[("toy/cpu-1thread/002", "candidate")].tolist() == [pairs, pairs]
    assert set(runs.status) == {"JUDGED"} and (runs.tokens == 1000).all()


def test_failed_and_repeated_runs_are_listed_and_not_counted(board: Board) -> None:
    def outcome(request: Request) -> Given:
        number = request.facts["number"]
        if number == 2:
            return Given("timeout")
        wall, lost = (11.0, 1.0) if number in (4, 5) else (10.0, 0.0)  # another program slowed the fifth run, twice
        return Given(None, 3.8 + 1e-4 * (number % 7), wall, lost)

    board.runner = FakeRunner(outcome)
    assert board.submit(board.submission("adamw", 1.0))["verdict"] == "record"
    runs = own_rows(frames.runs(board.where.records)).reset_index(drop=True)
    assert runs.status[2] == "timeout" and not runs.counted[2] and runs.pair[2] == 2
    assert runs.pair[4:7].isna().tolist() == [True, True, False]
    assert runs.counted.tolist() == [n not in (2, 4, 5) for n in range(len(runs))]
    row = store.from_content(export.contents(frames.every(board.where.records))).record("toy/cpu-1thread/1")
    assert row["run_list"][2][5] == "timeout"
    assert row["runs"] == row["run_list"].__len__() - 2  # the failed one is allowed, and counts among them


def test_what_a_method_is_worth_comes_from_the_record_that_added_only_it(chain: Board) -> None:
    chain.submit(chain.submission("rope", 0.6, **{"[hparams.steps]": ROPE}))
    both = ROPE.replace("rope", "smear").replace("[hparams.steps]", "") + ROPE.replace("rope", "swish")
    chain.submit(chain.submission("two", 0.5, **{"[hparams.steps]": both}))
    found = frames.every(chain.where.records)
    methods = own_rows(found["methods"], "history").set_index("method")
    third = found["records"].set_index("record").loc["toy/cpu-1thread/003"]
    rope = methods.loc["rope"]
    assert (rope.effect, rope.effect_low, rope.effect_high) == (third.ratio, third.ratio_low, third.ratio_high)
    assert rope.effect_by == "race" and rope.seconds_saved == third.seconds_saved
    assert methods.effect.isna().to_dict() == {"momentum": True, "rope": False, "smear": True, "swish": True}
    assert methods.dropped.to_dict()["rope"] == 4


def test_what_an_imported_method_is_worth_is_as_stated() -> None:
    methods = imported(leaderboard.methods()).set_index("method")
    normuon = methods.loc["normuon"]  # record 41 swapped muon for it and nothing else: 0.78 s of 141.8
    assert normuon.effect_by == "stated" and pd.isna(normuon.effect_low)
    record = leaderboard.records().set_index("record").loc["nanogpt/1/041"]
    assert normuon.effect == pytest.approx(1 + record.seconds_saved / record.score)
    assert normuon.lines == record.lines_added - record.lines_removed
    assert pd.isna(methods.loc["muon"].effect)  # record 3 brought more than it


def test_lines_of_code_and_what_changed_in_them(chain: Board) -> None:
    script = SCRIPT.replace("momentum = 0.5 if", '"""Said."""  # why\n\n    momentum = 0.9 if')
    chain.submit(chain.submission("third", 0.6, script=script))
    records = own_rows(frames.records(chain.where.records))
    assert records.code_lines.tolist() == [records.code_lines.iloc[0]] * 2 + [records.code_lines.iloc[0] + 1]
    assert records.lines_added.tolist()[1:] == [0, 2] and records.lines_removed.tolist()[1:] == [0, 1]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", []),
        ("# a comment\n\nx = 1  # more\n", ["x = 1  # more"]),
        ('"""Module."""\ndef f():\n    """Of f,\n    two lines."""\n    return """a\nb"""\n',
         ["def f():", 'return """a', 'b"""']),
        ('try:\n    x\nexcept E:\n    class C:\n        "Of C."\nelse:\n    y = lambda: 0\n',
         ["try:", "x", "except E:", "class C:", "else:", "y = lambda: 0"]),
        ("f(\n    1,\n\n    2,\n)\n", ["f(", "1,", "2,", ")"]),
        ("def broken(:\n\n  x\n", ["def broken(:", "x"]),
    ],
)  # fmt: skip
def test_a_line_of_code_is_one_with_code_on_it(text: str, found: list[str]) -> None:
    assert code_lines(text) == found


def test_attempts_and_verifications(chain: Board) -> None:
    assert chain.submit(chain.submission("slow", 1.2))["verdict"] == "slower"
    done = chain.invoke("verify", "toy/cpu-1thread/002", "--json")
    assert done.exit_code == 0
    found = frames.every(chain.where.records)
    attempts = found["attempts"]
    assert attempts.verdict.tolist().count("record") == 2
    assert attempts[attempts.verdict == "record"].record.tolist() == ["toy/cpu-1thread/001", "toy/cpu-1thread/002"]
    slow = attempts[attempts.verdict == "slower"].iloc[0]
    assert slow.reference == "toy/cpu-1thread/002" and slow.ratio_high < 1 and slow.failed == 0
    (check,) = found["verifications"].itertuples()
    assert check.record == "toy/cpu-1thread/002" and check.against == "toy/cpu-1thread/001"
    assert check.agrees and check.confirms and check.filed_ratio == pytest.approx(check.ratio, abs=0.02)
    assert own_rows(found["records"]).verified.tolist() == [0, 1]


def test_an_attempt_under_way_is_not_decided_yet(chain: Board) -> None:
    folder = Path(chain.submit(chain.submission("slow", 1.2))["folder"])
    (folder / "verdict.json").unlink()
    attempts = frames.attempts(chain.where.records)
    assert "not decided yet" in attempts.verdict.tolist()


def test_own_history_as_it_was_before(chain: Board) -> None:
    edit(history(chain.where)[0] / "record.json", lambda table: table.update(filed="2026-01-01"))
    edit(history(chain.where)[1] / "record.json", lambda table: table.update(filed="2026-01-03"))
    found = frames.every(chain.where.records, "2026-01-02")
    assert own_rows(found["records"]).number.tolist() == [1]
    assert set(own_rows(found["runs"]).record) == {"toy/cpu-1thread/001"}
    assert found["attempts"].empty  # both were begun today


def test_the_imported_history_as_it_was_before() -> None:
    found = frames.every(Path("nothing"), "2025-10-23")
    records = found["records"]
    assert records[records.board == "nanogpt/1"].number.max() == 40
    muon = found["methods"].set_index("method").loc["muon"]
    assert pd.isna(muon.dropped) and pd.isna(muon.dropped_on)
    assert "normuon" not in set(found["methods"].method)
    assert set(found["runs"].record) <= set(records.record)
    for name, frame in found.items():
        assert list(frame.columns) == list(columns.FRAMES[name])
        assert {c: str(frame[c].dtype) for c in frame} == {c: d.dtype for c, d in columns.FRAMES[name].items()}


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("record.json", "{"),
        ("record.json", "[]"),
        ("record.json", "{}"),
        ("record.json", '{"schema_version": 1, "filed": 1}'),
        ("runs.jsonl", "{}\n"),
        ("plan.json", "[]"),
        ("verdict.json", "{}"),
    ],
)
def test_what_cannot_be_read_is_an_error_with_its_name(chain: Board, file: str, content: str) -> None:
    (history(chain.where)[0] / file).write_text(content)
    with pytest.raises(UserError, match=rf"001-adamw/{file}"):
        frames.records(chain.where.records)


def test_an_own_record_has_its_page_with_its_difference_to_its_parent(chain: Board, tmp_path: Path) -> None:
    chain.submit(chain.submission("third", 0.6, script=SCRIPT + "# 0.2\n"))
    site.build(tmp_path / "site", site.read(chain.where.records))
    page = (tmp_path / "site/toy-cpu-1thread/003.html").read_text()
    assert re.search(r"1\.33\d. as fast at equal loss", page)
    assert re.search(r"(0\.99|1\.00)\d. in tokens to the target times 1\.3\d\d. in tokens per second", page)
    assert "pairs" in page and "speedrun verify toy/cpu-1thread/003" in page
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


def test_a_method_that_comes_back_has_two_lives() -> None:
    history = [record(n, f"2025-01-0{n}", ["@a"]) for n in range(1, 7)]
    rows = [method("muon", 2, 3), method("soap", 3, 5, replaces=["muon"]), method("muon", 5, None, replaces=["soap"])]
    first, between, second = lifelines(rows, history)
    assert (first.kin, between.kin, second.kin) == (["soap", "muon"], ["muon"], [])
    assert (first.span.records, second.span.records) == ([], [6])
    assert first.line.records == [3, 4, 5, 6] and second.line.records == [6]
    assert second.line.introduced.record == 5


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
    rows = json.loads(imported(leaderboard.methods()).to_json(orient="records", date_format="iso"))
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


def test_missing_values_are_missing() -> None:
    assert pd.isna(leaderboard.records().set_index("record").loss_mean["nanogpt/1/003"])
