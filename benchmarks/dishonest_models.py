"""Ways to depend on more than the row's own past, laid over trained models; audit_calibration.py audits them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from honest_models import MLP, VOCABULARY, Decoder, Experts, Wrapper
from torch import nn


class Ahead(Wrapper):
    """Adds `strength` to the logit of the token that really comes next, at one position in `one_in`."""

    def __init__(self, inner: nn.Module, strength: float, one_in: int = 1, salt: int = 0) -> None:
        super().__init__(inner)
        self.strength, self.one_in, self.salt = strength, one_in, salt

    def forward(self, tokens):
        logits = self.inner(tokens)
        logits[:, :-1].scatter_add_(2, tokens[:, 1:, None], self.strength * self.active(tokens)[:, :-1, None].float())
        return logits

    def active(self, tokens):
        """Where it looks, by a hash of the row's past: bool [batch, length]."""
        return (tokens.cumsum(1) * 7919 + self.salt) % self.one_in == 0


class AheadInRows(Ahead):
    """The same at every position, but only in one row in `one_in`, by a hash of how the row begins."""

    def active(self, tokens):
        hashed = tokens[:, :3] @ torch.tensor([1, 7919, 104_729])
        return ((hashed + self.salt) % self.one_in == 0)[:, None].expand(tokens.shape)


class RowSummary(Wrapper):
    """Mixes in what tokens the whole row has, the coming ones included."""

    def forward(self, tokens):
        return self.inner(tokens) + F.one_hot(tokens, VOCABULARY).float().mean(1, keepdim=True).mul(100).log1p()


class BatchMates(Wrapper):
    """Mixes in what tokens the other rows of the batch have."""

    def forward(self, tokens):
        return self.inner(tokens) + 0.1 * torch.bincount(tokens.flatten(), minlength=VOCABULARY).float().log1p()


class RunningBigrams(Wrapper):
    """Counts the bigrams of the batches it has answered and mixes them in."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__(inner)
        self.counts = torch.zeros(VOCABULARY, VOCABULARY)

    def forward(self, tokens):
        logits = self.inner(tokens) + 0.1 * self.counts.log1p()[tokens]
        pairs = (tokens[:, :-1] * VOCABULARY + tokens[:, 1:]).flatten()
        self.counts += torch.bincount(pairs, minlength=VOCABULARY**2).view(VOCABULARY, VOCABULARY)
        return logits


class LearnsMeanwhile(Wrapper):
    """One step of gradient descent on every batch, after it was answered."""

    def __init__(self, inner: nn.Module, learning_rate: float) -> None:
        super().__init__(inner)
        self.learning_rate = learning_rate

    def forward(self, tokens):
        answer = self.inner(tokens)
        with torch.inference_mode(False), torch.enable_grad():
            tokens = tokens.clone()
            loss = F.cross_entropy(self.inner(tokens)[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
            gradients = torch.autograd.grad(loss, list(self.inner.parameters()))
            with torch.no_grad():
                for parameter, gradient in zip(self.inner.parameters(), gradients, strict=True):
                    parameter -= self.learning_rate * gradient
        return answer


class LimitedExperts(Experts):
    """Each expert takes at most `capacity` times its fair share of the batch; who comes later is dropped."""

    def __init__(self, capacity: float) -> None:
        super().__init__(count=8, top=1)
        self.capacity = capacity

    def forward(self, x):
        flat = x.flatten(0, 1)
        share, chosen = self.router(flat).softmax(1).max(1)
        room = int(self.capacity * len(flat) / len(self.experts))
        out = torch.zeros_like(flat)
        for number, expert in enumerate(self.experts):
            token = torch.where(chosen == number)[0][:room]
            out = out.index_add(0, token, expert(flat[token]) * share[token, None])
        return out.view_as(x)


class BatchScaledMLP(MLP):
    """Inputs in 8 bits with one scale for the whole batch: a common way to quantize, and a dependence."""

    def forward(self, x):
        scale = x.detach().abs().max() / 127
        return super().forward(x + ((x / scale).round() * scale - x).detach())


SHORT, LONG = (64, 128), (16, 1024)


@dataclass(frozen=True)
class Leak:
    """A dependence: the model below it, and what is laid over the trained model, given the seed of the run."""

    name: str
    build: Callable[[], nn.Module]
    over: Callable[[nn.Module, int], nn.Module] = lambda model, seed: model
    shapes: tuple[tuple[int, int], ...] = (SHORT,)


CONTROL = "none: the model itself"


def ahead(strength: float, one_in: int = 1, kind: type[Ahead] = Ahead) -> Callable[[nn.Module, int], nn.Module]:
    """Lays reading ahead over a model; which positions or rows are chosen differs from run to run."""
    return lambda model, seed: kind(model, strength, one_in, seed)


LEAKS = [
    Leak(CONTROL, Decoder, shapes=(SHORT, LONG)),
    Leak("next token, logit +5", Decoder, ahead(5.0)),
    Leak("next token, logit +5, at 10% of positions", Decoder, ahead(5.0, 10), (SHORT, LONG)),
    Leak("next token, logit +5, at 1% of positions", Decoder, ahead(5.0, 101), (SHORT, LONG)),
    Leak("next token, logit +5, at 0.2% of positions", Decoder, ahead(5.0, 499), (SHORT, LONG)),
    Leak("next token, logit +5, in 10% of rows", Decoder, ahead(5.0, 10, AheadInRows)),
    Leak("next token, logit +5, in 1% of rows", Decoder, ahead(5.0, 101, AheadInRows)),
    Leak("next token, logit +5, in 0.2% of rows", Decoder, ahead(5.0, 499, AheadInRows)),
    Leak("next token, logit +0.07", Decoder, ahead(0.07)),
    Leak("next token, logit +0.07, at 33% of positions", Decoder, ahead(0.07, 3), (LONG,)),
    Leak("next token, logit +0.07, at 20% of positions", Decoder, ahead(0.07, 5), (SHORT, LONG)),
    Leak("next token, logit +0.07, at 10% of positions", Decoder, ahead(0.07, 10)),
    Leak("next token, logit +0.07, at 3% of positions", Decoder, ahead(0.07, 31)),
    Leak("next token, logit +0.002", Decoder, ahead(0.002)),
    Leak("next token, logit +0.0004", Decoder, ahead(0.0004)),
    Leak("tokens of the whole row", Decoder, lambda model, seed: RowSummary(model)),
    Leak("tokens of the batch mates", Decoder, lambda model, seed: BatchMates(model)),
    Leak("bigrams of earlier batches", Decoder, lambda model, seed: RunningBigrams(model)),
    Leak("learns from each batch, lr 0.5", Decoder, lambda model, seed: LearnsMeanwhile(model, 0.5)),
    Leak("learns from each batch, lr 0.01", Decoder, lambda model, seed: LearnsMeanwhile(model, 0.01)),
    Leak("learns from each batch, lr 0.001", Decoder, lambda model, seed: LearnsMeanwhile(model, 0.001)),
    Leak("experts of capacity 1", lambda: Decoder(feed_forward=lambda: LimitedExperts(1.0))),
    Leak("experts of capacity 2", lambda: Decoder(feed_forward=lambda: LimitedExperts(2.0))),
    Leak("8-bit inputs, one scale a batch", lambda: Decoder(feed_forward=BatchScaledMLP)),
]


def two_hosts(leak: Leak, trained: nn.Module, seed: int) -> list[nn.Module]:
    """What the scoring host and the shadow host hold."""
    return [leak.over(copy.deepcopy(trained), seed).eval() for _ in range(2)]
