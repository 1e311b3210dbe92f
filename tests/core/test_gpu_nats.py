"""The judge's Triton kernel against float64: compiled on a GPU, else in Triton's interpreter."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from harness.core import audits, judge, scoring
from harness.core.failures import Failure, RunFailed
from harness.core.scoring import SLOTS, Windows, score
from harness.core.slots import Slots, sealed_memory, slot_bytes
from tests.conftest import DEVICE, needs_gpu
from tests.core.test_judge import ToyHost

torch = pytest.importorskip("torch")
pytest.importorskip("triton")
from harness.core import gpu_nats  # noqa: E402


def check(logits: torch.Tensor, targets: torch.Tensor) -> None:
    """Against float64, from the odds of all others: its plain cross-entropy rounds small answers away too."""
    row = torch.arange(len(targets), device=DEVICE)
    others = logits.double()
    others[row, targets] = -torch.inf
    odds = others.logsumexp(dim=1) - logits[row, targets].double()
    right = torch.logaddexp(odds, torch.zeros_like(odds))
    ours = gpu_nats.token_nats(logits, targets)
    assert ours.dtype == torch.float32 and ours.shape == targets.shape
    torch.testing.assert_close(ours.double(), right, rtol=1e-5, atol=1e-30)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("rows", "columns", "scale"), [(3, 50304, 4.0), (1, 1, 1.0), (40, 1000, 10.0), (9, 4097, 30.0)]
)
def test_nats_agree_with_float64(rows: int, columns: int, scale: float, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(rows)
    logits = (scale * torch.randn(rows, columns, generator=generator)).to(DEVICE, dtype)
    targets = torch.randint(0, columns, (rows,), generator=generator).to(DEVICE)
    check(logits, targets)
    check(logits, logits.argmax(dim=1))  # confident and right: nats close to zero keep their relative precision


@pytest.mark.parametrize("ahead", [0.0, 1e-3, 1.0, 10.0, 40.0, 80.0])
def test_nats_of_a_sure_answer(ahead: float) -> None:
    logits = torch.zeros(1, 300, device=DEVICE)
    logits[0, 7] = ahead
    check(logits, torch.tensor([7], device=DEVICE))
    check(logits, torch.tensor([8], device=DEVICE))


@pytest.mark.parametrize(
    "view",
    [lambda x: x[::2, 5:-3], lambda x: x.mT, lambda x: x[:, ::2], lambda x: x[:1].expand(4, -1)],
    ids=["rows", "transposed", "columns", "expanded"],
)
def test_nats_of_logits_with_any_strides(view: Callable) -> None:
    logits = view(5 * torch.randn(30, 50, generator=torch.Generator().manual_seed(1)).to(DEVICE))
    check(logits, (torch.arange(2 * len(logits), device=DEVICE) % logits.shape[1])[::2])


def test_columns_that_are_ruled_out_and_no_rows() -> None:
    """A model may give -inf to columns beyond the vocabulary, whole blocks of them."""
    logits = torch.full((2, 3 * gpu_nats.BLOCK), -torch.inf, device=DEVICE)
    logits[:, -5:] = torch.arange(5.0, device=DEVICE)
    check(logits, torch.tensor([3 * gpu_nats.BLOCK - 1, 3 * gpu_nats.BLOCK - 4], device=DEVICE))
    assert gpu_nats.token_nats(logits[:0], torch.zeros(0, dtype=torch.int64, device=DEVICE)).shape == (0,)


@pytest.mark.filterwarnings("ignore:invalid value encountered")
@pytest.mark.parametrize(
    "row",
    [
        [0.0, torch.nan, 1.0],
        [torch.nan, 0.0, 1.0],
        [torch.inf, 0.0, 1.0],
        [0.0, torch.inf, 1.0],
        [-torch.inf, 0.0, 1.0],
    ],
    ids=["nan", "target-nan", "target-inf", "inf", "target-ruled-out"],
)
def test_what_has_no_finite_answer_is_not_finite(row: list[float]) -> None:
    nats = gpu_nats.token_nats(torch.tensor([row], device=DEVICE), torch.tensor([0], device=DEVICE))
    assert not nats.isfinite().any()


def judged(value: float, summed: Callable | None = None) -> float:
    tokens = (np.arange(1001) % 50).astype(np.uint16)
    descriptor = sealed_memory(SLOTS * slot_bytes(3, 7, 64))
    slots = Slots(descriptor, SLOTS, 3, 7, 64)
    windows = Windows(tokens, 3, 7, 0)
    choice = {} if summed is None else {"nats": summed}
    return score(ToyHost(slots, 64, value), slots, windows, range(windows.batches), **choice)


def on_device(logits: np.ndarray, targets: np.ndarray) -> float:
    return gpu_nats.nats(torch.from_numpy(logits).to(DEVICE), targets)


@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_the_scoring_loop_sums_alike_on_either_device() -> None:
    assert judged(3.0, on_device) == pytest.approx(judged(3.0), rel=1e-6)
    with pytest.raises(RunFailed) as caught:
        judged(float("nan"), on_device)
    assert caught.value.reason is Failure.NOT_FINITE


def test_only_a_class_with_gpus_asks_for_it() -> None:
    assert judge._sums_on("cpu") == (scoring.nats, audits.HOST_ARITHMETIC)
    summed, arithmetic = judge._sums_on("cuda")
    assert summed is gpu_nats.nats and isinstance(arithmetic, gpu_nats.GpuArithmetic)


@pytest.mark.gpu
@needs_gpu
def test_no_tensor_of_the_size_of_the_logits_is_made() -> None:
    logits = torch.zeros(60_000, 50_304, dtype=torch.bfloat16, device=DEVICE)  # their offsets do not fit 32 bits
    logits[-1, 9] = 5.0
    targets = torch.full((60_000,), 9, device=DEVICE)
    before = torch.cuda.max_memory_allocated()
    nats = gpu_nats.token_nats(logits, targets)
    assert torch.cuda.max_memory_allocated() - before < 1 << 20
    right = torch.nn.functional.cross_entropy(logits[-1:].double(), targets[-1:], reduction="none")
    torch.testing.assert_close(nats[-1:].double(), right, rtol=1e-5, atol=0)


def test_the_audit_compares_alike_on_a_gpu_and_in_host_memory() -> None:
    random = np.random.default_rng(4)
    scored = random.normal(size=(1500, 37)).astype(np.float32)
    shadow = scored + np.float32(0.25) * (random.random((1500, 37)) < 0.01)
    scored[3, 4], shadow[5, 6], shadow[7, 8] = np.nan, np.nan, np.inf
    scored[9, 10] = shadow[9, 10] = -np.inf
    targets = random.integers(0, 37, 1500)
    ours, there = gpu_nats.GpuArithmetic(), [torch.from_numpy(logits).to(DEVICE) for logits in (scored, shadow)]
    expected = audits.HOST_ARITHMETIC.differences(scored, shadow)
    assert np.isinf(expected[[3, 5, 7]]).all() and np.isfinite(expected[9])
    assert np.array_equal(ours.differences(*there), expected)
    whole = np.isfinite(expected)
    gains = audits.HOST_ARITHMETIC.gains(scored[whole], shadow[whole], targets[whole])
    np.testing.assert_allclose(ours.gains(*there, targets)[whole], gains, atol=1e-5)


def test_the_audit_keeps_a_copy_of_its_own_on_a_gpu() -> None:
    logits = torch.zeros(2, 3, device=DEVICE)
    kept = gpu_nats.GpuArithmetic().private(logits)
    logits += 1
    assert not kept.any()
