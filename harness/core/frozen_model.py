"""The model of the tasks that fix it: a GPT whose shape stands in the task. Only its training is the submission's.

Such a task compares optimizers. The judge's hosts build this class themselves and load the weights into it; they never
import the submission. A modern GPT as the field's own: rotary positions, normalized queries and keys, squared ReLU,
root-mean-square norms with gains, no biases, an untied head with soft-capped logits. Rows are cut anywhere, and
attention crosses documents. The public speedrun's third track differs: biases, half of the rotary dimensions and a base
of 1,024, queries times keys scaled by 0.12, a gain after the embedding, another soft cap; its counts of steps are no
yardstick here.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.core.protocol import ModelShape

SOFT_CAP = 15.0  # logits stay within +-15, by a smooth function
COLUMNS = 64  # of the logits a multiple, which is what the matrix units of GPUs like
ROTARY_BASE = 10_000.0


class Linear(nn.Linear):
    """No bias. The weight is kept in float32 and used in the precision of what comes in."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype))


class Norm(nn.Module):
    """Root mean square normalization with a gain."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, x.shape[-1:]) * self.gain.to(x.dtype)


class Attention(nn.Module):
    """Causal self-attention with rotary positions."""

    def __init__(self, width: int, head_size: int) -> None:
        super().__init__()
        self.head_size = head_size
        self.query_key_value = Linear(width, 3 * width)
        self.projection = Linear(width, width)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        batch, length, width = x.shape
        q, k, v = self.query_key_value(x).view(batch, length, 3, -1, self.head_size).unbind(2)
        q, k = (rotate(F.rms_norm(part, part.shape[-1:]), rotation) for part in (q, k))
        y = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=True)
        return self.projection(y.transpose(1, 2).reshape(batch, length, width))


class MLP(nn.Module):
    """Two layers with a squared ReLU between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.expand = Linear(width, 4 * width)
        self.projection = Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.projection(F.relu(self.expand(x)).square())


class Block(nn.Module):
    """Attention and MLP, each behind a norm."""

    def __init__(self, width: int, head_size: int) -> None:
        super().__init__()
        self.attention_norm = Norm(width)
        self.attention = Attention(width, head_size)
        self.mlp_norm = Norm(width)
        self.mlp = MLP(width)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        x = x + self.attention(self.attention_norm(x), rotation)
        return x + self.mlp(self.mlp_norm(x))


class FrozenGPT(nn.Module):
    """Tokens [batch, length] to float32 logits [batch, length, columns], or with targets to their mean loss.

    Projections and the head begin at zero, the rest as torch does it; an initialization is the submission's own affair.
    On a GPU activations are bfloat16.
    """

    def __init__(self, shape: ModelShape, vocab_size: int) -> None:
        super().__init__()
        columns = -(-vocab_size // COLUMNS) * COLUMNS
        self.head_size = shape.head_size
        self.embedding = nn.Embedding(columns, shape.width)
        self.blocks = nn.ModuleList(Block(shape.width, shape.head_size) for _ in range(shape.layers))
        self.norm = Norm(shape.width)
        self.head = Linear(shape.width, columns)
        for name, parameter in self.named_parameters():
            if "projection" in name or name == "head.weight":
                nn.init.zeros_(parameter)

    def forward(self, tokens: Tensor, targets: Tensor | None = None) -> Tensor:
        x = self.embedding(tokens)
        x = F.rms_norm(x.bfloat16() if x.is_cuda else x, x.shape[-1:])
        rotation = rotation_of(tokens.shape[1], self.head_size, x.device)
        for block in self.blocks:
            x = block(x, rotation)
        logits = SOFT_CAP * torch.tanh(self.head(self.norm(x)).float() / SOFT_CAP)
        return logits if targets is None else F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def rotation_of(length: int, head_size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines [length, 1, head_size / 2] of rotary position embedding (Su et al., arXiv:2104.09864)."""
    frequency = ROTARY_BASE ** -torch.linspace(0, 1, head_size // 2, device=device)
    angle = torch.arange(length, device=device)[:, None, None] * frequency
    return angle.cos(), angle.sin()


def rotate(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Turns the pairs (i, i + half) of the last dimension by the angle of their position."""
    cos, sin = rotation
    a, b = x.float().chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1).to(x.dtype)
