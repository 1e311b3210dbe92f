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

BLOCK = 4096  # logits of a row looked at together
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
    expected = torch.from_numpy(targets.astype(np.int64)).to(logits.device)
    return token_nats(logits[: len(targets)], expected).double().sum().item()
