"""The Triton kernels of fineweb-muon-kernels against float64: compiled on a GPU, else in Triton's interpreter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from harness.paths import ROOT
from tests.conftest import DEVICE, needs_gpu
from tests.submissions.modules import KERNELS, load_module

torch = pytest.importorskip("torch")
pytest.importorskip("triton")
kernels = load_module(KERNELS, "kernels")

CAP = 15.0
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
# Relative error of one stored value; the interpreter rounds bfloat16 towards zero, a GPU to the nearest.
ROUNDING = {torch.float32: 1e-6, torch.bfloat16: 2**-7 if DEVICE == "cpu" else 2**-8, torch.float16: 2**-11}


def seeded(*shape: int, dtype: torch.dtype = torch.float32, scale: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(len(shape) + sum(shape))
    return (scale * torch.randn(shape, generator=generator)).to(DEVICE, dtype)


def doubled(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().double().requires_grad_()


def relative(got: torch.Tensor, expected: torch.Tensor) -> float:
    """The norm of the error by the norm of what is right."""
    return float((got.detach().double() - expected.detach()).norm() / expected.detach().norm().clamp(min=1e-300))


def exact_losses(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(CAP * torch.tanh(logits / CAP), targets, reduction="none")


def test_the_submission_uses_the_very_kernels_that_are_tested() -> None:
    """A second copy would register the same operators again, and free those of the first: torch crashed."""
    assert load_module(KERNELS, "train").kernels is kernels


def check_losses(logits: torch.Tensor, targets: torch.Tensor) -> None:
    """Losses and the gradient of their weighted sum."""
    ours, exact = logits.detach().requires_grad_(), doubled(logits)
    weights = torch.linspace(-1, 2, len(targets), device=DEVICE)
    losses, right = kernels.capped_cross_entropy(ours, targets, CAP), exact_losses(exact, targets)
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses.double(), right, rtol=1e-5, atol=1e-5)
    (losses * weights).sum().backward()
    (right * weights).sum().backward()
    assert ours.grad is not None and exact.grad is not None
    assert ours.grad.dtype == logits.dtype
    assert relative(ours.grad, exact.grad) < max(1e-5, ROUNDING[logits.dtype])


# Soft-capped cross-entropy


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (37, 1000), (3, 4096), (5, 4097)])
def test_losses_and_their_gradient(shape: tuple[int, int], dtype: torch.dtype) -> None:
    targets = torch.arange(shape[0], device=DEVICE) * 997 % shape[1]
    if shape[1] > 1:
        check_losses(seeded(*shape, dtype=dtype, scale=8.0), targets)
    else:  # a single column is always right
        assert kernels.capped_cross_entropy(seeded(*shape, dtype=dtype), targets, CAP).abs().item() < 2e-6


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x[::2, 3:-4],
        lambda x: x[:, ::3],
        lambda x: x.mT,
        lambda x: x[:1].expand(6, -1),
        lambda x: x[:, 1:].as_strided((7, 50), (13, 2)),
    ],
    ids=["rows", "columns", "transposed", "expanded", "overlapping"],
)
def test_losses_of_logits_with_any_strides(view: Callable) -> None:
    logits = view(seeded(60, 90, scale=5.0))
    targets = (torch.arange(2 * len(logits), device=DEVICE) * 7 % logits.shape[1])[::2]
    check_losses(logits, targets)


@pytest.mark.filterwarnings("ignore:overflow encountered in exp")
def test_no_rows_and_saturated_logits() -> None:
    none = seeded(0, 10).requires_grad_()
    kernels.capped_cross_entropy(none, torch.zeros(0, dtype=torch.int64, device=DEVICE), CAP).sum().backward()
    assert none.grad is not None and none.grad.shape == (0, 10)
    far = torch.tensor([[1e30, -1e30, 0.0, float("inf"), -float("inf")]], device=DEVICE)
    for column in range(5):
        target = torch.tensor([column], device=DEVICE)
        loss = kernels.capped_cross_entropy(far, target, CAP)
        torch.testing.assert_close(loss.double(), exact_losses(far.double(), target), rtol=1e-6, atol=1e-5)
    spoiled = torch.tensor([[0.0, float("nan"), 1.0]], device=DEVICE)
    assert kernels.capped_cross_entropy(spoiled, torch.tensor([0], device=DEVICE), CAP).isnan().all()


def test_the_gradient_is_the_slope_of_the_loss() -> None:
    """Without any reference: central differences along one direction."""
    logits, targets = seeded(6, 300, scale=6.0), torch.arange(6, device=DEVICE)
    direction, step = seeded(6, 300, scale=0.05), 0.1
    ours = logits.clone().requires_grad_()
    kernels.capped_cross_entropy(ours, targets, CAP).sum().backward()
    assert ours.grad is not None
    ends = [kernels.capped_cross_entropy(logits + sign * step * direction, targets, CAP).sum() for sign in (1, -1)]
    slope = (ends[0] - ends[1]) / (2 * step)
    torch.testing.assert_close(slope, (ours.grad * direction).sum(), rtol=1e-3, atol=1e-3)


# Symmetric products


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 129, 65), (3, 70, 200), (1, 300, 31), (1, 128, 128)])
def test_symmetric_products(shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    x = seeded(*shape, dtype=dtype)
    addend = x @ x.mT
    addend = (addend + addend.mT) / 2
    for result, right in [
        (kernels.symmetric_product(x), x.double() @ x.double().mT),
        (
            kernels.symmetric_product(x, 0.5, addend, -2.0),
            0.5 * x.double() @ x.double().mT - 2.0 * addend.double(),
        ),
    ]:
        assert result.dtype == dtype and torch.equal(result, result.mT)
        assert relative(result, right) < ROUNDING[dtype]


@pytest.mark.parametrize(
    "view",
    [lambda x: x.mT, lambda x: x[:, ::2, 5:], lambda x: x.transpose(0, 1), lambda x: x[:1].expand(4, -1, -1)],
    ids=["transposed", "sliced", "batch-inside", "expanded"],
)
def test_symmetric_products_of_any_strides(view: Callable) -> None:
    x = view(seeded(3, 90, 70))
    addend = x @ x.mT
    strided = torch.stack([addend, addend], dim=-1)[..., 0]
    right = x.double() @ x.double().mT + addend.double()
    assert relative(kernels.symmetric_product(x, 1.0, strided), right) < 1e-6


def test_symmetric_products_without_content() -> None:
    assert kernels.symmetric_product(seeded(0, 5, 3)).shape == (0, 5, 5)
    assert kernels.symmetric_product(seeded(2, 0, 3)).shape == (2, 0, 0)
    assert torch.equal(kernels.symmetric_product(seeded(2, 4, 0)), torch.zeros(2, 4, 4, device=DEVICE))


# Squared-ReLU MLP


def check_mlp(x: torch.Tensor, expand: torch.Tensor, project: torch.Tensor) -> None:
    ours = [tensor.detach().requires_grad_() for tensor in (x, expand, project)]
    exact = [doubled(tensor) for tensor in (x, expand, project)]
    result = kernels.squared_relu_mlp(*ours)
    right = torch.relu(exact[0] @ exact[1].mT).square() @ exact[2].mT
    assert result.dtype == x.dtype and result.shape == right.shape
    weights = seeded(*result.shape, dtype=x.dtype)
    (result * weights).sum().backward()
    (right * weights.double()).sum().backward()
    limit = 4 * ROUNDING[x.dtype]  # several roundings follow each other
    assert relative(result, right) < limit
    for tensor, reference in zip(ours, exact, strict=True):
        assert tensor.grad is not None and reference.grad is not None and tensor.grad.dtype == x.dtype
        assert relative(tensor.grad, reference.grad) < limit


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("lead", "width", "hidden"), [((1,), 1, 1), ((2, 33), 48, 130), ((129,), 65, 257), ((1, 1, 3), 40, 4)]
)
def test_the_mlp_and_its_gradients(lead: tuple[int, ...], width: int, hidden: int, dtype: torch.dtype) -> None:
    expand = seeded(hidden, width, dtype=dtype, scale=width**-0.5)
    check_mlp(seeded(*lead, width, dtype=dtype).abs(), expand.abs(), seeded(width, hidden, dtype=dtype))
    if hidden > 4:  # with both signs before the ReLU
        check_mlp(seeded(*lead, width, dtype=dtype), expand, seeded(width, hidden, dtype=dtype))


def test_the_mlp_with_any_strides() -> None:
    x, expand, project = seeded(40, 2, 70)[:, 0], seeded(90, 70).mT[:35].mT, seeded(90, 50).mT
    check_mlp(x[::2, ::2], expand, project)


def test_the_mlp_without_rows() -> None:
    x = seeded(0, 8).requires_grad_()
    expand = seeded(16, 8).requires_grad_()
    kernels.squared_relu_mlp(x, expand, seeded(8, 16)).sum().backward()
    assert x.grad is not None and x.grad.shape == (0, 8)
    assert expand.grad is not None and not expand.grad.any()


# All of them


@pytest.mark.parametrize(
    "call",
    [
        lambda: kernels.capped_cross_entropy(seeded(2, 3).double(), torch.zeros(2, dtype=torch.int64), CAP),
        lambda: kernels.capped_cross_entropy(seeded(2, 3), torch.zeros(3, dtype=torch.int64), CAP),
        lambda: kernels.capped_cross_entropy(seeded(2, 3), torch.zeros(2, dtype=torch.int64), 1000.0),
        lambda: kernels.symmetric_product(seeded(2, 3)),
        lambda: kernels.symmetric_product(seeded(1, 2, 3), 1.0, seeded(1, 3, 3)),
        lambda: kernels.squared_relu_mlp(seeded(2, 3), seeded(4, 3).half(), seeded(3, 4)),
        lambda: kernels.squared_relu_mlp(seeded(2, 3), seeded(4, 2), seeded(3, 4)),
    ],
)
def test_what_does_not_fit_is_refused(call: Callable) -> None:
    with pytest.raises(ValueError):
        call()


def test_a_whole_graph_can_be_traced_through_the_kernels() -> None:
    """What torch.compile does before it generates code: no graph break, the same values and gradients."""

    def step(x, expand, project, targets):
        hidden = kernels.squared_relu_mlp(x, expand, project)
        return kernels.capped_cross_entropy(3.0 * hidden, targets, CAP).mean()

    arguments = [seeded(20, 24), seeded(96, 24), seeded(24, 96)]
    targets = torch.arange(20, device=DEVICE)
    gradients = []
    for function in (step, torch.compile(step, backend="aot_eager", fullgraph=True)):
        leaves = [tensor.clone().requires_grad_() for tensor in arguments]
        function(*leaves, targets).backward()
        gradients.append([leaf.grad for leaf in leaves])
    torch.testing.assert_close(*gradients)


def test_the_kernels_compile_for_the_h100() -> None:
    """To machine code, without a GPU: tensor cores are used and shared memory suffices."""
    environment = {**os.environ, "TRITON_INTERPRET": "0"}
    command = [sys.executable, "-m", "tests.submissions.compile_for_h100"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    built = json.loads(done.stdout)
    assert len(built) == 14
    assert all(kernel["shared_bytes"] <= 227 * 1024 for kernel in built)  # what a block may have on an H100
    assert all(kernel["tensor_cores"] for kernel in built if kernel["matrix"])


@pytest.mark.gpu
@needs_gpu
def test_rows_past_two_gigabytes_of_logits() -> None:
    """Offsets do not fit 32 bits there."""
    rows, columns = 50_000, 50_304
    logits = torch.zeros(rows, columns, dtype=torch.bfloat16, device=DEVICE)
    logits[-1, 7] = 10.0
    targets = torch.full((rows,), 7, device=DEVICE)
    losses = kernels.capped_cross_entropy(logits, targets, CAP)
    torch.testing.assert_close(losses[-1:].double(), exact_losses(logits[-1:].double(), targets[-1:]))
