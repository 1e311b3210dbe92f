"""The FineWeb submissions at a tiny size: models, batches, and whole runs under the referee on one and two ranks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.campaign import Request, run_once
from harness.checks.check import Checker
from harness.core.task import Task, hardware_class, load_task
from harness.errors import UserError
from harness.submission import load_submission
from tests.conftest import DEVICE, Toy
from tests.submissions.modules import BASELINE, FINEWEB, KERNELS, LLMC, MUON, TINY, load_module, settings, tiny_copy

torch = pytest.importorskip("torch")
import torch.distributed as dist  # noqa: E402
from torch.nn.parallel import DistributedDataParallel  # noqa: E402

every = pytest.mark.parametrize("folder", FINEWEB, ids=lambda folder: folder.name)


def toy_task(toy: Toy) -> Task:
    """The toy, with the modules that real tasks allow."""
    return toy.task.model_copy(update={"imports": load_task("gcide").imports})


# Models and batches, in this process


@pytest.mark.parametrize(("folder", "millions"), [(LLMC, 124.5), (BASELINE, 162.2), (MUON, 162.2), (KERNELS, 162.2)])
def test_the_models_have_the_size_of_gpt2(folder: Path, millions: float) -> None:
    """The modern ones have 38.6 million more: their head is not tied to the embedding."""
    positions_or_head = 1024 if folder == LLMC else 128
    kernels = [True, True] if folder == KERNELS else []
    with torch.device("meta"):
        model = load_module(folder, "train").GPT(50257, 768, 12, positions_or_head, *kernels)
    assert sum(parameter.numel() for parameter in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.05)


@every
def test_a_model_answers_logits_and_begins_near_a_uniform_guess(folder: Path) -> None:
    run = settings(folder)
    model = load_module(folder, "train").build_model(run)
    tokens, targets = cut(torch.randint(0, 64, (2, 33), generator=torch.Generator().manual_seed(0)))
    logits = model(tokens)
    assert logits.shape == (2, 32, 64) and logits.dtype == torch.float32
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
    torch.testing.assert_close(model(tokens, targets), loss, rtol=1e-5, atol=1e-5)
    assert loss.item() == pytest.approx(4.16, abs=0.1)
    assert load_module(folder, "train").build_model(settings(folder, vocab_size=65))(tokens).shape[2] == 128


@every
def test_accumulation_gives_the_gradients_of_the_whole_batch(folder: Path) -> None:
    train = load_module(folder, "train")
    model = train.build_model(settings(folder))
    with torch.no_grad():
        for parameter in model.parameters():  # what begins at zero would hide what is behind it
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    tokens = torch.randint(0, 64, (8, 33), generator=torch.Generator().manual_seed(0))
    found = []
    for rows in (8, 2):
        parts = iter(tokens.split(rows))
        model.zero_grad()
        loss = train.accumulate(model, 8 // rows, lambda parts=parts: cut(next(parts)))
        found.append([loss, *(parameter.grad.clone() for parameter in model.parameters())])
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-6)


def cut(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return rows[:, :-1], rows[:, 1:]


@every
def test_any_number_of_devices_takes_the_same_batch(folder: Path) -> None:
    train = load_module(folder, "train")
    for devices in (8, 4, 2, 1):
        rows, count = train.shares_of(settings(folder, world_size=devices, batch=512, micro_batch=32))
        assert rows * count * devices == 512 and rows == 32
    assert train.shares_of(settings(folder, world_size=8, batch=16, micro_batch=32)) == (2, 1)
    with pytest.raises(UserError, match="whole micro-batches"):
        train.shares_of(settings(folder, world_size=3, batch=512, micro_batch=32))
    with pytest.raises(UserError, match="whole micro-batches"):
        train.shares_of(settings(folder, world_size=8, batch=4, micro_batch=1))


def test_the_kernels_change_nothing_but_the_time() -> None:
    """Loss and gradients of the model with kernels are those of the same model without; so are Muon's directions."""
    train = load_module(KERNELS, "train")
    near = {"rtol": 1e-4, "atol": 1e-5} if DEVICE == "cpu" else {"rtol": 0.05, "atol": 0.02}  # bfloat16 on a GPU
    tokens = torch.randint(0, 64, (2, 33), generator=torch.Generator().manual_seed(0)).to(DEVICE)
    found = []
    for dropped in ((), ("loss-kernel", "mlp-kernel")):
        model = train.build_model(settings(KERNELS, dropped))
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(2))
        model.to(DEVICE)
        loss = model(*cut(tokens))
        loss.backward()
        found.append([loss, *(parameter.grad for parameter in model.parameters())])
    torch.testing.assert_close(*found, **near)
    update = torch.randn(2, 70, 40, generator=torch.Generator().manual_seed(3)).to(DEVICE)
    fused, plain = train.orthogonalize(update, fused=True), train.orthogonalize(update, fused=False)
    torch.testing.assert_close(fused, plain, rtol=0.05, atol=0.02)


@every
def test_model_and_loss_are_one_graph(folder: Path) -> None:
    """torch.compile takes the whole step without a break; what it generates code from gives the same gradients."""
    train = load_module(folder, "train")
    model = train.build_model(settings(folder))
    tokens = torch.randint(0, 64, (2, 33), generator=torch.Generator().manual_seed(0))
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    found = []
    for called in (model, compiled):
        model.zero_grad()
        called(*cut(tokens)).backward()
        found.append([parameter.grad.clone() for parameter in model.parameters()])
    torch.testing.assert_close(*found)


@pytest.fixture
def one_rank(tmp_path: Path) -> Iterator[None]:
    """A process group of this process alone."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("folder", [LLMC, KERNELS], ids=lambda folder: folder.name)
def test_a_compiled_model_keeps_its_gradients_in_buckets(
    folder: Path, one_rank: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On several GPUs the compiler cuts the graph at the buckets of DistributedDataParallel; small ones cut it here."""
    monkeypatch.setattr(dist, "_DEFAULT_FIRST_BUCKET_BYTES", 20_000)
    model = load_module(folder, "train").build_model(settings(folder))
    tokens = torch.randint(0, 64, (2, 33), generator=torch.Generator().manual_seed(0))
    compiled = torch.compile(model, backend="aot_eager")
    found = []
    for called in (model, DistributedDataParallel(compiled, bucket_cap_mb=0.02)):
        model.zero_grad()
        called(*cut(tokens)).backward()
        found.append([parameter.grad.clone() for parameter in model.parameters()])
    torch.testing.assert_close(*found)


# Whole runs


def run_of(folder: Path, toy: Toy, tmp_path: Path, hardware: str = "cpu-1thread", *more: str):
    submission = load_submission(tiny_copy(folder, tmp_path / "copy"), toy_task(toy))
    request = Request(
        submission, hardware_class(hardware), toy.data_dir, tmp_path / "runs", seed=3, settings=list(more)
    )
    record = run_once(request).record
    assert record.state == "JUDGED", record.message
    assert record.tokens == TINY["steps"] * TINY["batch"] * TINY["length"]
    return record


@pytest.mark.slow
@pytest.mark.parametrize("folder", [BASELINE, KERNELS], ids=lambda folder: folder.name)
def test_two_ranks_train_what_one_does(folder: Path, sequential_toy: Toy, tmp_path: Path) -> None:
    one = run_of(folder, sequential_toy, tmp_path / "one")
    two = run_of(folder, sequential_toy, tmp_path / "two", "2xcpu-1thread")
    assert one.val_loss < 4.1
    # Sums are rounded in another order, and Muon orthogonalizes in bfloat16.
    assert two.val_loss == pytest.approx(one.val_loss, abs=0.01)


@pytest.mark.slow
@every
def test_every_rule_of_the_check_is_fulfilled(folder: Path, sequential_toy: Toy, tmp_path: Path) -> None:
    task = toy_task(sequential_toy)
    results = list(Checker(tiny_copy(folder, tmp_path / "copy"), task, "cpu-1thread").results())
    assert [(result.rule.id, result.failures) for result in results if result.failures] == []
    assert {result.rule.id for result in results if result.status == "ok"} >= {"trains", "audit", "consulted"}


@every
def test_the_rules_about_source_are_fulfilled(folder: Path, toy: Toy, tmp_path: Path) -> None:
    submission = tiny_copy(folder, tmp_path / "copy")
    for result in Checker(submission, toy_task(toy), "cpu-1thread").results():
        if result.rule.stage not in ("files", "source"):
            break
        assert result.status == "ok", result
