"""The two methods that gcide-stack adds to gcide-bigrams: products in bfloat16, and a compiled model."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from harness.campaign import Request, run_once
from harness.core.task import hardware_class, load_task
from harness.submission import load_submission
from tests.conftest import Toy
from tests.submissions.modules import GCIDE, manifest, tiny_copy
from tests.submissions.test_gcide import optimizers

torch = pytest.importorskip("torch")

FOLDER, BIGRAMS = GCIDE["muon"].with_name("gcide-stack"), GCIDE["muon"].with_name("gcide-bigrams")


def run(folder: Path, toy: Toy, place: Path, dropped: tuple[str, ...] = (), compiled: bool = False) -> float:
    """The validation loss of a tiny run on the toy task."""
    task = toy.task.model_copy(update={"imports": load_task("gcide").imports})
    copy = tiny_copy(folder, place / "copy")
    if compiled:
        path = copy / "submission.toml"
        path.write_text(path.read_text().replace("default = false", "default = true"))
    submission = load_submission(copy, task)
    request = Request(
        submission, hardware_class("cpu-1thread"), toy.data_dir, place / "runs", seed=3, settings=["steps=20"],
        dropped=list(dropped),
    )  # fmt: skip
    record = run_once(request).record
    assert record.state == "JUDGED", record.message
    assert record.val_loss is not None
    return record.val_loss


def test_without_both_it_is_gcide_bigrams(toy: Toy, tmp_path: Path) -> None:
    assert manifest(FOLDER)["hparams"] == manifest(BIGRAMS)["hparams"]
    without = run(FOLDER, toy, tmp_path / "stack", ("bfloat16",))
    assert without == run(BIGRAMS, toy, tmp_path / "bigrams")


def test_bfloat16_changes_the_loss_a_little(toy: Toy, tmp_path: Path) -> None:
    """Not at all would mean that the method is off."""
    found, exact = run(FOLDER, toy, tmp_path / "with"), run(FOLDER, toy, tmp_path / "without", ("bfloat16",))
    assert found != exact and found == pytest.approx(exact, abs=0.02)
    assert found < math.log(64)


def test_weights_and_logits_stay_in_float32() -> None:
    model, _ = optimizers(FOLDER)
    tokens = torch.randint(0, 64, (2, 16), generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(tokens)
    logits.sum().backward()
    assert logits.dtype == torch.float32
    assert {parameter.grad.dtype for parameter in model.parameters()} == {torch.float32}


def test_the_compiler_takes_the_whole_model() -> None:
    """Without a break, and what it generates code from gives the same loss and gradients."""
    model, _ = optimizers(FOLDER)
    for parameter in model.parameters():  # the head begins at zero, and would pass no gradient on
        torch.nn.init.normal_(parameter, std=0.1)
    tokens = torch.randint(0, 64, (2, 17), generator=torch.Generator().manual_seed(0))
    found: list[dict[str, Any]] = []
    for called in (model, torch.compile(model, backend="aot_eager", fullgraph=True)):
        model.zero_grad()
        logits = called(tokens[:, :-1])
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
        found.append({name: p.grad.to_dense().clone() for name, p in model.named_parameters()} | {"logits": logits})
    torch.testing.assert_close(found[1], found[0])


@pytest.mark.slow
def test_a_compiled_run_is_judged_and_learns_the_same(toy: Toy, tmp_path: Path) -> None:
    found = run(FOLDER, toy, tmp_path / "compiled", compiled=True)
    assert found == pytest.approx(run(FOLDER, toy, tmp_path / "eager"), abs=0.01)
