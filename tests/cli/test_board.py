"""The reading verbs of the board: lists, evidence, differences and lifelines, in every format."""

from __future__ import annotations

import csv
import io
import json

import pytest

from tests.cli.test_run import speedrun


def said(*arguments: object) -> dict[str, object]:
    return json.loads(speedrun(*arguments, "--json").stdout)


def test_the_imported_history_is_marked_and_complete() -> None:
    done = speedrun("board", "--history", "nanogpt")
    assert done.returncode == 0
    assert "self-reported, not raced here" in done.stdout
    assert "self-reported" in done.stdout.splitlines()[2]
    records = said("board", "--history", "nanogpt", "--track", "3")["records"]
    assert len(records) == 46


def test_the_history_as_of_a_day() -> None:
    records = said("board", "--history", "nanogpt", "--as-of", "2024-10-14")["records"]
    assert [record["number"] for record in records] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("day", ["yesterday", "2025-13-01", "\x1b[2J"])
def test_a_day_that_is_none_is_refused(day: str) -> None:
    done = speedrun("board", "--history", "nanogpt", "--as-of", day)
    assert done.returncode == 1
    assert "not a day" in done.stderr


def test_csv_has_a_line_a_record() -> None:
    done = speedrun("board", "--history", "nanogpt", "--csv")
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert len(rows) == 91
    assert rows[2]["methods_added"].split(";")[0] == "adamw-embedding-head"
    assert rows[2]["methods_dropped"] == "adamw-all-parameters"


def test_formats_exclude_each_other() -> None:
    assert speedrun("methods", "--history", "nanogpt", "--json", "--csv").returncode == 1


def test_evidence_of_a_record() -> None:
    done = speedrun("board", "show", "nanogpt/1/48")
    assert done.returncode == 0
    assert "baseline's" in done.stdout
    assert "one-sided p = 0.0632" in done.stdout
    shown = said("board", "show", "nanogpt/41")
    assert shown["runs"] == len([run for run in shown["run_list"] if run["counted"]]) == 20
    assert shown["curve"][-1]["step"] == shown["steps"]


def test_a_record_that_is_not_there_is_an_error_with_a_remedy() -> None:
    done = speedrun("board", "show", "nanogpt/1/900")
    assert done.returncode == 1
    assert "no such record" in done.stderr


def test_differences_of_two_records() -> None:
    found = said("board", "diff", "nanogpt/1/40", "nanogpt/1/41")
    assert found["methods"] == {"first": ["muon"], "second": ["normuon"]}
    assert found["facts"]["runs"] == [5, 20]
    assert found["source"] is None
    assert "muon" in speedrun("board", "diff", "nanogpt/1/40", "nanogpt/1/41").stdout


def test_how_a_method_persisted() -> None:
    found = said("methods", "--history", "nanogpt", "--as-of", "2025-12-01")
    assert len(found["methods"]) == 113
    muon = next(method for method in found["methods"] if method["id"] == "muon")
    assert muon["introduced"] == {"record": 3, "date": "2024-10-04"}
    assert muon["dropped"] == {"record": 41, "date": "2025-10-24"}
    assert muon["records_while_it_stood"] == len(muon["records"]) == 35
    assert muon["people_who_set_them"] == len(set(muon["people"])) == 22
    assert muon["with_kin"]["kin"] == ["normuon"]
    assert muon["with_kin"]["dropped"] is None
    assert muon["with_kin"]["records_while_it_stood"] == 41


def test_a_method_before_its_drop_stands() -> None:
    (muon,) = said("methods", "muon", "--history", "nanogpt", "--as-of", "2025-10-23")["methods"]
    assert muon["dropped"] is None
    assert muon["with_kin"]["kin"] == []


def test_a_drop_in_a_retiming_has_its_own_day() -> None:
    arguments = ("methods", "torch-2.7-nightly", "--history", "nanogpt", "--as-of")
    assert said(*arguments, "2025-05-23")["methods"][0]["dropped"] is None
    assert said(*arguments, "2025-05-24")["methods"][0]["dropped"] == {"record": 21, "date": "2025-05-24"}


def test_methods_as_a_table_for_people_and_for_programs() -> None:
    assert "records: set after its introduction" in speedrun("methods", "--history", "nanogpt").stdout
    rows = list(csv.DictReader(io.StringIO(speedrun("methods", "--history", "nanogpt", "--csv").stdout)))
    assert len(rows) == 185
    assert speedrun("methods", "mun", "--history", "nanogpt").returncode == 1
    near = speedrun("methods", "momentum", "--history", "nanogpt").stderr
    assert "muon-momentum-warmup" in near


def test_no_own_method_yet_is_no_error() -> None:
    day = ("--as-of", "2026-11-23")  # when only the baseline was a record
    assert speedrun("methods", *day).returncode == 0
    assert said("methods", *day)["methods"] == []
