"""A better-tuned baseline takes the baseline's place: raced against it, filed as one, every speed-up told over it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.errors import UserError
from harness.evidence.records import history, lineage, load_record, reigning
from harness.evidence.verifications import check_verifications
from leaderboard import own
from tests.evidence.board import Board


def submit_as_baseline(board: Board, folder: Path) -> dict[str, Any]:
    done = board.invoke("submit", folder, "--task", board.toy.task.path, "--as-baseline", "--json")
    if isinstance(done.exception, UserError):
        raise done.exception
    assert done.exit_code == 0, (done.output, done.exception)
    said: dict[str, Any] = json.loads(done.stdout)
    return said


@pytest.fixture
def tuned(chain: Board) -> Board:
    """AdamW, a record on it at 0.8 of its time, and AdamW tuned to 0.9 of its time."""
    assert submit_as_baseline(chain, chain.submission("tuned", 0.9))["verdict"] == "record"
    return chain


def test_it_is_raced_against_the_baseline_and_filed_as_one(tuned: Board) -> None:
    first, raced, baseline = (load_record(folder) for folder in history(tuned.where))
    assert [record.kind for record in (first, raced, baseline)] == ["baseline", "race", "baseline"]
    assert baseline.parent == first.id and baseline.ratio is not None
    assert baseline.ratio.ratio == pytest.approx(1 / 0.9, abs=0.01)
    assert tuned.problems() == []


def test_a_baseline_brings_no_other_optimizer(chain: Board) -> None:
    method = '[methods.mine]\nkind = "optimizer"\nsummary = "Another one."\nsource = "here"\n\n[hparams'
    folder = chain.submission("mine", 0.9)
    manifest = folder / "submission.toml"
    manifest.write_text(manifest.read_text().replace("[hparams", method, 1))
    with pytest.raises(UserError, match="methods.mine: an optimizer that the baseline does not have"):
        submit_as_baseline(chain, folder)


def test_it_reigns_only_where_no_other_record_does(tuned: Board) -> None:
    assert reigning(tuned.where) == history(tuned.where)[1]
    tuned.submit(tuned.submission("next", 0.7))
    fourth = load_record(history(tuned.where)[3])
    assert fourth.parent == load_record(history(tuned.where)[1]).id
    assert [folder.name[:3] for folder in lineage(history(tuned.where)[3])] == ["001", "002", "004"]
    assert tuned.problems() == []


def test_among_baselines_alone_the_latest_reigns(board: Board) -> None:
    board.submit(board.submission("adamw", 1.0))
    submit_as_baseline(board, board.submission("tuned", 0.9))
    assert reigning(board.where) == history(board.where)[1]


def test_speed_ups_are_told_over_the_latest_baseline(tuned: Board) -> None:
    tuned.submit(tuned.submission("next", 0.7))
    rows = [row for row in own.records(own.read(tuned.where.records)) if row["board"] == "toy/cpu-1thread"]
    expected = [0.9 / 1.0, 0.9 / 0.8, 1.0, 0.9 / 0.7]
    assert [row["speedup"] for row in rows] == pytest.approx(expected, abs=0.02)
    assert all(row["speedup_low"] < row["speedup"] < row["speedup_high"] for row in rows if row["number"] != 3)


def test_it_is_verified_against_its_own_parent(tuned: Board) -> None:
    done = tuned.invoke("verify", "toy/cpu-1thread/003", "--json")
    assert done.exit_code == 0, done.exception
    found = json.loads(done.stdout)["verification"]
    assert found["against"] == "toy/cpu-1thread/001-adamw" and found["agrees"]
    assert [problem for checked in check_verifications(tuned.where) for problem in checked.problems] == []


def test_what_is_no_faster_than_the_baseline_is_none(chain: Board) -> None:
    assert submit_as_baseline(chain, chain.submission("same", 1.001))["verdict"] != "record"
    assert len(history(chain.where)) == 2


def test_the_baseline_itself_is_refused(tuned: Board) -> None:
    with pytest.raises(UserError, match="it is the baseline toy/cpu-1thread/003-tuned"):
        submit_as_baseline(tuned, tuned.folder / "tuned")
