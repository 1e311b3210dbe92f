"""Three pieces of a training step as Triton kernels; each is tested against float64 in tests/submissions/.

capped_cross_entropy    soft cap, log-softmax and loss in one pass over the logits, their gradient in a second one
symmetric_product       X X^T by its upper half, mirrored: both square products of a Newton-Schulz step
squared_relu_mlp        the square of the ReLU inside the matrix product before it, forward and backward

Arithmetic is float32 whatever the inputs are. Where there is no GPU and Triton does not interpret (set
TRITON_INTERPRET=1 before it is imported), the same functions are plain torch. The kernels stand behind custom
operators, so that torch.compile takes them as they are.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)
DTYPES = (torch.bfloat16, torch.float16, torch.float32)
MAX_CAP = 40.0  # exp(-2 * cap) must stay a normal float32


def _by_kernel(tensor):
    return tensor.is_cuda or INTERPRETED.value


def _require(condition, message):
    if not condition:
        raise ValueError(message)


@triton.jit
def _dot(a, b, total):
    """total + a @ b in float32. The interpreter cannot multiply bfloat16; in float32 the products are the same."""
    if INTERPRETED:
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, total, input_precision="ieee")


# Soft-capped cross-entropy


@triton.jit
def _tanh(x):
    return 2 * tl.sigmoid(2 * x) - 1


@triton.jit
def _loss_kernel(
    logits, targets, losses, normalizers, columns, row_stride, column_stride, target_stride, cap, BLOCK: tl.constexpr
):  # fmt: skip
    """One program a row. Capped logits end at `cap`, so that is what to subtract: no pass for the maximum."""
    row = tl.program_id(0).to(tl.int64)
    logits += row * row_stride
    sums = tl.zeros([BLOCK], tl.float32)
    for start in range(0, columns, BLOCK):
        column = start + tl.arange(0, BLOCK).to(tl.int64)
        x = tl.load(logits + column * column_stride, mask=column < columns, other=-float("inf")).to(tl.float32)
        sums += tl.where(column < columns, tl.exp(cap * _tanh(x / cap) - cap), 0.0)
    normalizer = cap + tl.log(tl.sum(sums, 0))
    target = tl.load(targets + row * target_stride)
    correct = cap * _tanh(tl.load(logits + target * column_stride).to(tl.float32) / cap)
    tl.store(normalizers + row, normalizer)
    tl.store(losses + row, normalizer - correct)


@triton.jit
def _loss_gradient_kernel(
    logits, targets, normalizers, upstream, gradient, columns, row_stride, column_stride, target_stride, cap,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """One program a block of a row: (softmax - one-hot) times the slope of the cap, 1 - tanh^2."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK).to(tl.int64)
    x = tl.load(logits + row * row_stride + column * column_stride, mask=column < columns, other=0).to(tl.float32)
    bent = _tanh(x / cap)
    share = tl.exp(cap * bent - tl.load(normalizers + row))
    target = tl.load(targets + row * target_stride)
    slope = (share - tl.where(column == target, 1.0, 0.0)) * (1 - bent * bent) * tl.load(upstream + row)
    tl.store(gradient + row * columns + column, slope.to(gradient.dtype.element_ty), mask=column < columns)


@torch.library.custom_op("speedrun_kernels::capped_losses", mutates_args=())
def _capped_losses(logits: Tensor, targets: Tensor, cap: float) -> tuple[Tensor, Tensor]:
    rows, columns = logits.shape
    losses = torch.empty(rows, dtype=torch.float32, device=logits.device)
    normalizers = torch.empty_like(losses)
    if rows:
        block = min(4096, triton.next_power_of_2(columns))
        _loss_kernel[(rows,)](
            logits, targets, losses, normalizers, columns, *logits.stride(), targets.stride(0), cap, BLOCK=block,
            num_warps=8,
        )  # fmt: skip
    return losses, normalizers


@_capped_losses.register_fake
def _(logits, targets, cap):
    losses = logits.new_empty(logits.shape[0], dtype=torch.float32)
    return losses, torch.empty_like(losses)


@torch.library.custom_op("speedrun_kernels::capped_loss_gradient", mutates_args=())
def _capped_loss_gradient(logits: Tensor, targets: Tensor, normalizers: Tensor, upstream: Tensor, cap: float) -> Tensor:
    rows, columns = logits.shape
    gradient = torch.empty((rows, columns), dtype=logits.dtype, device=logits.device)
    if rows:
        block = min(4096, triton.next_power_of_2(columns))
        _loss_gradient_kernel[(rows, triton.cdiv(columns, block))](
            logits, targets, normalizers, upstream.contiguous(), gradient, columns, *logits.stride(),
            targets.stride(0), cap, BLOCK=block, num_warps=8,
        )  # fmt: skip
    return gradient


@_capped_loss_gradient.register_fake
def _(logits, targets, normalizers, upstream, cap):
    return logits.new_empty(logits.shape)


class _CappedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits, targets, cap):
        losses, normalizers = _capped_losses(logits, targets, cap)
        ctx.save_for_backward(logits, targets, normalizers)
        ctx.cap = cap
        return losses

    @staticmethod
    def backward(ctx, upstream):
        logits, targets, normalizers = ctx.saved_tensors
        return _capped_loss_gradient(logits, targets, normalizers, upstream, ctx.cap), None, None


def capped_cross_entropy(logits, targets, cap):
    """The cross-entropy of cap * tanh(logits / cap) against int64 targets [N], a row: float32 nats [N].

    Logits are [N, V] with any strides, in bfloat16, float16 or float32; so is their gradient, which is the only
    other tensor of that size. Targets must lie in [0, V). Raises ValueError for other shapes and dtypes.
    """
    _require(logits.dim() == 2 and logits.dtype in DTYPES, f"logits: {logits.dtype}{list(logits.shape)}")
    _require(targets.shape == logits.shape[:1] and targets.dtype == torch.int64, f"targets: {list(targets.shape)}")
    _require(0 < cap <= MAX_CAP, f"cap: {cap}")
    if not _by_kernel(logits):
        capped = cap * torch.tanh(logits.float() / cap)
        return torch.nn.functional.cross_entropy(capped, targets, reduction="none")
    return _CappedCrossEntropy.apply(logits, targets, cap)


# Symmetric products


@triton.jit
def _symmetric_kernel(
    x, addend, out, size, inner, x_batch, x_row, x_inner, addend_batch, addend_row, addend_column, scale, addend_scale,
    HAS_ADDEND: tl.constexpr, BLOCK: tl.constexpr, INNER: tl.constexpr,
):  # fmt: skip
    """One program a tile on or above the diagonal; it writes the mirrored tile too."""
    row_tile, column_tile, batch = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    if column_tile < row_tile:
        return
    rows, columns = row_tile * BLOCK + tl.arange(0, BLOCK), column_tile * BLOCK + tl.arange(0, BLOCK)
    places = tl.arange(0, INNER)
    # Past the end indices begin anew: what comes of them is not stored, and the loads need no mask for it.
    left = x + batch * x_batch + (rows % size)[:, None] * x_row + places[None, :] * x_inner
    right = x + batch * x_batch + places[:, None] * x_inner + (columns % size)[None, :] * x_row
    total = tl.zeros([BLOCK, BLOCK], tl.float32)
    for start in range(0, inner, INNER):
        a = tl.load(left, mask=places[None, :] < inner - start, other=0.0)
        b = tl.load(right, mask=places[:, None] < inner - start, other=0.0)
        total = _dot(a, b, total)
        left += INNER * x_inner
        right += INNER * x_inner
    total *= scale
    inside = (rows[:, None] < size) & (columns[None, :] < size)
    if HAS_ADDEND:
        addend += batch * addend_batch + rows[:, None] * addend_row + columns[None, :] * addend_column
        total += addend_scale * tl.load(addend, mask=inside, other=0.0).to(tl.float32)
    result = total.to(out.dtype.element_ty)
    out += batch * size * size
    upper = inside & (rows[:, None] <= columns[None, :])
    tl.store(out + rows[:, None] * size + columns[None, :], result, mask=upper)
    inside = (columns[:, None] < size) & (rows[None, :] < size)
    lower = inside & (rows[None, :] < columns[:, None])
    tl.store(out + columns[:, None] * size + rows[None, :], tl.trans(result), mask=lower)


def symmetric_tile(short):
    """Side and depth of a tile for numbers of two bytes, which tensor cores multiply, or of four."""
    return (128, 64) if short else (64, 32)


@torch.library.custom_op("speedrun_kernels::symmetric_product", mutates_args=())
def _symmetric_product(x: Tensor, scale: float, addend: Tensor | None, addend_scale: float) -> Tensor:
    batch, size, inner = x.shape
    out = torch.empty((batch, size, size), dtype=x.dtype, device=x.device)
    if out.numel():
        block, depth = symmetric_tile(x.dtype.itemsize == 2)
        tiles = triton.cdiv(size, block)
        addend_strides = (0, 0, 0) if addend is None else addend.stride()
        _symmetric_kernel[(tiles, tiles, batch)](
            x, x if addend is None else addend, out, size, inner, *x.stride(), *addend_strides, scale, addend_scale,
            HAS_ADDEND=addend is not None, BLOCK=block, INNER=depth, num_warps=8, num_stages=3,
        )  # fmt: skip
    return out


@_symmetric_product.register_fake
def _(x, scale, addend, addend_scale):
    return x.new_empty(x.shape[0], x.shape[1], x.shape[1])


def symmetric_product(x, scale=1.0, addend=None, addend_scale=1.0):
    """scale * X X^T + addend_scale * addend for X [B, M, K]: [B, M, M] in the dtype of X; no gradient.

    The addend must be symmetric, of shape [B, M, M]: the product is computed on and above the diagonal only, and
    mirrored. Raises ValueError for other shapes and dtypes.
    """
    _require(x.dim() == 3 and x.dtype in DTYPES, f"x: {x.dtype}{list(x.shape)}")
    square = (x.shape[0], x.shape[1], x.shape[1])
    _require(addend is None or (addend.shape == square and addend.dtype == x.dtype), "addend: not [B, M, M] like x")
    if not _by_kernel(x):
        return scale * (x @ x.mT) + (0 if addend is None else addend_scale * addend)
    return _symmetric_product(x, scale, addend, addend_scale)


# Squared-ReLU MLP


@triton.jit
def _hidden_kernel(
    left, right, hidden, out, rows, columns, inner, left_row, left_inner, right_inner, right_column,
    GRADIENT: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, INNER: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """A tile of left @ right and what follows it: the squared ReLU, or in the backward pass its slope."""
    row_tile, column_tile = tl.swizzle2d(  # tiles that share inputs run together, so that the cache holds them
        tl.program_id(0), tl.program_id(1), tl.num_programs(0), tl.num_programs(1), GROUP
    )
    row = row_tile * ROWS + tl.arange(0, ROWS)
    column = column_tile * COLUMNS + tl.arange(0, COLUMNS)
    places = tl.arange(0, INNER)
    left += (row % rows).to(tl.int64)[:, None] * left_row + places[None, :] * left_inner
    right += places[:, None] * right_inner + (column % columns)[None, :] * right_column
    total = tl.zeros([ROWS, COLUMNS], tl.float32)
    for start in range(0, inner, INNER):
        a = tl.load(left, mask=places[None, :] < inner - start, other=0.0)
        b = tl.load(right, mask=places[:, None] < inner - start, other=0.0)
        total = _dot(a, b, total)
        left += INNER * left_inner
        right += INNER * right_inner
    offsets = row.to(tl.int64)[:, None] * columns + column[None, :]
    inside = (row[:, None] < rows) & (column[None, :] < columns)
    if GRADIENT:
        # The slope is 2 relu(h) = 2 sqrt(hidden): what the forward pass keeps anyway, with half its relative error.
        total *= 2 * tl.sqrt(tl.load(hidden + offsets, mask=inside, other=0.0).to(tl.float32))
    else:
        total = tl.maximum(total, 0.0)
        total *= total
    tl.store(out + offsets, total.to(out.dtype.element_ty), mask=inside)


def hidden_tile(short):
    """Rows, columns and depth of a tile for numbers of two bytes, which tensor cores multiply, or of four."""
    return (128, 256, 64) if short else (64, 64, 32)


def _launch_hidden(left, right, hidden, gradient):
    rows, inner, columns = left.shape[0], left.shape[1], right.shape[1]
    out = torch.empty((rows, columns), dtype=left.dtype, device=left.device)
    if out.numel():
        tile = hidden_tile(left.dtype.itemsize == 2)
        _hidden_kernel[(triton.cdiv(rows, tile[0]), triton.cdiv(columns, tile[1]))](
            left, right, out if hidden is None else hidden, out, rows, columns, inner, *left.stride(), *right.stride(),
            GRADIENT=gradient, ROWS=tile[0], COLUMNS=tile[1], INNER=tile[2], GROUP=8, num_warps=8, num_stages=3,
        )  # fmt: skip
    return out


@torch.library.custom_op("speedrun_kernels::hidden", mutates_args=())
def _hidden(x: Tensor, expand: Tensor) -> Tensor:
    return _launch_hidden(x, expand.mT, None, gradient=False)


@_hidden.register_fake
def _(x, expand):
    return x.new_empty(x.shape[0], expand.shape[0])


@torch.library.custom_op("speedrun_kernels::hidden_gradient", mutates_args=())
def _hidden_gradient(upstream: Tensor, project: Tensor, hidden: Tensor) -> Tensor:
    return _launch_hidden(upstream, project, hidden, gradient=True)


@_hidden_gradient.register_fake
def _(upstream, project, hidden):
    return torch.empty_like(hidden)


class _SquaredReluMlp(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, expand, project):
        hidden = _hidden(x, expand)
        ctx.save_for_backward(x, expand, project, hidden)
        return hidden @ project.mT

    @staticmethod
    def backward(ctx, upstream):
        x, expand, project, hidden = ctx.saved_tensors
        before = _hidden_gradient(upstream, project, hidden)  # of the product before the ReLU
        return before @ expand, before.mT @ x, upstream.mT @ hidden


def squared_relu_mlp(x, expand, project):
    """relu(x @ expand.T)^2 @ project.T for x [..., K], expand [M, K], project [L, M]: [..., L].

    All three in one dtype, bfloat16, float16 or float32, with any strides. Of the size [..., M] the forward pass keeps
    one tensor and the backward pass makes one. Raises ValueError for other shapes and dtypes.
    """
    _require(x.dtype == expand.dtype == project.dtype and x.dtype in DTYPES, f"dtypes: {x.dtype}, {expand.dtype}")
    _require(x.shape[-1:] == expand.shape[1:] and expand.shape[:1] == project.shape[1:], "shapes do not fit together")
    if not _by_kernel(x):
        return torch.relu(x @ expand.mT).square() @ project.mT
    return _SquaredReluMlp.apply(x.flatten(0, -2), expand, project).unflatten(0, x.shape[:-1])
