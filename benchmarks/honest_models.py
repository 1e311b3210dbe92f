"""Small causal language models of many kinds: what each answers depends on the past of a row and on nothing else.

How they compute it differs as much as we could think of: kernels that depend on the batch, caches, routing, low
precision. audit_calibration.py trains each a little and audits it; none may be flagged.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

WIDTH, HEADS, VOCABULARY, LONGEST = 64, 2, 1024, 1024
HEAD_SIZE = WIDTH // HEADS
SHAPES = ((64, 128), (16, 256), (1, 128))
LONG_SHAPES = ((16, 1024), (2, 1024))
SLOW_SHAPES = ((16, 128), (4, 128))
SHARP = 400


@dataclass(frozen=True)
class Kind:
    """One architecture: how it is built, what happens to it after training, the shapes it is audited in.

    More `steps` make sharper logits, whose rounding is coarser.
    """

    name: str
    build: Callable[[], nn.Module]
    after: Callable[[nn.Module], nn.Module] = lambda model: model
    shapes: tuple[tuple[int, int], ...] = SHAPES
    steps: int = 80


# Mixing along the row


class Attention(nn.Module):
    """Causal self-attention; `window` limits how far back it looks, `key_heads` share keys among heads."""

    def __init__(self, window: int | None = None, key_heads: int = HEADS) -> None:
        super().__init__()
        self.window, self.key_heads = window, key_heads
        self.query = nn.Linear(WIDTH, WIDTH, bias=False)
        self.key_value = nn.Linear(WIDTH, 2 * key_heads * HEAD_SIZE, bias=False)
        self.projection = nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, x):
        batch, length, _ = x.shape
        q = self.query(x).view(batch, length, HEADS, HEAD_SIZE).transpose(1, 2)
        k, v = self.key_value(x).view(batch, length, 2, self.key_heads, HEAD_SIZE).transpose(1, 3).unbind(2)
        y = self.attend(q, k, v)
        return self.projection(y.transpose(1, 2).reshape(batch, length, WIDTH))

    def attend(self, q, k, v):
        if self.window is None:
            return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=self.key_heads < HEADS)
        back = torch.arange(q.shape[2])[:, None] - torch.arange(q.shape[2])
        return F.scaled_dot_product_attention(q, k, v, attn_mask=(back >= 0) & (back < self.window))


class BlockedWindow(Attention):
    """Sliding window in blocks: each block of queries sees its own block of keys and the one before."""

    def attend(self, q, k, v, size=32):
        length = q.shape[2]
        q, k, v = (F.pad(x, (0, 0, 0, -length % size)).unflatten(2, (-1, size)) for x in (q, k, v))
        k, v = (torch.cat([F.pad(x, (0, 0, 0, 0, 1, 0))[:, :, :-1], x], dim=3) for x in (k, v))
        back = torch.arange(size)[:, None] + size - torch.arange(2 * size)
        seen = ((back >= 0) & (back < size)).expand(q.shape[2], size, 2 * size).clone()
        seen[0, :, :size] = False
        return F.scaled_dot_product_attention(q, k, v, attn_mask=seen).flatten(2, 3)[:, :, :length]


class CachedAttention(Attention):
    """Answers chunk by chunk from a cache of keys and values, whose memory stays from batch to batch."""

    cache = None

    def attend(self, q, k, v, chunk=32):
        if self.training:
            return super().attend(q, k, v)
        if self.cache is None or self.cache.shape[1:] != k.shape:
            self.cache = torch.empty(2, *k.shape)
        parts = []
        for start in range(0, q.shape[2], chunk):
            end = min(start + chunk, q.shape[2])
            self.cache[0, :, :, start:end], self.cache[1, :, :, start:end] = k[:, :, start:end], v[:, :, start:end]
            keys, values = self.cache[:, :, :, :end]
            seen = torch.arange(start, end)[:, None] >= torch.arange(end)
            parts.append(F.scaled_dot_product_attention(q[:, :, start:end], keys, values, attn_mask=seen))
        return torch.cat(parts, dim=2)


class ChangingBackend(Attention):
    """The kernel of attention depends on the content of the batch."""

    def attend(self, q, k, v):
        backend = SDPBackend.MATH if int(1000 * q.float().sum()) % 2 else SDPBackend.FLASH_ATTENTION
        with sdpa_kernel(backend):
            return super().attend(q, k, v)


class HardAttention(Attention):
    """Each query looks at its eight best keys only: a tie broken otherwise changes the answer."""

    def attend(self, q, k, v):
        scores = q @ k.transpose(2, 3) * HEAD_SIZE**-0.5
        later = torch.ones(scores.shape[2:], dtype=torch.bool).triu(1)
        scores = scores.masked_fill(later, -torch.inf)
        eighth = scores.topk(min(8, scores.shape[3]), dim=3).values[..., -1:]
        return scores.masked_fill(scores < eighth, -torch.inf).softmax(3) @ v


class LinearAttention(Attention):
    """Attention without softmax, by chunks: masked products within each, one state carried on."""

    def attend(self, q, k, v, chunk=32):
        q, k, v = F.elu(q) + 1, F.elu(k) + 1, F.pad(v, (0, 1), value=1.0)  # the last column sums the weights
        state, parts = torch.zeros(*k.shape[:2], HEAD_SIZE, HEAD_SIZE + 1), []
        for a, b, c in zip(q.split(chunk, 2), k.split(chunk, 2), v.split(chunk, 2), strict=True):
            parts.append(a @ state + (a @ b.transpose(2, 3)).tril() @ c)
            state = state + b.transpose(2, 3) @ c
        y = torch.cat(parts, dim=2)
        return y[..., :-1] / y[..., -1:]


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.layer = kind(WIDTH, WIDTH, batch_first=True)

    def forward(self, x):
        return self.layer(x)[0]


class Convolution(nn.Module):
    """A causal convolution over the last eight positions."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv1d(WIDTH, WIDTH, 8)

    def forward(self, x):
        return self.layer(F.pad(x.transpose(1, 2), (7, 0))).transpose(1, 2)


class FourierConvolution(nn.Module):
    """A causal convolution as long as the row, by Fourier transform: later text changes the rounding of earlier."""

    def __init__(self) -> None:
        super().__init__()
        decay = torch.exp(-torch.arange(LONGEST)[:, None] / torch.logspace(0, 2, WIDTH))
        self.kernel = nn.Parameter(decay * torch.randn(LONGEST, WIDTH) / 4)
        self.projection = nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        size = 2 * x.shape[1]
        spectrum = torch.fft.rfft(x, size, dim=1) * torch.fft.rfft(self.kernel[: x.shape[1]], size, dim=0)
        return self.projection(torch.fft.irfft(spectrum, size, dim=1)[:, : x.shape[1]])


class DecayScan(nn.Module):
    """A gated running average by doubling steps, as state-space models compute it."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.value = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        keep = torch.sigmoid(self.gate(x) + 2)
        state, step = (1 - keep) * self.value(x), 1
        while step < x.shape[1]:
            state = state + keep * F.pad(state, (0, 0, step, 0))[:, :-step]
            keep = keep * F.pad(keep, (0, 0, step, 0), value=1.0)[:, :-step]
            step *= 2
        return state


# What happens at each position


class MLP(nn.Sequential):
    def __init__(self, *between: nn.Module) -> None:
        super().__init__(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), *between, nn.Linear(4 * WIDTH, WIDTH))


class Experts(nn.Module):
    """A mixture of experts, each for all who choose it: how many rows its product has depends on the batch."""

    def __init__(self, count: int = 8, top: int = 2) -> None:
        super().__init__()
        self.router, self.top = nn.Linear(WIDTH, count, bias=False), top
        self.experts = nn.ModuleList(MLP() for _ in range(count))

    def forward(self, x):
        flat = x.flatten(0, 1)
        share, chosen = self.router(flat).softmax(1).topk(self.top, dim=1)
        out = torch.zeros_like(flat)
        for number, expert in enumerate(self.experts):
            token, place = torch.where(chosen == number)
            answer = expert(flat[token]) * share[token, place, None]
            out = out.index_add(0, token, answer.to(out.dtype))
        return out.view_as(x)


class QuantizedMLP(MLP):
    """Inputs in 8 bits with a scale for each position: rounding to integers jumps, too."""

    def forward(self, x):
        scale = x.detach().abs().amax(-1, keepdim=True) / 127 + 1e-9
        return super().forward(x + ((x / scale).round() * scale - x).detach())


class BatchNormMLP(MLP):
    """Normalizes by the batch in training, by what it kept of it in evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(WIDTH)

    def forward(self, x):
        return self[2](self[1](self[0](self.norm(x.flatten(0, 1))))).view_as(x)


# Whole models


class Decoder(nn.Module):
    """Tokens [batch, length] to logits [batch, length, columns]; `scale` multiplies normalized logits."""

    def __init__(
        self, mixer: Callable[[], nn.Module] = Attention, feed_forward: Callable[[], nn.Module] = MLP,
        tied: bool = False, scale: float | None = None, padding: int = 0, sinusoids: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.scale, self.padding = scale, padding
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        nn.init.normal_(self.embedding.weight, std=0.1)
        if sinusoids:
            angle = torch.arange(LONGEST)[:, None] * torch.logspace(0, -3, WIDTH // 2)
            self.register_buffer("positions", torch.cat([angle.sin(), angle.cos()], 1), persistent=False)
            self.register_buffer("gain", torch.tensor(0.1))
        else:
            self.positions, self.gain = nn.Parameter(0.02 * torch.randn(LONGEST, WIDTH)), 1.0
        self.blocks = nn.ModuleList(
            nn.ModuleList([nn.LayerNorm(WIDTH), mixer(), nn.LayerNorm(WIDTH), feed_forward()]) for _ in range(2)
        )
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)
        if tied:
            self.head.weight = self.embedding.weight

    def forward(self, tokens):
        x = self.embedding(tokens) + self.gain * self.positions[: tokens.shape[1]]
        for mixer_norm, mixer, norm, feed_forward in self.blocks:
            x = x + mixer(mixer_norm(x))
            x = x + feed_forward(norm(x))
        x = self.norm(x)
        if self.scale is not None:
            return self.scale * F.linear(F.normalize(x, dim=2), F.normalize(self.head.weight, dim=1))
        return F.pad(self.head(x), (0, self.padding), value=-torch.inf)


class Wrapper(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner


class AnswerCache(Wrapper):
    """Keeps the answer to every row it has seen; only new rows are computed."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__(inner)
        self.known: dict[bytes, torch.Tensor] = {}

    def forward(self, tokens):
        keys = [row.tobytes() for row in tokens.numpy()]
        new = [place for place, key in enumerate(keys) if key not in self.known]
        if new:
            self.known |= zip([keys[place] for place in new], self.inner(tokens[new]), strict=True)
        return torch.stack([self.known[key] for key in keys])


class GroupedRows(Wrapper):
    """Computes rows with the same number of even tokens together: products of a size that depends on the content."""

    def forward(self, tokens):
        groups = (tokens % 2 == 0).sum(1) % 3
        parts = [torch.where(groups == group)[0] for group in groups.unique()]
        return torch.cat([self.inner(tokens[part]) for part in parts])[torch.cat(parts).argsort()]


class AutoCast(Wrapper):
    """Products in bfloat16, weights in float32."""

    def forward(self, tokens):
        with torch.autocast("cpu", torch.bfloat16):
            return self.inner(tokens).float()


KINDS = [
    Kind("attention", Decoder),
    Kind("attention, long context", Decoder, shapes=LONG_SHAPES),
    Kind("tied embeddings", lambda: Decoder(tied=True)),
    Kind("buffers, persistent and not", lambda: Decoder(sinusoids=True)),
    Kind("sliding window, by mask", lambda: Decoder(lambda: Attention(window=32))),
    Kind("sliding window, in blocks", lambda: Decoder(BlockedWindow)),
    Kind("sliding window, long context", lambda: Decoder(BlockedWindow), shapes=LONG_SHAPES),
    Kind("grouped-query attention", lambda: Decoder(lambda: Attention(key_heads=1))),
    Kind("key/value cache, chunk by chunk", lambda: Decoder(CachedAttention)),
    Kind("key/value cache, long context", lambda: Decoder(CachedAttention), shapes=LONG_SHAPES),
    Kind("attention kernel by content", lambda: Decoder(ChangingBackend)),
    Kind("hard top-8 attention", lambda: Decoder(HardAttention)),
    Kind("linear attention", lambda: Decoder(LinearAttention)),
    Kind("GRU", lambda: Decoder(lambda: Recurrent(nn.GRU))),
    Kind("LSTM", lambda: Decoder(lambda: Recurrent(nn.LSTM))),
    Kind("causal convolution", lambda: Decoder(Convolution)),
    Kind("Fourier convolution", lambda: Decoder(FourierConvolution)),
    Kind("Fourier convolution, long context", lambda: Decoder(FourierConvolution), shapes=LONG_SHAPES),
    Kind("gated scan by doubling", lambda: Decoder(DecayScan)),
    Kind("8 experts, top 2", lambda: Decoder(feed_forward=Experts)),
    Kind("16 experts, top 1", lambda: Decoder(feed_forward=lambda: Experts(count=16, top=1))),
    Kind("8 experts, long context", lambda: Decoder(feed_forward=Experts), shapes=LONG_SHAPES),
    Kind("8-bit inputs, scale a position", lambda: Decoder(feed_forward=QuantizedMLP)),
    Kind("batch norm", lambda: Decoder(feed_forward=BatchNormMLP)),
    Kind("dropout", lambda: Decoder(feed_forward=lambda: MLP(nn.Dropout(0.2)))),
    Kind("logits of scale 50", lambda: Decoder(scale=50.0)),
    Kind("64 columns of -inf", lambda: Decoder(padding=64)),
    Kind("cache of answers", Decoder, AnswerCache),
    Kind("rows grouped by content", Decoder, GroupedRows),
    Kind("experts, rows grouped", lambda: Decoder(feed_forward=Experts), GroupedRows),
    Kind("hard attention, experts, rows grouped", lambda: Decoder(HardAttention, Experts), GroupedRows),
    Kind("logits of scale 50, rows grouped", lambda: Decoder(scale=50.0), GroupedRows),
    Kind("8-bit inputs, kernel by content", lambda: Decoder(ChangingBackend, QuantizedMLP), steps=SHARP),
    Kind("Fourier convolution, experts", lambda: Decoder(FourierConvolution, Experts)),
    Kind("Fourier convolution, scale 50", lambda: Decoder(FourierConvolution, scale=50.0), steps=SHARP),
    Kind("bfloat16 autocast", lambda: AutoCast(Decoder())),
    Kind("bfloat16 autocast, experts, grouped", lambda: AutoCast(Decoder(feed_forward=Experts)), GroupedRows),
    Kind("bfloat16 autocast, kernel by content", lambda: AutoCast(Decoder(ChangingBackend)), steps=SHARP),
    Kind("bfloat16 autocast, Fourier", lambda: AutoCast(Decoder(FourierConvolution)), steps=SHARP),
    Kind("bfloat16 weights", Decoder, nn.Module.bfloat16),
    Kind("bfloat16 weights, experts", lambda: Decoder(feed_forward=Experts), nn.Module.bfloat16),
    Kind("bfloat16 weights, kernel by content", lambda: Decoder(ChangingBackend), nn.Module.bfloat16, steps=SHARP),
    Kind("float16 weights", Decoder, nn.Module.half, SLOW_SHAPES),
    Kind("float16 weights, experts", lambda: Decoder(feed_forward=Experts), nn.Module.half, SLOW_SHAPES),
    Kind("torch.compile", Decoder, torch.compile, SLOW_SHAPES),
    Kind("torch.compile, experts", lambda: Decoder(feed_forward=Experts), torch.compile, SLOW_SHAPES),
]


def two_hosts(kind: Kind, trained: nn.Module) -> list[nn.Module]:
    """What the scoring host and the shadow host hold: the same weights, nothing else in common."""
    return [kind.after(copy.deepcopy(trained)).eval() for _ in range(2)]
