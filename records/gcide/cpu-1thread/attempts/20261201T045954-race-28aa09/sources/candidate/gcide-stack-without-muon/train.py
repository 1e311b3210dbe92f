"""Muon, an embedding of hashed bigrams, products in bfloat16 and a compiled model, on the model of the AdamW baseline.

speedrun run gcide-stack
speedrun run gcide-stack --drop bfloat16 --drop compile    # gcide-bigrams
speedrun run gcide-stack --drop muon                       # AdamW for the matrices too
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

import harness

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
        self.bigrams = None  # build_model gives it one
        self.blocks = nn.ModuleList(Block(width, head_size, mlp_ratio) for _ in range(layers))
        self.norm = nn.RMSNorm(width)
        self.head = nn.Linear(width, vocab_size, bias=False)

    def forward(self, tokens):
        x = self.embedding(tokens)
        if self.bigrams is not None:
            x = x + self.bigrams(rows_of_bigrams(tokens, self.bigrams.num_embeddings))
        x = F.rms_norm(x, (self.embedding.embedding_dim,))
        rotation = rotation_of(tokens.shape[1], self.head_size, x.device)
        for block in self.blocks:
            x = block(x, rotation)
        # Dividing before the head instead of after it saves a pass over the logits, the largest tensor here.
        return SOFT_CAP * torch.tanh(self.head(self.norm(x) / SOFT_CAP).float())


def rows_of_bigrams(tokens, rows):
    """A row for each token with the one before it, [batch, length] to [batch, length]; the first has token 0 before it.

    There are more bigrams than rows, so some share theirs: a hash by two primes.
    """
    before = F.pad(tokens[:, :-1], (1, 0))
    return (tokens * 1_000_003 + before * 7_919) % rows


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
    if run.uses("bigrams"):
        rows = torch.zeros(run.hparam("bigram_rows"), run.hparam("width"))
        model.bigrams = nn.Embedding.from_pretrained(rows, freeze=False, sparse=True)
    return model.to(run.device)


def build_optimizers(model, run):
    """Muon for the blocks' matrices, lazy Adam for rows of bigrams, AdamW for the rest; each kind has its rate."""
    kinds = {"matrix": [], "embedding": [], "head": [], "vector": [], "bigrams": []}
    for name, parameter in model.named_parameters():
        kind = name.split(".")[0] if parameter.dim() == 2 else "vector"
        kinds["matrix" if kind == "blocks" else kind].append(parameter)
    optimizers, betas = [], (run.hparam("beta1"), run.hparam("beta2"))
    rows = kinds.pop("bigrams")
    if run.uses("bigrams"):  # only the rows of a step's bigrams have a gradient, and only they are updated
        group = {"params": rows, "base_lr": run.hparam("bigrams_lr")}
        optimizers.append(torch.optim.SparseAdam([group], betas=betas, eps=run.hparam("epsilon")))
    groups = [
        {
            "params": parameters,
            "base_lr": run.hparam(f"{kind}_lr"),
            "weight_decay": run.hparam("weight_decay") if kind == "matrix" else 0.0,
        }
        for kind, parameters in kinds.items()
    ]
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

    trained = torch.compile(model) if run.uses("compile") else model

    def loss_of(inputs, targets):
        with torch.autocast(torch.device(run.device).type, torch.bfloat16, enabled=run.uses("bfloat16")):
            logits = trained(inputs)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    loss_of(*run.synthetic(batch, length)).backward()  # compiles, and touches the memory, before the clock starts
    model.zero_grad()

    run.start(model)
    for step in range(steps):
        loss = loss_of(*run.stream.next(batch, length))
        loss.backward()
        if clip:
            nn.utils.clip_grad_norm_([p for p in model.parameters() if not p.grad.is_sparse], clip)
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
