"""SOAP on the model of the AdamW baseline: Adam in the eigenbases of Shampoo's factors for the blocks' matrices.

speedrun run gcide-soap
speedrun run gcide-soap --set refresh=5     # new eigenbases more often
speedrun run gcide-soap --drop soap         # AdamW for the matrices too: the baseline
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


class SOAP(torch.optim.Optimizer):
    """Adam in slowly turning eigenbases (Vyas et al. 2024, https://arxiv.org/abs/2409.11321), for blocks of matrices.

    Every matrix is cut into square blocks, each with a left and a right factor, moving averages of G G^T and G^T G.
    All blocks are stacked, so that each product is one call. A block's first gradient only finds its bases: the first
    that is not zero, as a head and projections that begin at zero leave the blocks without one for a few steps. Every
    `refresh` steps the bases are improved by one power iteration. The mean of the gradients is kept in them and turned
    with them.
    """

    def __init__(self, parameters, block, lr, betas, factor_beta, epsilon, refresh, weight_decay):
        super().__init__(parameters, {"lr": lr, "base_lr": lr, "betas": betas, "weight_decay": weight_decay})
        self.block, self.factor_beta, self.epsilon, self.refresh = block, factor_beta, epsilon, refresh
        self.steps = -1  # the first gradient is no step

    @torch.no_grad()
    def step(self):
        (group,) = self.param_groups
        gradients = to_blocks([parameter.grad for parameter in group["params"]], self.block)
        outer = torch.stack([gradients @ gradients.mT, gradients.mT @ gradients])
        self.steps += 1
        if self.steps == 0:
            self.factors, self.bases = torch.zeros_like(outer), torch.zeros_like(outer)
            self.mean, self.square = torch.zeros_like(gradients), torch.zeros_like(gradients)
            self.waiting = torch.ones(len(gradients), dtype=torch.bool, device=gradients.device)
        else:
            self.update(gradients)
        self.factors.lerp_(outer, 1 - self.factor_beta)
        if self.waiting.any():
            self.find_bases()
        if self.steps > 0 and self.steps % self.refresh == 0:
            self.turn_bases()

    def update(self, gradients):
        """Moves the parameters. Where there are no bases yet they are 0: so are the moments, and the update."""
        (group,) = self.param_groups
        parameters, lr, (beta1, beta2) = group["params"], group["lr"], group["betas"]
        left, right = self.bases
        turned = left.mT @ gradients @ right
        self.mean.lerp_(turned, 1 - beta1)
        self.square.mul_(beta2).addcmul_(turned, turned, value=1 - beta2)
        scale = (self.square / (1 - beta2**self.steps)).sqrt_().add_(self.epsilon)
        updates = left @ (self.mean / scale) @ right.mT
        torch._foreach_mul_(parameters, 1 - lr * group["weight_decay"])
        torch._foreach_add_(parameters, from_blocks(updates, parameters), alpha=-lr / (1 - beta1**self.steps))

    def find_bases(self):
        """The eigenvectors of the factors, the largest eigenvalue first, of blocks that now had a gradient."""
        found = self.waiting & self.factors[0].flatten(1).any(1)
        self.bases[:, found] = torch.linalg.eigh(self.factors[:, found]).eigenvectors.flip(-1)
        self.waiting &= ~found

    def turn_bases(self):
        """One power iteration towards the eigenvectors of the factors, those of larger eigenvalues first."""
        left, right = self.bases
        mean = left @ self.mean @ right.mT
        towards = self.factors @ self.bases
        order = (self.bases * towards).sum(-2).argsort(-1, descending=True)
        rows, columns = order[0, :, :, None], order[1, :, None, :]
        self.square = self.square.take_along_dim(rows, -2).take_along_dim(columns, -1)
        self.bases = torch.linalg.qr(towards.take_along_dim(order[..., None, :], -1)).Q * ~self.waiting[:, None, None]
        left, right = self.bases
        self.mean = left.mT @ mean @ right


def build_optimizers(model, run):
    """SOAP for the blocks' matrices, AdamW for the rest or for all; each kind of parameter has its rate."""
    kinds = {"matrix": [], "embedding": [], "head": [], "vector": []}
    for name, parameter in model.named_parameters():
        kind = name.split(".")[0] if parameter.dim() == 2 else "vector"
        kinds["matrix" if kind == "blocks" else kind].append(parameter)
    optimizers = []
    if run.uses("soap"):
        block = run.hparam("block")
        if any(size % block for matrix in kinds["matrix"] for size in matrix.shape):
            raise harness.errors.UserError(f"blocks of {block} do not divide the matrices", "choose another block")
        betas = (run.hparam("soap_beta1"), run.hparam("soap_beta2"))
        soap = {name: run.hparam(name) for name in ("factor_beta", "epsilon", "refresh")}
        lr, weight_decay = run.hparam("soap_lr"), run.hparam("soap_weight_decay")
        optimizers.append(SOAP(kinds.pop("matrix"), block, lr, betas, weight_decay=weight_decay, **soap))
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
