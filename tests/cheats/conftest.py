"""Runs the cheats: real submissions on the toy task, under the real referee, each held to what the table says of it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from harness.checks.cheats import cheats
from harness.checks.check import Checker, Result
from harness.core import referee as referee_module
from harness.core.data.shards import open_shard
from harness.core.failures import Failure
from harness.core.plan import Outcome, Plan
from harness.core.referee import Referee
from harness.core.sandbox import probe
from harness.core.task import hardware_class
from harness.submission import load_submission
from tests.conftest import Toy

FOLDER = Path(__file__).parent
SEED = 7
FAKE_LOSS = 1.0


@dataclass(frozen=True)
class Ran:
    """What came of a cheat's run: the outcome, what its script printed, its log, and its folder."""

    outcome: Outcome
    printed: str
    rows: list[dict[str, float | None]]
    folder: Path

    @property
    def loss(self) -> float:
        assert self.outcome.judgement is not None, self.outcome.message
        return self.outcome.judgement["val_loss"]


class Cheats:
    """Runs and checks submissions of this folder. A cheat must end as the table says, or the test fails."""

    def __init__(self, toy: Toy, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._toy = toy
        self._folder = folder
        self._monkeypatch = monkeypatch
        self._count = 0

    def run(
        self, name: str, settings: Sequence[str] = (), compiled: Path | None = None, toy: Toy | None = None, **caps: Any
    ) -> Ran:
        """A whole run, judged. `caps` change those of the task; `compiled` is the folder of the compile cache."""
        toy = toy or self._toy
        task = toy.task
        if caps:
            task = task.model_copy(update={"caps": {"cpu": task.caps["cpu"].model_copy(update=caps)}})
        submission = load_submission(FOLDER / name, task)
        self._count += 1
        folder = self._folder / f"{name}-{self._count}"
        submission.snapshot(folder / "source")
        shape = submission.manifest.evaluation
        plan = Plan(
            task=task, hardware=hardware_class("cpu-1thread"), source=folder / "source",
            data_folder=task.data_folder(toy.data_dir), folder=folder, trust=probe().level, rung=probe().rung,
            seed=SEED, methods=submission.methods([]), hparams=submission.hparams(list(settings)),
            batch=shape.batch, length=shape.length, compiled=compiled,
        )  # fmt: skip
        referee = Referee(plan)
        outcome = referee.run()
        ran = Ran(outcome, (folder / "output.txt").read_text(), referee.log.rows, folder)
        ends = cheats()[name].ends if name in cheats() else ""
        expected = Failure(ends) if ends in list(Failure) else None
        assert outcome.reason is expected, (name, outcome.reason, outcome.message)
        return ran

    def train(self, name: str, **options: Any) -> Ran:
        """A run up to the seal of its weights, for cheats of the run's side: the judge is left out."""
        with self._monkeypatch.context() as patch:
            patch.setattr(referee_module, "ask_judge", lambda *_: {"val_loss": FAKE_LOSS, "bits_per_byte": 1.5})
            return self.run(name, **options)

    def check(self, name: str) -> Result:
        """What `speedrun check` says under the rule by which this cheat is to end; every rule before it passes."""
        ends = cheats()[name].ends
        for result in Checker(FOLDER / name, self._toy.task, "cpu-1thread").results():
            if result.rule.id == ends:
                assert result.status == "FAILED", result
                return result
        raise AssertionError(f"no rule is called {ends}")


def load(name: str) -> ModuleType:
    """The `train.py` of a cheat as a module of this process, to try what it does where nothing stands against it."""
    spec = importlib.util.spec_from_file_location(f"cheat_{name}", FOLDER / name / "train.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def plain_loss(
    toy: Toy, name: str, steps: int = 30, score: Callable[[torch.Tensor, torch.Tensor], float] = F.cross_entropy
) -> float:
    """Nats a token as a harness without our judge would have it: trained and evaluated in one process, in one go."""
    data = {split: [] for split in ("train", "validation")}
    for shard in toy.task.shards:
        if shard.split in data:
            data[shard.split].append(
                torch.from_numpy(open_shard(toy.data_dir / "toy" / shard.file, shard).astype("int64"))
            )
    training, validation = (torch.cat(parts) for parts in data.values())
    model = load(name).build_model(SimpleNamespace(seed=SEED))
    optimizer = torch.optim.SGD(model.parameters(), lr=50)
    for step in range(steps):
        part = training[step * 256 : (step + 1) * 256 + 1]
        loss = F.cross_entropy(model(part[:-1].view(8, 32)).flatten(0, 1), part[1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    total = 0.0
    whole = (len(validation) - 1) // 256
    with torch.inference_mode():
        for part in (validation[index * 256 : (index + 1) * 256 + 1] for index in range(whole)):
            answer, targets = model(part[:-1].view(8, 32)).flatten(0, 1), part[1:]
            total += float(score(answer, targets))
    return total / whole


@pytest.fixture
def cheat(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cheats:
    return Cheats(toy, tmp_path, monkeypatch)


@pytest.fixture(scope="session")
def honest(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """A run of the honest bigram table, with the seed of the others."""
    with pytest.MonkeyPatch.context() as patch:
        return Cheats(toy, tmp_path_factory.mktemp("honest"), patch).run("honest_bigram")


@pytest.fixture(scope="session")
def honest_loss(honest: Ran) -> float:
    """The judged loss of the honest bigram table."""
    return honest.loss
