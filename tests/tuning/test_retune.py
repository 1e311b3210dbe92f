"""Retuning what a method leaves behind: a protocol from the declared ranges, adoption, and the budget."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest

from harness.core.task import hardware_class
from harness.errors import UserError
from harness.submission import load_submission
from harness.tuning.dispatch import Place
from harness.tuning.protocol import Protocol, load_protocol
from harness.tuning.retune import FINALISTS, Plan, protocol_text, retune
from harness.tuning.trials import Trial
from harness.tuning.worker import Order
from tests.conftest import Toy
from tests.toy_submission import MANIFEST, write_submission
from tests.tuning.fake_workers import FakeWorkers, answer

BEST_LR = 25.0
BETA = """
[hparams.beta2]
default = 0.9
low = 0.5
high = 0.9999
"""


def scripted(order: Order) -> str:
    """A loss that is lowest at one learning rate, and falls with the logarithm of the steps."""
    values = dict(setting.split("=") for setting in order.settings)
    steps, lr = int(values["steps"]), float(values["lr"])
    noise = 0.0002 * random.Random(order.seed).gauss(0, 1)
    return answer(3.95 + 0.1 * math.log(lr / BEST_LR) ** 2 - 0.25 * math.log(steps / 30) + noise)


def test_it_is_retuned_and_gets_the_budget_it_needs(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workers = FakeWorkers(monkeypatch, scripted)
    folder = write_submission(tmp_path / "bigram", manifest=MANIFEST.replace('of = "momentum"\n', ""))
    place = Place(load_submission(folder, toy.task), hardware_class("cpu-1thread"), toy.data_dir, tmp_path / "runs")
    told: list[Trial] = []
    done = retune(folder, place, Plan(16, 5.0), told.append)
    assert done.trials == 16 and len(workers.orders) == len(told) == 16 + done.budget_runs
    tuned = load_submission(folder, toy.task).hparams([])
    assert abs(math.log(float(tuned["lr"]) / BEST_LR)) < abs(math.log(50 / BEST_LR))
    assert tuned.keys() == {"steps", "lr"} and tuned["steps"] == done.budget
    reached = 3.95 + 0.1 * math.log(float(tuned["lr"]) / BEST_LR) ** 2 - 0.25 * math.log(done.budget / 30)
    assert reached == pytest.approx(toy.task.target.val_loss, abs=0.01)


def test_the_protocol_searches_about_the_declared_point(toy: Toy, tmp_path: Path) -> None:
    folder = write_submission(tmp_path / "bigram")
    submission = load_submission(folder, toy.task)
    (folder / "tuning").mkdir()
    (folder / "tuning" / "protocol.toml").write_text(protocol_text(submission, Plan(16, 80.0)))
    protocol = load_protocol(submission)
    assert set(protocol.knobs) == {"lr"}  # steps are the budget, a whole number
    assert (protocol.knobs["lr"].low, protocol.knobs["lr"].high) == (12.5, 200.0)
    assert protocol.stages.search is not None and protocol.stages.search.trials == 16 - FINALISTS
    assert protocol.stages.search.starts == [{"lr": 50.0}]


def written(toy: Toy, folder: Path, plan: Plan) -> Protocol:
    """The protocol for a toy with a decay, too."""
    submission = load_submission(write_submission(folder, manifest=MANIFEST + BETA), toy.task)
    (folder / "tuning").mkdir()
    (folder / "tuning" / "protocol.toml").write_text(protocol_text(submission, plan))
    return load_protocol(submission)


@pytest.mark.parametrize(
    ("plan", "searched"),
    [
        (Plan(16, 5.0), {"lr", "beta2"}),
        (Plan(16, 5.0, fresh=["beta2", "steps"]), {"beta2"}),
        (Plan(16, 5.0, fresh=["steps"]), {"lr", "beta2"}),
        (Plan(16, 5.0, names=["lr"], fresh=["beta2"]), {"lr"}),
    ],
)
def test_what_nothing_tuned_before_is_searched_first(toy: Toy, tmp_path: Path, plan: Plan, searched: set[str]) -> None:
    assert set(written(toy, tmp_path / "bigram", plan).knobs) == searched


def test_a_decay_is_searched_by_its_distance_from_one(toy: Toy, tmp_path: Path) -> None:
    knob = written(toy, tmp_path / "bigram", Plan(16, 5.0)).knobs["beta2"]
    assert (knob.scale, knob.low, knob.high) == ("complement", pytest.approx(0.6), pytest.approx(0.975))


@pytest.mark.parametrize(
    ("names", "trials", "said"),
    [
        ([], 7, "--trials 7: too few"),
        (["steps"], 16, "steps cannot be varied on a scale"),
        (["muon_lr"], 16, "muon_lr cannot be varied on a scale"),
    ],
)
def test_what_the_user_can_fix(toy: Toy, tmp_path: Path, names: list[str], trials: int, said: str) -> None:
    submission = load_submission(write_submission(tmp_path / "bigram"), toy.task)
    with pytest.raises(UserError) as raised:
        protocol_text(submission, Plan(trials, 5.0, names))
    assert said in raised.value.message
