"""Shampoo on the model of the AdamW baseline: the blocks' matrices, whitened from both sides, the rest by AdamW.

speedrun run gcide-shampoo
speedrun run gcide-shampoo --set refresh=5
speedrun run gcide-shampoo --drop shampoo     # AdamW for the matrices too: the baseline
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

import harness
import harness.errors

SOFT_CAP = 15.0  # logits stay within +-15, by a smooth function


class Attention(nn.Module):
    """Causal self-attention with rotary positions and normalized queries and keys."""

    def __init__(self, width, head_size):
        super().__init__()
        self.head_size = head_size
        self.query_key_value = nn.Linear(width, 3 * width, bias=False)
        self.projection = nn.Linear(width, width, bias=False)

    def forward(self, x, rotation):
        batch, length, width = x.shape
        q, k, v = self.query_key_value(x).view(batch, length, 3, -1, self.head_size).unbind(2)
        q, k = (rotate(F.rms_norm(part, (self.head_size,)), rotation) for part in (q, k))
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.projection(y.transpose(1, 2).reshape(batch, length, width))


class MLP(nn.Module):
    """Two layers with a squared ReLU between them."""

    def __init__(self, width, hidden):
        super().__init__()
        self.expand = nn.Linear(width, hidden, bias=False)
        self.projection = nn.Linear(hidden, width, bias=False)

    def forward(self, x):
        return self.projection(F.relu(self.expand(x)).square())


class Block(nn.Module):
    def __init__(self, width, head_size, mlp_ratio):
        super().__init__()
        self.attention_norm = nn.RMSNorm(width)
        self.attention = Attention(width, head_size)
        self.mlp_norm = nn.RMSNorm(width)
        self.mlp = MLP(width, mlp_ratio * width)

    def forward(self, x, rotation):
        x = x + self.attention(self.attention_norm(x), rotation)
        return x + self.mlp(self.mlp_norm(x))


class GPT(nn.Module):
    """Tokens [batch, length] to logits [batch, length, vocabulary]."""

    def __init__(self, vocab_size, width, layers, head_size, mlp_ratio):
        super().__init__()
        self.head_size = head_size
        self.embedding = nn.Embedding(vocab_size, width)
        self.blocks = nn.ModuleList(Block(width, head_size, mlp_ratio) for _ in range(layers))
        self.norm = nn.RMSNorm(width)
        self.head = nn.Linear(width, vocab_size, bias=False)

    def forward(self, tokens):
        x = F.rms_norm(self.embedding(tokens), (self.embedding.embedding_dim,))
        rotation = rotation_of(tokens.shape[1], self.head_size, x.device)
        for block in self.blocks:
            x = block(x, rotation)
        # Dividing before the head instead of after it saves a pass over the logits, the largest tensor here.
        return SOFT_CAP * torch.tanh(self.head(self.norm(x) / SOFT_CAP))


def rotation_of(length, head_size, device, base=1000.0):
    """Cosines and sines [length, 1, head_size / 2] of rotary position embedding."""
    frequency = base ** -torch.linspace(0, 1, head_size // 2, device=device)
    angle = torch.arange(length, device=device)[:, None, None] * frequency
    return angle.cos(), angle.sin()


def rotate(x, rotation):
    cos, sin = rotation
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


def build_model(run):
    torch.manual_seed(run.seed)
    shape = (run.hparam(name) for name in ("width", "layers", "head_size", "mlp_ratio"))
    model = GPT(run.task.vocab_size, *shape)
    for name, parameter in model.named_parameters():
        if "projection" in name or name == "head.weight":
            nn.init.zeros_(parameter)  # every block starts as the identity, every prediction as uniform
        elif "blocks" in name and parameter.dim() == 2:
            nn.init.normal_(parameter, std=run.hparam("init_scale") * parameter.shape[1] ** -0.5)
    return model.to(run.device)


def to_blocks(matrices, size):
    """Matrices [rows, columns] of any shapes, cut into square blocks: [count, size, size]."""
    cut = [matrix.view(len(matrix) // size, size, -1, size).transpose(1, 2).flatten(0, 1) for matrix in matrices]
    return torch.cat(cut)


def from_blocks(blocks, matrices):
    """The inverse of to_blocks: a list of matrices of the same shapes as these."""
    size = blocks.shape[-1]
    cut = blocks.split([matrix.numel() // size**2 for matrix in matrices])
    grids = [part.view(len(matrix) // size, -1, size, size) for part, matrix in zip(cut, matrices, strict=True)]
    return [grid.transpose(1, 2).reshape(matrix.shape) for grid, matrix in zip(grids, matrices, strict=True)]


class Shampoo(torch.optim.Optimizer):
    """Momentum between inverse roots of its factors (Gupta et al. 2018, https://arxiv.org/abs/1802.09568), in blocks.

    Every matrix is cut into square blocks, each with a left and a right factor, moving averages of G G^T and G^T G,
    raised to -`exponent`, 1/4 in the paper. Roots are computed anew at each of the first
    `refresh` steps, then at every `refresh`-th. With `grafting` "adam" each block goes as far as Adam would take it
    (Anil et al. 2020, https://arxiv.org/abs/2002.09018); with "none" as far as its roots say.
    """

    def __init__(
        self,
        parameters,
        block,
        lr,
        betas,
        factor_beta,
        exponent,
        factor_epsilon,
        refresh,
        grafting,
        epsilon,
        weight_decay,
    ):
        super().__init__(parameters, {"lr": lr, "base_lr": lr, "betas": betas, "weight_decay": weight_decay})
        self.block, self.factor_beta, self.refresh, self.grafting = block, factor_beta, refresh, grafting
        self.exponent, self.factor_epsilon, self.epsilon = exponent, factor_epsilon, epsilon
        self.steps = 0

    @torch.no_grad()
    def step(self):
        (group,) = self.param_groups
        parameters, lr, (beta1, beta2) = group["params"], group["lr"], group["betas"]
        gradients = to_blocks([parameter.grad for parameter in parameters], self.block)
        outer = torch.stack([gradients @ gradients.mT, gradients.mT @ gradients])
        if self.steps == 0:
            self.factors = torch.zeros_like(outer)
            self.mean, self.square = torch.zeros_like(gradients), torch.zeros_like(gradients)
        self.steps += 1
        self.factors.lerp_(outer, 1 - self.factor_beta)
        self.mean.lerp_(gradients, 1 - beta1)
        if self.steps <= self.refresh or self.steps % self.refresh == 0:
            factors = self.factors / (1 - self.factor_beta**self.steps)
            self.roots = inverse_roots(factors, self.exponent, self.factor_epsilon)
        left, right = self.roots
        mean = self.mean / (1 - beta1**self.steps)
        updates = left @ mean @ right
        if self.grafting == "adam":
            self.square.mul_(beta2).addcmul_(gradients, gradients, value=1 - beta2)
            adam = mean / (self.square / (1 - beta2**self.steps)).sqrt_().add_(self.epsilon)
            updates *= norms(adam) / norms(updates).clamp(min=1e-30)
        torch._foreach_mul_(parameters, 1 - lr * group["weight_decay"])
        torch._foreach_add_(parameters, from_blocks(updates, parameters), alpha=-lr)


def inverse_roots(factors, exponent, epsilon):
    """Symmetric factors [..., size, size] to the power -exponent, `epsilon` of the largest eigenvalue added to all."""
    values, vectors = torch.linalg.eigh(factors)
    largest = values[..., -1:]
    values = torch.where(largest > 0, values.clamp(min=0) + epsilon * largest, 1.0)  # 1 before the first gradient
    return (vectors * values[..., None, :] ** -exponent) @ vectors.mT


def norms(blocks):
    return blocks.norm(dim=(-2, -1), keepdim=True)


def build_optimizers(model, run):
    """Shampoo for the blocks' matrices, AdamW for the rest or for all; each kind of parameter has its rate."""
    kinds = {"matrix": [], "embedding": [], "head": [], "vector": []}
    for name, parameter in model.named_parameters():
        kind = name.split(".")[0] if parameter.dim() == 2 else "vector"
        kinds["matrix" if kind == "blocks" else kind].append(parameter)
    optimizers = []
    if run.uses("shampoo"):
        block = run.hparam("block")
        if any(size % block for matrix in kinds["matrix"] for size in matrix.shape):
            raise harness.errors.UserError(f"blocks of {block} do not divide the matrices", "choose another block")
        own = ("factor_beta", "exponent", "factor_epsilon", "refresh", "grafting", "epsilon")
        shampoo = {name: run.hparam(name) for name in own}
        betas = (run.hparam("shampoo_beta1"), run.hparam("shampoo_beta2"))
        lr, weight_decay = run.hparam("shampoo_lr"), run.hparam("shampoo_weight_decay")
        optimizers.append(Shampoo(kinds.pop("matrix"), block, lr, betas, weight_decay=weight_decay, **shampoo))
    groups = [
        {
            "params": parameters,
            "base_lr": run.hparam(f"{kind}_lr"),
            "weight_decay": run.hparam("weight_decay") if kind == "matrix" else 0.0,
        }
        for kind, parameters in kinds.items()
    ]
    betas = (run.hparam("beta1"), run.hparam("beta2"))
    optimizers.append(torch.optim.AdamW(groups, betas=betas, eps=run.hparam("epsilon"), fused=True))
    return optimizers


def schedule(step, run):
    """Share of the base learning rate: linear warm-up, constant, then a decay to `final_lr` over the last `cooldown`.

    A linear or cosine schedule is one whose cooldown is the whole run; anything shorter is warm-up, stable, decay.
    """
    steps, final = run.hparam("steps"), run.hparam("final_lr")
    rise = (step + 1) / max(1.0, run.hparam("warmup") * steps)
    left = min(1.0, (steps - step) / max(1.0, run.hparam("cooldown") * steps))
    if run.hparam("decay") == "cosine":
        left = (1 - math.cos(math.pi * left)) / 2
    elif run.hparam("decay") == "sqrt":  # falls fastest at its beginning
        left = 1 - math.sqrt(1 - left)
    return min(1.0, rise, final + (1 - final) * left)


def main():
    run = harness.connect()
    model = build_model(run)
    optimizers = build_optimizers(model, run)
    steps, batch, length, clip = (run.hparam(name) for name in ("steps", "batch", "length", "clip"))

    inputs, targets = run.synthetic(batch, length)  # touches the memory and the kernels before the clock starts
    F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten()).backward()
    model.zero_grad()

    run.start(model)
    for step in range(steps):
        inputs, targets = run.stream.next(batch, length)
        loss = F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
        loss.backward()
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        share = schedule(step, run)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["base_lr"] * share
            optimizer.step()
        model.zero_grad()
        run.log(step=step + 1, steps=steps, loss=loss.item())
    run.finish(model)


if __name__ == "__main__":
    main()
