"""verify: a record raced again agrees, disagrees, or says too little; everything of it can be computed again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.campaign import Request
from harness.errors import UserError
from harness.evidence.records import history
from harness.evidence.verifications import Verification, check_verifications, read_verification
from tests.evidence.board import Board
from tests.evidence.fake import FakeRunner, Given


def verify(board: Board, *arguments: object) -> dict[str, Any]:
    done = board.invoke("verify", *arguments, "--json")
    if isinstance(done.exception, UserError):
        raise done.exception
    assert done.exit_code == 0, (done.output, done.exception)
    found: dict[str, Any] = json.loads(done.stdout)["verification"]
    return found


def problems(board: Board) -> list[str]:
    return [problem for checked in check_verifications(board.where) for problem in checked.problems]


def test_a_record_raced_again_agrees(chain: Board) -> None:
    found = verify(chain, "toy/cpu-1thread/002")
    assert found["agrees"] and found["confirms"] and found["same_machine"]
    assert found["against"] == "toy/cpu-1thread/001-adamw"
    assert found["filed"]["ratio"] == pytest.approx(1.25, abs=0.02)
    assert found["found"]["ratio"] == pytest.approx(1.25, abs=0.02)
    kept = history(chain.where)[1] / "verifications" / found["campaign"] / "verification.json"
    assert json.loads(kept.read_text()) == found
    assert problems(chain) == [] and chain.problems() == []


def test_the_first_record_is_verified_by_its_target(chain: Board) -> None:
    found = verify(chain, "toy/cpu-1thread/001")
    assert found["agrees"] and found["confirms"]
    assert (found["against"], found["filed"], found["found"], found["pairs"]) == (None, None, None, 8)
    assert found["losses"] == pytest.approx([3.8, 3.8], abs=0.01)
    assert problems(chain) == []


def test_a_first_record_that_comes_out_with_another_loss_disagrees(chain: Board) -> None:
    chain.loss -= 0.05
    found = verify(chain, "toy/cpu-1thread/001", "--pairs", 6)
    assert (found["verdict"], found["pairs"], found["agrees"]) == ("record", 6, False)
    assert found["p"] < 0.01
    assert problems(chain) == []


def test_the_baseline_can_be_named_without_its_number(chain: Board) -> None:
    assert verify(chain, "baseline", "--task", "toy", "--pairs", 4)["record"] == "toy/cpu-1thread/001-adamw"
    with pytest.raises(UserError, match="no baseline is a record yet for other"):
        verify(chain, "baseline", "--task", "other")


def test_one_run_of_the_first_record_is_refused(chain: Board) -> None:
    with pytest.raises(UserError, match="no spread"):
        verify(chain, "toy/cpu-1thread/001", "--pairs", 1)


def test_a_race_against_the_first_record_is_compared_with_the_chain(chain: Board) -> None:
    chain.submit(chain.submission("third", 0.6))
    found = verify(chain, "toy/cpu-1thread/003", "--first")
    assert found["against"] == "toy/cpu-1thread/001-adamw"
    assert found["filed"]["ratio"] == pytest.approx(1 / 0.6, rel=0.03)
    assert found["agrees"]
    assert problems(chain) == []


def test_a_gain_that_does_not_repeat_disagrees(chain: Board) -> None:
    chain.runner = FakeRunner(lambda request: Given(None, 3.8 + 1e-9 * request.facts["number"]))
    found = verify(chain, "toy/cpu-1thread/002")
    assert not found["agrees"] and not found["confirms"]
    assert found["p"] < 0.01
    assert problems(chain) == []


def test_a_record_whose_loss_lies_above_the_target_here_disagrees(chain: Board) -> None:
    chain.loss = 3.95
    found = verify(chain, "toy/cpu-1thread/002")
    assert (found["verdict"], found["target"], found["agrees"]) == ("misses target", "missed", False)
    assert found["p"] >= 0.01 and found["p_missed"] < 0.01
    assert problems(chain) == []


def test_a_record_whose_target_so_few_runs_leave_open_agrees(chain: Board) -> None:
    chain.loss = 3.8995
    found = verify(chain, "toy/cpu-1thread/002")
    assert (found["verdict"], found["target"], found["agrees"]) == ("misses target", "not shown again", True)
    assert problems(chain) == []


def test_what_is_left_open_is_not_called_missed(chain: Board) -> None:
    chain.loss = 3.8995
    said = chain.invoke("verify", "toy/cpu-1thread/002").stdout
    assert "not shown again by 6 runs, nor shown to be missed" in said
    assert "agrees with" in said and "DOES NOT" not in said


def test_a_record_two_runs_of_which_fail_here_disagrees(chain: Board) -> None:
    usual = chain.outcome
    failing = FakeRunner(lambda request: Given("crash") if request.facts["arm"] == "candidate" else usual(request))
    chain.runner = failing
    said = chain.invoke("verify", "toy/cpu-1thread/002").stdout
    assert "DOES NOT AGREE" in said and "differ by chance" not in said
    assert problems(chain) == []


def test_a_reference_that_fails_here_says_nothing_against_the_record(chain: Board) -> None:
    usual = chain.outcome
    chain.runner = FakeRunner(lambda r: Given("crash") if r.facts["arm"] == "reference" else usual(r))
    said = chain.invoke("verify", "toy/cpu-1thread/002").stdout
    assert "invalid" in said and "says nothing about toy/cpu-1thread/002" in said
    (kept,) = (history(chain.where)[1] / "verifications").glob("*/verification.json")
    assert json.loads(kept.read_text())["agrees"] is None
    assert not read_verification(kept.parent).counts
    assert problems(chain) == []


def test_the_board_counts_what_agrees_and_was_isolated(chain: Board) -> None:
    found = Verification.model_validate(verify(chain, "toy/cpu-1thread/002"))
    assert found.counts
    assert not found.model_copy(update={"trust": ["isolated", "partial"]}).counts
    assert not found.model_copy(update={"agrees": False}).counts


def test_a_verification_by_an_edited_core_differs(chain: Board) -> None:
    verify(chain, "toy/cpu-1thread/002")
    (plan,) = (history(chain.where)[1] / "verifications").glob("*/plan.json")
    digest = json.loads(plan.read_text())["core_digest"]
    plan.write_text(plan.read_text().replace(digest, "0" * 64))
    (plan.parent / "runs.jsonl").unlink()
    (plan.parent / "verdict.json").unlink()
    assert any("the core was edited" in problem for problem in problems(chain))


def test_a_record_without_the_estimate_of_its_race_is_named(chain: Board) -> None:
    verify(chain, "toy/cpu-1thread/002")
    path = history(chain.where)[1] / "record.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"estimate": None}))
    assert any("record.json: estimate: null" in problem for problem in problems(chain))


def test_an_interrupted_verification_is_resumed_and_attached(chain: Board) -> None:
    usual = chain.outcome

    def once(request: Request) -> Given:
        return Given("interrupted") if request.facts["number"] == 3 else usual(request)

    chain.runner = FakeRunner(once)
    assert chain.invoke("verify", "toy/cpu-1thread/002").exit_code == 130
    assert problems(chain) == []
    done = chain.invoke("resume", "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["verification"]["agrees"]
    assert problems(chain) == []


def test_without_data_nothing_is_planned(chain: Board) -> None:
    chain.toy = replace(chain.toy, data_dir=chain.folder / "nothing")
    with pytest.raises(UserError):
        verify(chain, "toy/cpu-1thread/002")
    assert not (history(chain.where)[1] / "verifications").exists()


def test_all_walks_the_history(chain: Board) -> None:
    done = chain.invoke("verify", "--all", "--task", "toy")
    assert done.exit_code == 0, done.exception
    assert done.stdout.count("agrees with") == 2
    assert len(check_verifications(chain.where)) == 2


def test_all_goes_on_where_it_was_stopped(chain: Board) -> None:
    usual = chain.outcome

    def stopped(request: Request) -> Given:
        return Given("interrupted") if request.facts["number"] == 3 else usual(request)

    chain.runner = FakeRunner(stopped)
    assert chain.invoke("verify", "--all", "--task", "toy").exit_code == 130
    chain.runner = FakeRunner(usual)
    for started in (True, False):
        before = len(chain.runner.started)
        assert chain.invoke("verify", "--all", "--task", "toy").exit_code == 0
        assert (len(chain.runner.started) > before) == started
        assert len(check_verifications(chain.where)) == 2 and problems(chain) == []


def test_an_edited_verification_is_found(chain: Board) -> None:
    found = verify(chain, "toy/cpu-1thread/002")
    path: Path = history(chain.where)[1] / "verifications" / found["campaign"] / "verification.json"
    path.write_text(path.read_text().replace('"agrees": true', '"agrees": false'))
    assert [problem for problem in problems(chain) if "verification.json: agrees: False where" in problem]
    assert chain.invoke("records", "verify").exit_code == 1


@pytest.mark.parametrize("arguments", [(), ("best", "--all"), ("--all", "--json")])
def test_usage(chain: Board, arguments: tuple[str, ...]) -> None:
    assert chain.invoke("verify", *arguments).exit_code == 2
