"""Foreign campaigns, records and calibrations, at length: read, or refused in one line; never a traceback."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.checks import statements
from harness.evidence.ablations import check_ablations
from harness.evidence.calibration import calibration_for, write_calibration
from harness.evidence.folder import read_campaign
from harness.evidence.plans import DecidedCampaign
from harness.evidence.race import settled_after
from harness.evidence.record_checks import check_records
from harness.evidence.records import history, load_record
from harness.evidence.series import carry_on
from harness.evidence.sides import Where
from harness.evidence.verdict import keep_verdict, read_verdict, verdict_of
from tests.conftest import Toy
from tests.evidence.board import Board
from tests.evidence.conftest import board, chain, own_machine_lock  # noqa: F401 (fixtures)
from tests.evidence.fake import FakeRunner, calibration, new_race
from tests.evidence.loaded import FakeCounter, file_loaded
from tests.fuzz.strategies import allowed, as_json, retold, search, sizes, wounded

MOST_CASES = 2000  # each reads a whole folder, some with its statistics


@sizes
def test_plan_json(toy: Toy, tmp_path: Path, cases: int) -> None:
    campaign, _ = new_race(toy, tmp_path, pairs=4)
    path = campaign.folder / "plan.json"
    table = json.loads(path.read_text())

    def read(content: bytes) -> None:
        path.write_bytes(content)
        allowed(
            lambda: verdict_of(found) if isinstance((found := read_campaign(path.parent)).plan, DecidedCampaign) else 0
        )

    search(min(cases, MOST_CASES), wounded(path.read_bytes()) | retold(table).map(as_json), read)


@sizes
def test_runs_jsonl_and_verdict_json(toy: Toy, tmp_path: Path, cases: int) -> None:
    campaign, places = new_race(toy, tmp_path)
    carry_on(campaign, places, FakeRunner(), settled_after(campaign.plan))
    keep_verdict(campaign)
    runs, verdict = campaign.folder / "runs.jsonl", campaign.folder / "verdict.json"
    lines, kept = runs.read_bytes(), verdict.read_bytes()
    first = json.loads(lines.splitlines()[0])

    def read_runs(content: bytes) -> None:
        runs.write_bytes(content + b"\n")
        allowed(lambda: verdict_of(read_campaign(campaign.folder)))

    def read_kept(content: bytes) -> None:
        verdict.write_bytes(content)
        allowed(lambda: read_verdict(campaign))

    search(
        min(cases, MOST_CASES), wounded(lines) | retold(first).map(lambda table: json.dumps(table).encode()), read_runs
    )
    search(min(cases, MOST_CASES), wounded(kept) | retold(json.loads(kept)).map(as_json), read_kept)


@sizes
def test_record_json(chain: Board, cases: int) -> None:  # noqa: F811
    path = history(chain.where)[1] / "record.json"
    content = path.read_bytes()

    def read(changed: bytes) -> None:
        path.write_bytes(changed)
        allowed(lambda: load_record(path.parent))
        assert check_records(chain.where)

    search(min(cases, MOST_CASES // 10), wounded(content) | retold(json.loads(content)).map(as_json), read)


@sizes
def test_ablations(board: Board, monkeypatch: pytest.MonkeyPatch, cases: int) -> None:  # noqa: F811
    monkeypatch.setattr(statements, "Counter", FakeCounter)
    file_loaded(board)
    assert board.invoke("ablate", "toy/cpu-1thread/001", "--method", "ballast").exit_code == 0
    (folder,) = history(board.where)[0].glob("ablations/*")
    for name in ("ablation.json", "cost.json", "plan.json"):
        path = folder / name
        content = path.read_bytes()

        def read(changed: bytes, path: Path = path) -> None:
            path.write_bytes(changed)
            (checked,) = check_ablations(board.where)
            assert all(isinstance(problem, str) for problem in checked.problems)

        search(min(cases, MOST_CASES // 10), wounded(content) | retold(json.loads(content)).map(as_json), read)
        path.write_bytes(content)


@sizes
def test_calibration_json(tmp_path: Path, cases: int) -> None:
    where = Where("toy", "cpu-1thread", tmp_path)
    path = write_calibration(where, calibration())
    content = path.read_bytes()

    def read(changed: bytes) -> None:
        path.write_bytes(changed)
        allowed(lambda: calibration_for(where))

    search(min(cases, MOST_CASES), wounded(content) | retold(json.loads(content)).map(as_json), read)
