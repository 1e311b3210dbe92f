"""The way to the smallest budget, on made-up losses and with real runs of the toy."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from harness.errors import UserError
from harness.evidence.calibration import write_calibration
from harness.evidence.sides import Where
from harness.statistics.decision import SPREAD_FLOOR
from harness.submission import load_submission
from harness.tuning.budget import Ask, BudgetSearch, Found, Goal, _crossing, decide, least_spread
from harness.tuning.worker import Order
from tests.conftest import Toy
from tests.evidence.fake import calibration
from tests.toy_submission import MANIFEST, write_submission
from tests.tuning.fake_workers import FakeWorkers, answer
from tests.tuning.toy_tuning import place_of

DECLARED, SLOPE, SPREAD, BEND = 1000, 0.25, 0.004, 0.05


def loss_at(budget: int) -> float:
    """Falls by SLOPE a factor of e, less and less: exactly 3.4 at 1,500."""
    distance = math.log(budget / 1500)
    return 3.4 - SLOPE * distance + BEND * distance**2


def follow(target: float, margin: float | None, seed: int = 0) -> tuple[Found, dict[int, list[float]]]:
    """Obeys `decide` until it has found the budget."""
    noise = np.random.default_rng(seed)
    losses: dict[int, list[float]] = {}
    while isinstance(step := decide(losses, DECLARED, Goal(target, margin)), Ask):
        runs = losses.setdefault(step.budget, [])
        assert len(runs) < step.runs
        runs += list(loss_at(step.budget) + SPREAD * noise.standard_normal(step.runs - len(runs)))
    return step, losses


@pytest.mark.parametrize("seed", range(20))
def test_the_budget_is_found_in_few_runs(seed: int) -> None:
    found, losses = follow(target=3.41, margin=0.01, seed=seed)
    assert abs(math.log(found.budget / 1500)) < 4 * found.relative_error + 0.005
    assert found.relative_error < 0.03
    assert sum(map(len, losses.values())) == found.runs <= 18
    assert found.mean == pytest.approx(3.4)


def test_a_budget_far_below_the_declared_one_is_found_too() -> None:
    found, _ = follow(target=loss_at(300), margin=0.0)
    assert found.budget == pytest.approx(300, rel=0.05)


def test_by_default_the_margin_follows_from_the_spread() -> None:
    found, _ = follow(target=3.4, margin=None)
    assert 0.5 * found.spread < found.margin < 3 * found.spread
    assert found.budget > 1500


def test_a_spread_that_came_out_small_by_luck_gives_no_small_margin() -> None:
    goal = Goal(3.4, least_spread=0.01)
    assert goal.margin_at(0.001) == goal.margin_at(0.01) == 2 * goal.margin_at(0.02) / 4
    assert Goal(3.4, margin=0.005, least_spread=0.01).margin_at(0.001) == 0.005


def test_the_spread_is_at_least_the_share_of_the_calibrated_one_that_submit_takes(tmp_path: Path) -> None:
    where = Where("toy", "cpu-1thread", tmp_path)
    assert least_spread(where) == 0
    write_calibration(where, calibration())
    assert least_spread(where) == SPREAD_FLOOR * calibration().loss_spread > 0


def test_runs_of_one_seed_at_several_budgets_count_once() -> None:
    """A third budget on the same seeds makes the mean no surer, however near it lies."""
    runs = {1500: [3.396, 3.404], 2000: [3.326, 3.334]}
    more = runs | {1740: [3.359, 3.367]}
    errors = [_crossing(losses, Goal(3.4, 0.0)).relative_error for losses in (runs, more)]
    assert errors[1] > 0.98 * errors[0]


def test_a_loss_that_does_not_fall_is_an_error() -> None:
    losses = {1000: [3.5, 3.51], 1400: [3.52, 3.53]}
    with pytest.raises(UserError, match="does not fall"):
        decide(losses, DECLARED, Goal(3.4, 0.0))


def test_it_goes_on_from_what_it_ran(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = MANIFEST.replace("default = 30", "default = 300")
    submission = load_submission(write_submission(tmp_path / "bigram", manifest=manifest), toy.task)
    search = BudgetSearch(submission, "steps", margin=0.0)
    place = place_of(toy, submission, tmp_path / "runs")
    workers = FakeWorkers(monkeypatch, lambda order: answer(4.0 - 0.1 * math.log(steps_of(order) / 110)))

    class Stopped(Exception):
        pass

    def stop(_: object) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        search.run(place, stop)
    assert len(search.table.trials) == 1
    again = BudgetSearch(submission, "steps", margin=0.0)
    found = again.run(place, lambda trial: None)
    assert again.table.trials[0] == search.table.trials[0]
    assert len(workers.orders) == len(again.table.trials) == found.runs
    assert found.budget == pytest.approx(110 * math.exp(10 * (4.0 - toy.task.target.val_loss)), rel=0.01)


def test_a_failed_run_stops_it(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    submission = load_submission(write_submission(tmp_path / "bigram"), toy.task)
    FakeWorkers(monkeypatch, lambda order: answer(None, "crash"))
    with pytest.raises(UserError, match=r"budget\.csv: steps=30, seed \d+ failed: crash"):
        BudgetSearch(submission, "steps").run(place_of(toy, submission, tmp_path / "runs"), lambda trial: None)


def steps_of(order: Order) -> int:
    return int(dict(setting.split("=") for setting in order.settings)["steps"])


def test_a_budget_must_be_declared_in_whole_numbers(toy: Toy, tmp_path: Path) -> None:
    submission = load_submission(write_submission(tmp_path / "bigram"), toy.task)
    for name in ("lr", "epochs"):
        with pytest.raises(UserError, match=f"hparams.{name}"):
            BudgetSearch(submission, name)
