"""The optimizers of the first attempts on gcide, against well-kept implementations and the published rules."""

from __future__ import annotations

import math
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from harness.campaign import Request, run_once
from harness.core.task import hardware_class, load_task
from harness.submission import load_submission
from harness.tuning.design import Design, same_budget
from harness.tuning.protocol import load_protocol
from tests.conftest import Toy
from tests.submissions.modules import (
    GCIDE,
    GCIDE_BASELINE,
    NANOGPT,
    TEXTBOOK,
    load_module,
    manifest,
    settings,
    tiny_copy,
)

torch = pytest.importorskip("torch")

Tensors = list[torch.Tensor]
CONTROLS = ("nadamw", "sgd")
every = pytest.mark.parametrize("method", GCIDE)


def train_module(method: str) -> ModuleType:
    return load_module(GCIDE[method], "train")


def optimizers(folder: Path, dropped: tuple[str, ...] = (), **hparams: Any) -> tuple[torch.nn.Module, list[Any]]:
    """A tiny model and what trains it."""
    train, run = load_module(folder, "train"), settings(folder, dropped, **hparams)
    model = train.build_model(run)
    if hasattr(train, "build_optimizers"):
        return model, train.build_optimizers(model, run)
    return model, [train.build_optimizer(model, run)]


def random_tensors(shapes: list[tuple[int, ...]], seed: int) -> Tensors:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in shapes]


def descend(optimizer: Any, parameters: Tensors, steps: int) -> Tensors:
    """The parameters after steps on random gradients whose directions differ in size, the same ones every time."""
    for step in range(steps):
        for parameter, noise in zip(parameters, random_tensors([p.shape for p in parameters], step), strict=True):
            parameter.grad = noise * torch.linspace(0.1, 2, parameter.shape[-1])
        optimizer.step()
    return [parameter.detach() for parameter in parameters]


def leaves(shapes: list[tuple[int, ...]]) -> Tensors:
    return [torch.nn.Parameter(start) for start in random_tensors(shapes, 99)]


# All of them


def trained(folder: Path, dropped: tuple[str, ...], **hparams: Any) -> dict[str, torch.Tensor]:
    """The weights after a few steps of a submission's own model, schedule and optimizers on the same tokens."""
    hparams |= {"width": 96, "layers": 2, "steps": 6, "warmup": 0.3}
    model, built = optimizers(folder, dropped, **hparams)
    train, run = load_module(folder, "train"), settings(folder, dropped, **hparams)
    tokens = torch.randint(0, 64, (6, 4, 17), generator=torch.Generator().manual_seed(0))
    for step, rows in enumerate(tokens):
        logits = model(rows[:, :-1])
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten()).backward()
        for optimizer in built:
            for group in optimizer.param_groups:
                group["lr"] = group["base_lr"] * train.schedule(step, run)
            optimizer.step()
            optimizer.zero_grad()
    return model.state_dict()


@every
def test_without_its_method_a_submission_is_the_baseline(method: str) -> None:
    """At the baseline's hyperparameters bit for bit: model, initialization, schedule, AdamW."""
    shared = {name: hparam["default"] for name, hparam in manifest(GCIDE_BASELINE)["hparams"].items()}
    found, right = trained(GCIDE[method], (method,), **shared), trained(GCIDE_BASELINE, (), **shared)
    torch.testing.assert_close(found, right, rtol=0, atol=0)


@pytest.mark.parametrize(("control", "decay"), [(TEXTBOOK, 0.01), (NANOGPT, 0.1)])
def test_the_textbook_adamw_is_the_baseline_at_one_rate_but_for_what_decays(control: Path, decay: float) -> None:
    shared = {name: hparam["default"] for name, hparam in manifest(control)["hparams"].items()}
    rates = {f"{kind}_lr": shared["lr"] for kind in ("matrix", "embedding", "head", "vector")}
    plain = shared | rates | {"weight_decay": 0.0}
    right = trained(GCIDE_BASELINE, (), **plain)
    torch.testing.assert_close(trained(control, (), **plain), right, rtol=0, atol=0)
    decayed = trained(control, (), **plain | {"weight_decay": 3.0, "decay_vectors": True})
    assert not any(torch.equal(decayed[name], right[name]) for name in right)
    _, (adamw,) = optimizers(control, decay_vectors=False)
    groups = [({p.dim() for p in group["params"]}, group["weight_decay"]) for group in adamw.param_groups]
    assert groups == [({2}, decay), ({1}, 0.0)]


@every
def test_every_parameter_has_one_optimizer(method: str) -> None:
    model, built = optimizers(GCIDE[method])
    trained = [
        id(parameter) for optimizer in built for group in optimizer.param_groups for parameter in group["params"]
    ]
    assert sorted(trained) == sorted(id(parameter) for parameter in model.parameters())
    assert len(built) == (2 if method in ("muon", "soap", "shampoo") else 1)


@every
@pytest.mark.parametrize("on", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["with", "without"])
def test_a_whole_run_is_judged_and_learns(method: str, on: bool, toy: Toy, tmp_path: Path) -> None:
    task = toy.task.model_copy(update={"imports": load_task("gcide").imports})
    submission = load_submission(tiny_copy(GCIDE[method], tmp_path / "copy"), task)
    request = Request(
        submission, hardware_class("cpu-1thread"), toy.data_dir, tmp_path / "runs", seed=3,
        dropped=[] if on else [method], settings=["steps=20"],
    )  # fmt: skip
    record = run_once(request).record
    assert record.state == "JUDGED", record.message
    assert record.val_loss is not None and record.val_loss < math.log(64)


@every
def test_a_protocol_plans_enough_trials_of_the_whole_budget(method: str) -> None:
    submission = load_submission(GCIDE[method])
    protocol = load_protocol(submission)
    assert protocol.stages.search is not None
    assert protocol.stages.search.trials >= (12 if method in CONTROLS else 16)
    design = Design(submission, protocol)
    for start in protocol.stages.search.starts:
        point = design.point(start)  # UserError where a value is out of range
        assert same_budget(design.tokens(point), design.full_tokens)
    assert protocol.seed == load_protocol(load_submission(GCIDE_BASELINE)).seed


@every
def test_what_a_submission_shares_with_the_baseline_is_declared_alike(method: str) -> None:
    """Its search begins at AdamW's tuned point, and without its method it falls back on that.

    The budget is its own, and so is what its own trials found.
    """
    submission, folder = load_submission(GCIDE[method]), GCIDE[method]
    found = set(load_protocol(submission).knobs) if (folder / "tuning" / "trials.csv").exists() else set()
    shared = load_submission(GCIDE_BASELINE).hparams([])
    own = submission.hparams([])
    other = {name: value for name, value in shared.items() if name not in {"steps", *found} and own[name] != value}
    remedy = f"declare the baseline's: harness.tuning.adopt.declare(load_submission(Path({str(folder)!r})), {other})"
    assert not other, remedy


# Muon


def test_muon_is_torchs_muon() -> None:
    shapes = [(24, 24), (72, 24), (24, 72), (24, 24)]
    train, ours, theirs = train_module("muon"), leaves(shapes), leaves(shapes)
    options = {"lr": 0.02, "momentum": 0.9, "weight_decay": 0.1}
    muon = train.Muon(ours, {}, scale="original", dtype=torch.bfloat16, **options)
    reference = torch.optim.Muon(theirs, adjust_lr_fn="original", **options)
    for mine, right, start in zip(descend(muon, ours, 5), descend(reference, theirs, 5), leaves(shapes), strict=True):
        # Both orthogonalize in bfloat16, in another order of summation.
        assert (mine - right).norm() < 0.02 * (right - start).norm()


def test_a_matrix_in_parts_is_taken_as_several() -> None:
    train = train_module("muon")
    (whole,) = leaves([(72, 24)])
    apart = [torch.nn.Parameter(part.clone()) for part in whole.detach().split(24)]
    options = {"lr": 0.02, "momentum": 0.9, "weight_decay": 0.1, "scale": "original", "dtype": torch.float32}
    together, separate = train.Muon([whole], {whole: 3}, **options), train.Muon(apart, {}, **options)
    for gradient in random_tensors([(72, 24)] * 3, 0):
        whole.grad = gradient
        for parameter, part in zip(apart, gradient.split(24), strict=True):
            parameter.grad = part
        together.step()
        separate.step()
    torch.testing.assert_close(whole.detach(), torch.cat(apart).detach())


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 0.05)])
def test_newton_schulz_is_its_polynomial_of_the_singular_values(dtype: torch.dtype, tolerance: float) -> None:
    train = train_module("muon")
    for shape in ((2, 40, 90), (1, 90, 40), (3, 64, 64)):
        (update,) = random_tensors([shape], 3)
        left, values, right = torch.linalg.svd(update.double(), full_matrices=False)
        values = values / values.norm(dim=-1, keepdim=True)
        for _ in range(5):
            values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
        found = train.orthogonalize(update, dtype)
        assert found.dtype == torch.float32
        assert (found - (left * values[:, None]) @ right).norm() < tolerance * found.norm()
    assert not train.orthogonalize(torch.zeros(1, 8, 8), dtype).any()


@pytest.mark.parametrize(
    ("scale", "tall", "wide"), [("original", 3**0.5, 1), ("spectral", 3**0.5, 3**-0.5), ("rms", 3**0.5, 3**0.5)]
)
def test_scales_agree_on_square_matrices_and_differ_on_others(scale: str, tall: float, wide: float) -> None:
    of = train_module("muon").SCALES[scale]
    assert [of(96, 96), of(288, 96), of(96, 288)] == pytest.approx([1, tall, wide])


# SOAP and Shampoo


@pytest.mark.parametrize("method", ["soap", "shampoo"])
def test_blocks_cover_matrices_of_any_shape_once(method: str) -> None:
    train = train_module(method)
    matrices = random_tensors([(24, 72), (48, 24), (24, 24)], 0)
    blocks = train.to_blocks(matrices, 24)
    assert blocks.shape == (6, 24, 24)
    torch.testing.assert_close(blocks[1], matrices[0][:, 24:48])
    torch.testing.assert_close(blocks[4], matrices[1][24:])
    torch.testing.assert_close(train.from_blocks(blocks, matrices), matrices, rtol=0, atol=0)


@pytest.mark.parametrize("refresh", [1, 3])
def test_soap_is_that_of_pytorch_optimizer(refresh: int) -> None:
    library = pytest.importorskip("pytorch_optimizer", reason="not installed: make install")
    train, shapes = train_module("soap"), [(24, 24)] * 3
    ours, theirs = leaves(shapes), leaves(shapes)
    soap = train.SOAP(ours, 24, 0.01, (0.9, 0.95), 0.9, 1e-12, refresh, weight_decay=0.0)
    reference = library.SOAP(
        theirs,
        lr=0.01,
        betas=(0.9, 0.95),
        shampoo_beta=0.9,
        weight_decay=0.0,
        precondition_frequency=refresh,
        eps=1e-12,
    )
    found, right = descend(soap, ours, 20), descend(reference, theirs, 20)
    assert (found[0] - leaves(shapes)[0]).norm() > 1
    torch.testing.assert_close(found, right, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("refresh", [1, 10])
def test_a_first_gradient_of_zero_finds_no_bases(refresh: int) -> None:
    """The baseline's projections begin at zero, so that most matrices have no gradient in the first steps."""
    train, (late, early) = train_module("soap"), leaves([(16, 16), (16, 16)])
    soap = train.SOAP([late, early], 16, 0.01, (0.9, 0.95), 0.9, 1e-12, refresh, weight_decay=0.0)
    gradients = random_tensors([(16, 16)] * 4, 3)
    for step, gradient in enumerate(gradients):
        early.grad, late.grad = gradient, gradient if step >= 2 else torch.zeros(16, 16)
        start = late.detach().clone()
        soap.step()
        if step <= 2:
            torch.testing.assert_close(late.detach(), start, rtol=0, atol=0)  # the first one only finds bases
        if step == 2:
            for factor, basis in zip((gradient @ gradient.T, gradient.T @ gradient), soap.bases[:, 0], strict=True):
                turned = basis.T @ factor @ basis
                torch.testing.assert_close(turned, torch.diag(turned.diag()), rtol=0, atol=2e-3)
    assert 0 < (late.detach() - start).abs().mean() < 0.05


def test_soap_without_new_bases_is_adam_in_the_first_ones() -> None:
    """After a first gradient that is diagonal its bases are those of the matrix itself, in some order."""
    train, shape = train_module("soap"), (16, 16)
    ours, theirs = leaves([shape]), leaves([shape])
    soap = train.SOAP(ours, 16, 0.01, (0.9, 0.95), 0.9, 1e-12, 1000, weight_decay=0.3)
    adamw = torch.optim.AdamW(theirs, lr=0.01, betas=(0.9, 0.95), eps=1e-12, weight_decay=0.3)
    ours[0].grad = torch.diag(torch.linspace(1, 2, 16))
    soap.step()
    torch.testing.assert_close(ours, leaves([shape]))  # the first gradient only finds bases
    torch.testing.assert_close(descend(soap, ours, 10), descend(adamw, theirs, 10), rtol=1e-4, atol=1e-5)


def shampoo(parameters: Tensors, **options: Any) -> Any:
    given = {
        "block": 16, "lr": 0.01, "betas": (0.9, 0.95), "factor_beta": 0.9, "exponent": 0.25, "factor_epsilon": 1e-5,
        "refresh": 1, "grafting": "adam", "epsilon": 1e-12, "weight_decay": 0.1,
    }  # fmt: skip
    return train_module("shampoo").Shampoo(parameters, **given | options)


@pytest.mark.parametrize("exponent", [0.25, 0.5])
@pytest.mark.parametrize("grafting", ["adam", "none"])
def test_shampoo_follows_its_rule(exponent: float, grafting: str) -> None:
    """In float64, with roots by scipy; roots are computed at steps 1, 2, 3, 6 and 9."""
    from scipy.linalg import fractional_matrix_power

    (ours,), rate, decay, steps = leaves([(16, 16)]), 0.01, 0.1, 10
    weights = ours.detach().double()
    mean, square, left, right = (torch.zeros_like(weights) for _ in range(4))
    optimizer = shampoo([ours], exponent=exponent, grafting=grafting, refresh=3)
    for step in range(1, steps + 1):
        ours.grad = random_tensors([(16, 16)], step)[0]
        gradient = ours.grad.double()
        optimizer.step()
        mean, square = 0.9 * mean + 0.1 * gradient, 0.95 * square + 0.05 * gradient**2
        left, right = 0.9 * left + 0.1 * gradient @ gradient.T, 0.9 * right + 0.1 * gradient.T @ gradient
        if step <= 3 or step % 3 == 0:
            factors = [factor / (1 - 0.9**step) for factor in (left, right)]
            regular = [factor + 1e-5 * torch.linalg.matrix_norm(factor, 2) * torch.eye(16) for factor in factors]
            roots = [torch.from_numpy(fractional_matrix_power(factor.numpy(), -exponent)) for factor in regular]
        update = roots[0] @ (mean / (1 - 0.9**step)) @ roots[1]
        if grafting == "adam":
            adam = mean / (1 - 0.9**step) / ((square / (1 - 0.95**step)).sqrt() + 1e-12)
            update *= adam.norm() / update.norm()
        weights = (1 - rate * decay) * weights - rate * update
    assert (ours.detach() - weights).norm() < 2e-3 * (weights - leaves([(16, 16)])[0]).norm()


def test_shampoo_without_memory_orthogonalizes() -> None:
    """Gupta et al. with one gradient: (G G^T)^(-1/4) G (G^T G)^(-1/4) is U V^T."""
    (ours,) = leaves([(16, 16)])
    start, (gradient,) = ours.detach().clone(), random_tensors([(16, 16)], 5)
    options = {"betas": (0.0, 0.95), "factor_beta": 0.0, "factor_epsilon": 0.0, "grafting": "none", "weight_decay": 0.0}
    ours.grad = gradient
    shampoo([ours], lr=1.0, **options).step()
    left, _, right = torch.linalg.svd(gradient)
    torch.testing.assert_close(start - ours.detach(), left @ right, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("grafting", ["adam", "none"])
def test_shampoo_waits_for_a_first_gradient(grafting: str) -> None:
    """The baseline's projections begin at zero, so that most matrices have no gradient in the first steps."""
    (ours,) = leaves([(16, 16)])
    start = ours.detach().clone()
    optimizer = shampoo([ours], weight_decay=0.0, refresh=2, grafting=grafting)
    for _ in range(2):
        ours.grad = torch.zeros(16, 16)
        optimizer.step()
    torch.testing.assert_close(ours.detach(), start, rtol=0, atol=0)
    (moved,) = descend(optimizer, [ours], 1)  # the roots are still those of nothing
    assert 0 < (moved - start).abs().mean() < 0.05


# AdEMAMix and NAdamW


def test_ademamix_is_that_of_pytorch_optimizer() -> None:
    library = pytest.importorskip("pytorch_optimizer", reason="not installed: make install")
    train, shapes = train_module("ademamix"), [(24, 24), (7, 24)]
    ours, theirs = leaves(shapes), leaves(shapes)
    groups = [{"params": ours, "lr": 0.01, "weight_decay": 0.1}]
    ademamix = train.AdEMAMix(groups, (0.9, 0.97), 0.999, 4.0, 12, 1e-8)
    reference = library.AdEMAMix(
        theirs, lr=0.01, betas=(0.9, 0.97, 0.999), alpha=4.0, t_alpha_beta3=12, eps=1e-8, weight_decay=0.1,
        weight_decouple=True,
    )  # fmt: skip
    torch.testing.assert_close(descend(ademamix, ours, 20), descend(reference, theirs, 20), rtol=1e-4, atol=1e-5)


def test_ademamix_without_its_slow_mean_is_adamw() -> None:
    train, shapes = train_module("ademamix"), [(24, 24), (7, 24)]
    ours, theirs = leaves(shapes), leaves(shapes)
    groups = [{"params": ours, "lr": 0.01, "weight_decay": 0.1}]
    ademamix = train.AdEMAMix(groups, (0.9, 0.97), 0.999, 0.0, 0, 1e-8)
    adamw = torch.optim.AdamW(theirs, lr=0.01, betas=(0.9, 0.97), eps=1e-8, weight_decay=0.1)
    torch.testing.assert_close(descend(ademamix, ours, 20), descend(adamw, theirs, 20), rtol=1e-4, atol=1e-5)


def test_the_half_life_of_the_slow_mean_rises_linearly() -> None:
    def half_life(decay: float) -> float:
        return math.log(0.5) / math.log(decay)

    slow_decay = train_module("ademamix").slow_decay
    ends = half_life(0.9), half_life(0.999)
    for risen in (0.0, 0.25, 0.5, 1.0):
        assert half_life(slow_decay(0.9, 0.999, risen)) == pytest.approx(ends[0] + risen * (ends[1] - ends[0]))


def test_nadamw_follows_its_rule() -> None:
    """AdamW whose mean is taken one step ahead, in float64."""
    (parameter,), rate, (beta1, beta2), epsilon, decay = leaves([(24, 24)]), 0.01, (0.85, 0.97), 1e-8, 0.1
    groups = [{"params": [parameter], "lr": rate, "weight_decay": decay}]
    nadamw = train_module("nadamw").NAdamW(groups, (beta1, beta2), epsilon)
    weights = parameter.detach().double()
    mean, square = torch.zeros_like(weights), torch.zeros_like(weights)
    for step, gradient in enumerate(random_tensors([tuple(parameter.shape)] * 4, 5), start=1):
        parameter.grad = gradient
        nadamw.step()
        gradient = gradient.double()
        mean, square = beta1 * mean + (1 - beta1) * gradient, beta2 * square + (1 - beta2) * gradient**2
        ahead = beta1 * mean / (1 - beta1 ** (step + 1)) + (1 - beta1) * gradient / (1 - beta1**step)
        scale = (square / (1 - beta2**step)).sqrt() + epsilon
        weights = (1 - rate * decay) * weights - rate * ahead / scale
    torch.testing.assert_close(parameter.detach().double(), weights, rtol=1e-4, atol=1e-5)


def test_nadamw_is_torchs_nadam_without_its_ramp_of_the_momentum() -> None:
    train, shapes = train_module("nadamw"), [(24, 24), (7, 24)]
    ours, theirs = leaves(shapes), leaves(shapes)
    nadamw = train.NAdamW([{"params": ours, "lr": 0.01, "weight_decay": 0.1}], (0.85, 0.97), 1e-8)
    reference = torch.optim.NAdam(
        theirs, lr=0.01, betas=(0.85, 0.97), eps=1e-8, weight_decay=0.1, decoupled_weight_decay=True,
        momentum_decay=1e6,  # divides the half-life of the ramp
    )  # fmt: skip
    torch.testing.assert_close(descend(nadamw, ours, 20), descend(reference, theirs, 20), rtol=1e-4, atol=1e-5)
