"""The optimizers of the FineWeb submissions: Muon against torch.optim.Muon, AdamW against its update rule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.conftest import DEVICE
from tests.submissions.modules import BASELINE, FINEWEB, KERNELS, LLMC, MUON, load_module, settings

torch = pytest.importorskip("torch")

SHAPES = [(24, 24), (96, 24), (24, 96), (24, 24)]


def optimizers(folder: Path, dropped: tuple[str, ...] = ("compile",)) -> tuple[torch.nn.Module, list[Any]]:
    """A tiny model and what trains it."""
    train = load_module(folder, "train")
    run = settings(folder, dropped)
    model = train.build_model(run)
    if hasattr(train, "build_optimizers"):
        return model, train.build_optimizers(model, run)
    return model, [train.build_optimizer(model, run)]


def gradients(shapes: list[tuple[int, ...]], seed: int, device: str = "cpu") -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator).to(device) for shape in shapes]


@pytest.mark.parametrize("folder", [MUON, KERNELS], ids=lambda folder: folder.name)
def test_muon_is_torchs_muon(folder: Path) -> None:
    train = load_module(folder, "train")
    ours = [torch.nn.Parameter(start) for start in gradients(SHAPES, 0, DEVICE)]
    theirs = [torch.nn.Parameter(matrix.detach().clone()) for matrix in ours]
    arguments = {"fused": True} if folder == KERNELS else {}
    muon = train.Muon(ours, 0.02, 0.9, 0.1, 0, 1, lambda update: train.orthogonalize(update, **arguments))
    reference = torch.optim.Muon(theirs, lr=0.02, momentum=0.9, weight_decay=0.1, adjust_lr_fn="original")
    begun = [matrix.detach().clone() for matrix in ours]
    for step in range(5):
        for group in [*ours], [*theirs]:
            for matrix, gradient in zip(group, gradients(SHAPES, step, DEVICE), strict=True):
                matrix.grad = gradient.clone()
        muon.step()
        reference.step()
    for matrix, right, start in zip(ours, theirs, begun, strict=True):
        # Both orthogonalize in bfloat16, in another order of summation.
        assert (matrix - right).norm() < 0.02 * (right - start).norm()


def test_a_stack_of_matrices_is_taken_one_by_one() -> None:
    train = load_module(MUON, "train")
    (stack,) = gradients([(3, 24, 24)], 1)
    apart = torch.stack([train.orthogonalize(matrix[None])[0] for matrix in stack])
    torch.testing.assert_close(train.orthogonalize(stack[None])[0], apart, rtol=0.02, atol=0.02)


def test_orthogonalized_matrices_have_singular_values_near_one() -> None:
    train = load_module(MUON, "train")
    for shape in ((2, 40, 90), (1, 90, 40), (1, 64, 64)):
        update = train.orthogonalize(gradients([shape], 3)[0])
        assert update.dtype == torch.bfloat16 and update.shape == shape
        values = torch.linalg.svdvals(update.float())
        assert values.max() < 1.3 and values.quantile(0.05) > 0.5
    assert not train.orthogonalize(torch.zeros(1, 8, 8)).any()


@pytest.mark.parametrize("world_size", [2, 3, 8])
def test_ranks_that_share_muons_work_do_what_one_does(world_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five matrices of one shape are no whole share for any of these; some ranks have none."""
    train = load_module(MUON, "train")
    shapes = [(16, 24)] * 5

    def trained(rank: int, size: int) -> list[torch.Tensor]:
        matrices = [torch.nn.Parameter(start) for start in gradients(shapes, 0)]
        muon = train.Muon(matrices, 0.02, 0.9, 0.1, rank, size, train.orthogonalize)
        for step in range(2):
            for matrix, gradient in zip(matrices, gradients(shapes, step), strict=True):
                matrix.grad = gradient
            muon.step()
        return [matrix.detach() for matrix in matrices]

    alone = trained(0, 1)
    shares: dict[int, list[torch.Tensor]] = {rank: [] for rank in range(world_size)}
    for rank in range(world_size):  # first what each rank sends, step after step; what it receives does not change that
        monkeypatch.setattr(
            train.dist, "all_gather_into_tensor", lambda out, own, sent=shares[rank]: sent.append(own.clone())
        )
        trained(rank, world_size)
    for rank in range(world_size):
        steps = iter(zip(*shares.values(), strict=True))
        monkeypatch.setattr(
            train.dist, "all_gather_into_tensor", lambda out, own, steps=steps: out.copy_(torch.cat(next(steps)))
        )
        torch.testing.assert_close(trained(rank, world_size), alone, rtol=0.01, atol=1e-3)


def adamw_by_its_rule(start: torch.Tensor, steps: list[torch.Tensor], group: dict[str, Any]) -> torch.Tensor:
    """Loshchilov and Hutter 2019, algorithm 2, in float64."""
    (beta1, beta2), rate = group["betas"], group["lr"]
    parameter, mean, square = start.double(), torch.zeros_like(start).double(), torch.zeros_like(start).double()
    for step, gradient in enumerate(steps, start=1):
        mean = beta1 * mean + (1 - beta1) * gradient.double()
        square = beta2 * square + (1 - beta2) * gradient.double() ** 2
        direction = (mean / (1 - beta1**step)) / ((square / (1 - beta2**step)).sqrt() + group["eps"])
        parameter = (1 - rate * group["weight_decay"]) * parameter - rate * direction
    return parameter


@pytest.mark.parametrize(
    ("folder", "dropped"),
    [(BASELINE, ("compile",)), (LLMC, ("compile",)), (MUON, ("compile", "muon")), (KERNELS, ("compile", "muon"))],
    ids=lambda value: value.name if isinstance(value, Path) else "",
)
def test_adamw_follows_its_rule_in_every_group(folder: Path, dropped: tuple[str, ...]) -> None:
    _, (adamw,) = optimizers(folder, dropped)
    for group in adamw.param_groups:
        group["lr"] = group.get("base_lr", group["lr"])
        parameter = group["params"][0]
        steps = gradients([tuple(parameter.shape)] * 3, 5)
        right = adamw_by_its_rule(parameter.detach(), steps, group)
        for gradient in steps:
            parameter.grad = gradient
            adamw.step()
        torch.testing.assert_close(parameter.detach().double(), right, rtol=1e-4, atol=1e-5)
        parameter.grad = None


@pytest.mark.parametrize("folder", FINEWEB, ids=lambda folder: folder.name)
def test_every_parameter_has_one_optimizer_and_only_what_should_decays(folder: Path) -> None:
    model, built = optimizers(folder)
    groups = [group for optimizer in built for group in optimizer.param_groups]
    trained = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(trained) == sorted(id(parameter) for parameter in model.parameters())
    if folder == LLMC:
        assert [{p.dim() for p in group["params"]} for group in groups] == [{2}, {1}]
        assert [group["weight_decay"] for group in groups] == [0.1, 0.0]
    else:
        by_name = {id(parameter): name for name, parameter in model.named_parameters()}
        blocks = next(group for group in groups if "blocks" in by_name[id(group["params"][0])])
        assert all(p.dim() >= 2 and "blocks" in by_name[id(p)] for p in blocks["params"])
