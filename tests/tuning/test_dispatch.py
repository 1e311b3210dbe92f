"""Who runs what and when, with workers that answer at once."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from harness.errors import UserError
from harness.tuning.dispatch import MOST_ATTEMPTS, Dispatcher
from harness.tuning.trials import Job, Trial
from harness.tuning.worker import Order
from tests.conftest import Toy
from tests.tuning.fake_workers import FakeWorkers, answer
from tests.tuning.toy_tuning import place_of, write_tuning

JOBS = [Job("scout", number, 7, {"steps": number, "lr": 0.1}) for number in range(5)]
WORKERS = min(2, len(os.sched_getaffinity(0)))


def dispatch(toy: Toy, folder: Path, workers: int = 1) -> list[Trial]:
    done: list[Trial] = []
    submission = write_tuning(toy, folder / "bigram")
    with Dispatcher(place_of(toy, submission, folder / "runs", workers)) as dispatcher:
        dispatcher.run(iter(JOBS), done.append)
    return done


def test_every_job_is_run_once_with_its_settings(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workers = FakeWorkers(monkeypatch, lambda order: answer(3.5))
    done = dispatch(toy, tmp_path, WORKERS)
    assert sorted(trial.job.number for trial in done) == [0, 1, 2, 3, 4]
    assert [order.settings for order in workers.orders] == [[f"steps={number}", "lr=0.1"] for number in range(5)]
    assert {order.seed for order in workers.orders} == {7}
    assert len({tuple(order.cores) for order in workers.orders}) == WORKERS


def test_the_next_job_is_asked_for_after_the_last_result(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeWorkers(monkeypatch, lambda order: answer(3.5))
    events: list[str] = []

    def jobs():  # type: ignore[no-untyped-def]
        for job in JOBS[:3]:
            events.append(f"ask {job.number}")
            yield job

    submission = write_tuning(toy, tmp_path / "bigram")
    with Dispatcher(place_of(toy, submission, tmp_path / "runs")) as dispatcher:
        dispatcher.run(jobs(), lambda trial: events.append(f"done {trial.job.number}"))
    assert events == ["ask 0", "done 0", "ask 1", "done 1", "ask 2", "done 2"]


def test_what_is_not_the_fault_of_a_trial_is_repeated(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = iter([answer(None, "suspended"), answer(None, "judge-crash"), *[answer(3.5)] * 5])
    workers = FakeWorkers(monkeypatch, lambda order: next(said))
    done = dispatch(toy, tmp_path)
    assert [trial.val_loss for trial in done] == [3.5] * 5
    assert len(workers.orders) == 7
    assert workers.orders[0] == workers.orders[1] == workers.orders[2]


def test_not_for_ever(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workers = FakeWorkers(monkeypatch, lambda order: answer(None, "suspended"))
    with pytest.raises(UserError, match="trial scout 0: suspended, 3 times: it ended so"):
        dispatch(toy, tmp_path)
    assert len(workers.orders) == MOST_ATTEMPTS


def test_a_failed_run_is_a_result_without_a_loss(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workers = FakeWorkers(monkeypatch, lambda order: answer(None, "not-finite", "run-9"))
    done = dispatch(toy, tmp_path)
    assert {(trial.val_loss, trial.status, trial.run_id) for trial in done} == {(None, "not-finite", "run-9")}
    assert len(workers.orders) == len(JOBS)


@pytest.mark.parametrize("status", ["timeout", "model-host-timeout"])
def test_a_time_out_counts_the_second_time(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    said = iter([answer(None, status), answer(3.5), *[answer(None, status)] * 2, *[answer(3.5)] * 3])
    workers = FakeWorkers(monkeypatch, lambda order: next(said))
    done = dispatch(toy, tmp_path)
    assert [trial.val_loss for trial in done] == [3.5, None, 3.5, 3.5, 3.5]
    assert workers.orders[0] == workers.orders[1] and len(workers.orders) == 7


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (json.dumps({"error": "no space left", "remedy": "make room"}), "no space left"),
        ("", "trial scout 0: its process ended with status 0 and said nothing"),
    ],
)
def test_a_worker_that_cannot_go_on_ends_the_tuning(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, message: str
) -> None:
    def say(order: Order) -> str:
        return said

    FakeWorkers(monkeypatch, say)
    with pytest.raises(UserError, match=message):
        dispatch(toy, tmp_path)
