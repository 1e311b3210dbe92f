"""Review: what must be looked at is flagged, what is honest is not."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.bundle import RunRecord, finished_runs
from harness.campaign import Request, run_once
from harness.core.task import hardware_class
from harness.review import explained_loss, loss_prefix, read_band, review
from harness.submission import load_submission
from tests.conftest import Toy
from tests.toy_submission import SCRIPT, write_submission

ROWS = [{"step": float(step), "loss": 4.0 - step / 100} for step in range(20)]
# A baseline that gains 0.3 nats with every e-fold of tokens.
BAND = [(1000 * 2**power, 5 - 0.3 * math.log(2**power)) for power in range(4)]


@pytest.fixture(scope="module")
def runs(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of the toy: seeds 1 and 2."""
    folder = tmp_path_factory.mktemp("reviewed")
    submission = load_submission(write_submission(folder / "bigram"), toy.task)
    for seed in (1, 2):
        run_once(Request(submission, hardware_class("cpu-1thread"), toy.data_dir, folder / "runs", seed=seed))
    return folder / "runs"


def changed(record: RunRecord, **changes: Any) -> RunRecord:
    return record.model_copy(update=changes)


def test_different_seeds_are_not_flagged(runs: Path) -> None:
    first, second = finished_runs(runs, "toy")
    assert first.digests["loss_prefix"] and first.digests["loss_prefix"] != second.digests["loss_prefix"]
    assert first.review == second.review == []
    assert not first.seed_drawn


def test_the_same_losses_under_another_seed_are_flagged(runs: Path) -> None:
    first, second = finished_runs(runs, "toy")
    copy = changed(second, digests={**second.digests, "loss_prefix": first.digests["loss_prefix"]})
    assert [flag.id for flag in review(copy, [first], [])] == ["same-losses"]
    assert first.run_id in str(review(copy, [first], [])[0])


def test_a_repeat_with_the_same_seed_is_not_flagged(runs: Path) -> None:
    first = next(finished_runs(runs, "toy"))
    assert review(changed(first, run_id="again"), [first], []) == []


def test_another_source_with_the_same_seed_and_losses_changed_the_system_alone(runs: Path) -> None:
    first = next(finished_runs(runs, "toy"))
    other = changed(first, run_id="other", digests={**first.digests, "submission": "0" * 64})
    assert review(other, [first], []) == []


def test_a_method_that_changes_no_loss_is_flagged(runs: Path) -> None:
    first = next(finished_runs(runs, "toy"))
    (flag,) = review(changed(first, run_id="without", methods={**first.methods, "idle": False}), [first], [])
    assert flag.id == "same-losses" and "other methods" in str(flag)


def test_a_script_that_ignores_its_seed_is_flagged_in_its_second_run(toy: Toy, tmp_path: Path) -> None:
    ignores = SCRIPT.replace("torch.manual_seed(run.seed)", "torch.manual_seed(0)")
    submission = load_submission(write_submission(tmp_path / "fixed", ignores), toy.task)
    request = Request(submission, hardware_class("cpu-1thread"), toy.data_dir, tmp_path / "runs")
    assert run_once(request).record.review == []
    flags = run_once(request).record.review
    assert [flag["id"] for flag in flags] == ["same-losses"]


def test_a_loss_far_below_what_its_tokens_explain_is_flagged(runs: Path) -> None:
    run = next(finished_runs(runs, "toy"))
    honest = changed(run, tokens=1000, val_loss=5 - 0.3 * math.log(2.9))
    lucky = changed(run, tokens=1000, val_loss=5 - 0.3 * math.log(3.1))
    assert review(honest, [], BAND) == []
    assert [flag.id for flag in review(lucky, [], BAND)] == ["beyond-its-tokens"]


def test_a_loss_without_any_tokens_is_flagged_unless_nothing_was_learned(runs: Path) -> None:
    run = next(finished_runs(runs, "toy"))
    assert review(changed(run, tokens=0, val_loss=5.1), [], BAND) == []
    assert [flag.id for flag in review(changed(run, tokens=0, val_loss=4.9), [], BAND)] == ["beyond-its-tokens"]


@pytest.mark.parametrize(
    ("load", "extra", "cpu_seconds", "flags"),
    [
        (0.2, 0.1, 80.0, []),
        (1.2, 0.1, 80.0, []),
        (1.2, 0.6, 80.0, ["computes-off-the-clock"]),
        (0.0, 1.1, 5.0, ["computes-off-the-clock"]),
        (0.9, 0.0, 5.0, []),
    ],
)
def test_a_model_host_that_computes_much_is_flagged(
    runs: Path, load: float, extra: float, cpu_seconds: float, flags: list[str]
) -> None:
    judgement = {"host_load_cpu_seconds": load, "host_extra_cpu_seconds": extra}
    run = changed(next(finished_runs(runs, "toy")), judgement=judgement, cpu_seconds=cpu_seconds)
    assert [flag.id for flag in review(run, [], [])] == flags


@pytest.mark.parametrize(
    ("spent", "tokens", "flags"),
    [
        (8.0, 1000, []),
        (17.0, 1000, ["dear-to-judge"]),
        (17.0, 100, []),  # so few were trained on that each was dear as well
        (0.9, 10**6, []),  # a second is nothing
        (17.0, 0, []),
    ],
)
def test_a_model_that_is_dear_to_judge_is_flagged(runs: Path, spent: float, tokens: int, flags: list[str]) -> None:
    judgement = {"host_cpu_seconds": spent, "tokens": 100}
    run = changed(next(finished_runs(runs, "toy")), judgement=judgement, cpu_seconds=80.0, tokens=tokens)
    assert [flag.id for flag in review(run, [], [])] == flags


def test_nothing_is_flagged_without_a_band_or_a_loss(runs: Path) -> None:
    run = next(finished_runs(runs, "toy"))
    assert review(changed(run, val_loss=0.1), [], []) == []
    assert review(changed(run, val_loss=None), [], BAND) == []
    assert review(changed(run, val_loss=0.1), [], [(1000, 3.0), (1000, 3.1)]) == []  # two runs of one budget
    assert read_band("toy") == []


@given(st.floats(100, 1e6))
def test_what_tokens_explain_is_straight_in_their_logarithm(tokens: float) -> None:
    assert explained_loss(BAND, tokens) == pytest.approx(5 - 0.3 * math.log(tokens / 1000))


def test_a_prefix_needs_enough_losses_that_vary() -> None:
    assert loss_prefix(ROWS) is not None
    assert loss_prefix(ROWS) == loss_prefix(ROWS[:16])
    assert loss_prefix(ROWS[:15]) is None
    assert loss_prefix([{"loss": 4.0}] * 20) is None
    assert loss_prefix([{"step": 1.0}] * 20) is None


def test_the_holdout_is_judged_only_when_asked_for(toy: Toy, tmp_path: Path) -> None:
    submission = load_submission(write_submission(tmp_path / "bigram"), toy.task)
    request = Request(submission, hardware_class("cpu-1thread"), toy.data_dir, tmp_path / "runs", judge_holdout=True)
    record = run_once(request).record
    assert record.holdout is not None and record.judgement is not None
    assert record.holdout["tokens"] == 1999
    assert abs(record.holdout["val_loss"] - record.judgement["val_loss"]) < 0.2


def test_a_process_that_computes_after_the_seal_is_flagged_and_named(toy: Toy, tmp_path: Path) -> None:
    busy = "import subprocess, sys; subprocess.Popen([sys.executable, '-S', '-c', 'while True: pass'])"
    script = SCRIPT.replace("    run.finish(model)", f"    {busy}\n    run.finish(model)")
    submission = load_submission(write_submission(tmp_path / "bigram", script), toy.task)
    record = run_once(
        Request(submission, hardware_class("cpu-1thread"), toy.data_dir, tmp_path / "runs", seed=1)
    ).record
    (flag,) = record.review
    (process,) = record.still_computing
    assert flag["id"] == "still-computing"
    assert f"{process['name']} (pid {process['pid']}, {process['cpu_seconds']:.2f} s)" in flag["text"]
