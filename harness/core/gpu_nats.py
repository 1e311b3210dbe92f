"""The cross-entropy of logits that lie on a GPU, in one pass: for judging 1 TB of them at the speed of their memory.

Imported only where the hardware class has GPUs: it needs torch and Triton. On the CPU scoring.py does the same.

Every logit is read once. That is not only fast: the memory belongs to the model host, which could show one pass
another value than the next. The logits may be bfloat16, float16 or float32; the arithmetic is float32.

    nats = log(sum over j of exp(x_j - x_target)) = (m - x_target) + log(rest + exp(x_target - m))

with m the largest logit and `rest` the sum of exp(x_j - m) over all j but the target, kept online (Milakov and
Gimelshein 2018, arXiv:1805.02867). Neither term can be negative, so nothing cancels. Where the target itself is the
largest, what is left is log(1 + rest), which keeps its relative precision however small `rest` is.
"""

from __future__ import annotations

import numpy as np
import torch
import triton
import triton.language as tl

from harness.core.audits import Arithmetic

BLOCK = 4096  # logits of a row looked at together
POSITIONS = 1024  # compared at once by the audit: 200 MB of float32 at 50,304 columns
LOWEST = tl.constexpr(-3.4e38)  # instead of -inf, which would give a row that begins with -inf a difference of NaN


@triton.jit
def _log1p(x: tl.tensor) -> tl.tensor:
    """log(1 + x) for x >= 0. A GPU's logarithm has an absolute error near 1, so there it is 2 artanh(x / (2 + x))."""
    t = x / (2 + x)
    square = t * t
    series = 2 * t * (1 + square * (1 / 3 + square * (1 / 5 + square * (1 / 7 + square * (1 / 9 + square / 11)))))
    return tl.where(x < 0.5, series, tl.log(1 + x))


@triton.jit
def _nats_kernel(
    logits: tl.tensor, targets: tl.tensor, nats: tl.tensor, columns: tl.tensor, row_stride: tl.tensor,
    column_stride: tl.tensor, target_stride: tl.tensor, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """One program a row."""
    row = tl.program_id(0).to(tl.int64)
    logits += row * row_stride
    target = tl.load(targets + row * target_stride)
    correct = tl.load(logits + target * column_stride).to(tl.float32)
    largest = correct * 0 + LOWEST  # not a number if the target's logit is none, or infinite
    rest = 0.0
    for start in range(0, columns, BLOCK):
        column = start + tl.arange(0, BLOCK).to(tl.int64)
        others = (column < columns) & (column != target)
        x = tl.load(logits + column * column_stride, mask=others, other=-float("inf")).to(tl.float32)
        new = tl.maximum(largest, tl.max(x, 0))
        rest = rest * tl.exp(largest - new) + tl.sum(tl.exp(x - new), 0)
        largest = new
    ahead = tl.maximum(correct, largest)
    rest = rest * tl.exp(largest - ahead)
    behind = tl.where(correct < ahead, (ahead - correct) + tl.log(rest + tl.exp(correct - ahead)), _log1p(rest))
    tl.store(nats + row, behind)


def token_nats(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The cross-entropy of logits [N, V] against int64 targets [N] in [0, V), a token: float32 [N] on their device.

    Relative error below 1e-5. Not finite where a row has no finite answer. Nothing of the size of the logits is made.
    """
    rows, columns = logits.shape
    nats = torch.empty(rows, dtype=torch.float32, device=logits.device)
    if rows:
        block = min(BLOCK, triton.next_power_of_2(columns))
        _nats_kernel[(rows,)](
            logits, targets, nats, columns, *logits.stride(), targets.stride(0), BLOCK=block, num_warps=8
        )
    return nats


def nats(logits: torch.Tensor, targets: np.ndarray) -> float:
    """The summed cross-entropy of logits [N, V] against targets [N]: on a GPU in the place of scoring.nats."""
    return token_nats(logits[: len(targets)], _on(logits.device, targets)).double().sum().item()


class GpuArithmetic(Arithmetic):
    """The audit's arithmetic where the logits lie: a tenth of 1 TB should not pass one core."""

    def private(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.clone()

    def differences(self, scored: torch.Tensor, shadow: torch.Tensor) -> np.ndarray:
        parts = zip(scored.split(POSITIONS), shadow.split(POSITIONS), strict=True)
        return torch.cat([_apart(*part) for part in parts]).cpu().numpy()

    def gains(self, scored: torch.Tensor, shadow: torch.Tensor, targets: np.ndarray) -> np.ndarray:
        expected = _on(scored.device, targets)
        return (token_nats(shadow, expected) - token_nats(scored, expected)).cpu().numpy()


def _apart(scored: torch.Tensor, shadow: torch.Tensor) -> torch.Tensor:
    apart = (scored.float() - shadow.float()).abs().masked_fill(scored == shadow, 0.0)
    return torch.nan_to_num(apart.amax(dim=1), nan=torch.inf, posinf=torch.inf)


def _on(device: torch.device, targets: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(targets.astype(np.int64)).to(device)
