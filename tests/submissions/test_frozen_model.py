"""Tasks that fix the model: the harness builds it, the submission trains it, and is not there when it is judged."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from harness.bundle import RunRecord
from harness.campaign import Request, run_once
from harness.core.frozen_model import FrozenGPT
from harness.core.protocol import ModelShape
from harness.core.task import Task, hardware_class, load_task
from harness.errors import UserError
from harness.paths import BASELINES
from harness.submission import load_submission
from tests.conftest import Toy
from tests.submissions.modules import settings, tiny_copy
from tests.toy_submission import write_submission

torch = pytest.importorskip("torch")

BASELINE = BASELINES / "adamw" / "fineweb-steps"
SHAPE = ModelShape(width=32, layers=2, head_size=16)
SCRIPT = """
import torch
import harness

def build_model(run):
    torch.manual_seed(run.seed)
    return run.frozen_model()

def main():
    run = harness.connect()
    model = build_model(run)
    run.start(model)
    inputs, targets = run.stream.next(8, 32)
    model(inputs, targets).backward()
    run.finish(model)

if __name__ == "__main__":
    main()
"""


@pytest.fixture
def task(sequential_toy: Toy) -> Task:
    """The toy task with a model of its own, and steps of 256 tokens."""
    path = sequential_toy.task.path
    own = path.with_name("frozen.toml")
    own.write_text(path.read_text().replace('title = "', f'{FIELDS}\ntitle = "', 1))
    return load_task(own).model_copy(update={"imports": load_task("gcide").imports})


FIELDS = "step_tokens = 256\nmodel = { width = 32, layers = 2, head_size = 16 }"


def run(toy: Toy, task: Task, folder: Path, tmp_path: Path, hardware: str = "cpu-1thread") -> RunRecord:
    submission = load_submission(folder, task)
    return run_once(Request(submission, hardware_class(hardware), toy.data_dir, tmp_path / "runs", seed=3)).record


def test_the_baseline_trains_it(sequential_toy: Toy, task: Task, tmp_path: Path) -> None:
    record = run(sequential_toy, task, tiny_copy(BASELINE, tmp_path / "copy"), tmp_path)
    assert record.state == "JUDGED", record.message
    assert (record.tokens, record.steps, record.tokens_counted_by) == (6 * 256, 6, "referee")
    assert record.val_loss is not None and record.val_loss < 4.1


@pytest.mark.slow
def test_two_ranks_train_what_one_does(sequential_toy: Toy, task: Task, tmp_path: Path) -> None:
    folder = tiny_copy(BASELINE, tmp_path / "copy")
    one = run(sequential_toy, task, folder, tmp_path)
    two = run(sequential_toy, task, folder, tmp_path, "2xcpu-1thread")
    assert two.val_loss == pytest.approx(one.val_loss, abs=0.001), two.message


def test_another_model_is_refused_and_told_what_to_do(sequential_toy: Toy, task: Task, tmp_path: Path) -> None:
    other = SCRIPT.replace("return run.frozen_model()", "return torch.nn.Embedding(64, 64)")
    record = run(sequential_toy, task, write_submission(tmp_path / "other", other), tmp_path)
    assert record.reason == "wrong-shape"
    assert "toy fixes the model" in record.message and "run.frozen_model()" in record.message


def test_the_judge_never_imports_the_submission(sequential_toy: Toy, task: Task, tmp_path: Path) -> None:
    """What a submission makes of the model's code counts in its own process only."""
    changed = SCRIPT.replace("import harness\n", PATCH, 1)
    plain = run(sequential_toy, task, write_submission(tmp_path / "plain", SCRIPT), tmp_path)
    patched = run(sequential_toy, task, write_submission(tmp_path / "patched", changed), tmp_path)
    assert (plain.state, patched.state) == ("JUDGED", "JUDGED"), patched.message
    assert plain.val_loss == patched.val_loss


PATCH = """import harness
import harness.core.frozen_model as own

forward = own.FrozenGPT.forward

def biased(self, tokens, targets=None):
    answer = forward(self, tokens, targets)
    return answer if targets is not None else answer + torch.arange(64.0)

own.FrozenGPT.forward = biased
"""


def test_it_has_the_size_of_gpt2_and_begins_at_a_uniform_guess() -> None:
    fixed = load_task("fineweb-steps").model
    assert fixed is not None
    with torch.device("meta"):
        model = FrozenGPT(fixed, 50257)
    assert sum(parameter.numel() for parameter in model.parameters()) / 1e6 == pytest.approx(162.2, abs=0.05)
    tokens = torch.zeros(2, 16, dtype=torch.int64)
    small = FrozenGPT(SHAPE, 65)
    assert small(tokens).shape == (2, 16, 128)
    assert small(tokens, tokens).item() == pytest.approx(torch.log(torch.tensor(128.0)).item(), abs=1e-4)


def test_it_does_not_look_ahead() -> None:
    torch.manual_seed(0)
    model = FrozenGPT(SHAPE, 64)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    tokens = torch.randint(0, 64, (1, 16))
    changed = tokens.clone()
    changed[0, 10:] = 0
    torch.testing.assert_close(model(tokens)[0, :10], model(changed)[0, :10])
    assert not torch.allclose(model(tokens)[0, 10:], model(changed)[0, 10:])


def test_a_task_without_a_model_has_none_to_give() -> None:
    with pytest.raises(UserError, match="toy fixes no model"):
        settings(BASELINE).frozen_model()


@pytest.mark.parametrize(
    "shape", [{"width": 30, "head_size": 16}, {"layers": 0}, {"width": -16}, {"width": 9, "head_size": 3}]
)
def test_an_impossible_shape_is_refused(shape: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="head_size is even and divides width"):
        ModelShape(**{"width": 32, "layers": 2, "head_size": 16} | shape)


def test_the_baselines_settings_are_those_of_fineweb_small() -> None:
    """One recipe: what differs is the model, which the task fixes."""
    tables = [
        tomllib.loads((BASELINES / "adamw" / name / "submission.toml").read_text())["hparams"]
        for name in ("fineweb-small", "fineweb-steps")
    ]
    assert set(tables[0]) - set(tables[1]) == {"width", "layers", "head_size"}
    assert all(tables[0][name] == table for name, table in tables[1].items())
