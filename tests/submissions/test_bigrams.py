"""The embedding of hashed bigrams that gcide-bigrams adds to Muon."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from harness.campaign import Request, run_once
from harness.core.task import hardware_class, load_task
from harness.submission import load_submission
from tests.conftest import Toy
from tests.submissions.modules import GCIDE, GCIDE_BASELINE, load_module, manifest, settings, tiny_copy
from tests.submissions.test_gcide import optimizers, trained

torch = pytest.importorskip("torch")

FOLDER = GCIDE["muon"].with_name("gcide-bigrams")


def test_without_its_methods_it_is_what_it_stands_on() -> None:
    shared = {name: hparam["default"] for name, hparam in manifest(GCIDE_BASELINE)["hparams"].items()}
    adamw = trained(FOLDER, ("muon", "bigrams"), **shared)
    torch.testing.assert_close(adamw, trained(GCIDE_BASELINE, (), **shared), rtol=0, atol=0)
    muon = trained(FOLDER, ("bigrams",), **shared)
    torch.testing.assert_close(muon, trained(GCIDE["muon"], (), **shared), rtol=0, atol=0)


def test_a_row_is_that_of_a_token_and_the_one_before_it() -> None:
    rows_of_bigrams = load_module(FOLDER, "train").rows_of_bigrams
    tokens = torch.randint(0, 1024, (4, 50), generator=torch.Generator().manual_seed(0))
    rows = rows_of_bigrams(tokens, 4096)
    assert rows.shape == tokens.shape and rows.min() >= 0 and rows.max() < 4096
    other = tokens.clone()
    other[:, :20], other[:, 22:] = 0, 0  # leaves the tokens 20 and 21
    torch.testing.assert_close(rows_of_bigrams(other, 4096)[:, 21], rows[:, 21])
    pairs = torch.cartesian_prod(torch.arange(64), torch.arange(64))
    assert len(rows_of_bigrams(pairs, 1 << 20)[:, 1].unique()) > 0.95 * len(pairs)  # few of them share a row


def test_only_rows_that_were_read_are_updated() -> None:
    model, built = optimizers(FOLDER, bigram_rows=512)
    train = load_module(FOLDER, "train")
    tokens = torch.randint(0, 64, (2, 17), generator=torch.Generator().manual_seed(0))
    for parameter in model.parameters():  # as after some steps: the head begins at zero, and passes no gradient on
        torch.nn.init.normal_(parameter, std=0.1)
    torch.nn.init.zeros_(model.bigrams.weight)
    logits = model(tokens[:, :-1])
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
    for optimizer in built:
        optimizer.step()
    read = train.rows_of_bigrams(tokens[:, :-1], 512).unique()
    assert model.bigrams.weight.detach().abs().sum(1).nonzero().flatten().tolist() == read.tolist()


def test_every_parameter_has_one_optimizer() -> None:
    model, built = optimizers(FOLDER)
    found = [id(p) for optimizer in built for group in optimizer.param_groups for p in group["params"]]
    assert sorted(found) == sorted(id(parameter) for parameter in model.parameters())
    assert settings(FOLDER).uses("bigrams") and len(built) == 3


@pytest.mark.parametrize("clip", [0.0, 0.5])
def test_a_whole_run_is_judged_and_learns(clip: float, toy: Toy, tmp_path: Path) -> None:
    task = toy.task.model_copy(update={"imports": load_task("gcide").imports})
    submission = load_submission(tiny_copy(FOLDER, tmp_path / "copy"), task)
    request = Request(
        submission, hardware_class("cpu-1thread"), toy.data_dir, tmp_path / "runs", seed=3,
        settings=["steps=20", f"clip={clip}"],
    )  # fmt: skip
    record = run_once(request).record
    assert record.state == "JUDGED", record.message
    assert record.val_loss is not None and record.val_loss < math.log(64)
