"""The AdamW baseline of `fineweb-small`: GPT-2's size, a modern recipe, trained once over the first part of the stream.

speedrun run baselines/adamw/fineweb-small --class 1xH200     # 8xH200, 4x, 2x: the same batch, less accumulation
"""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import harness
import harness.errors

SOFT_CAP = 15.0  # logits stay within +-15, by a smooth function
PAD = 64  # columns of logits are a multiple of it, which is what the matrix units like
WARM_UP_STEPS = 3
LOG_EVERY = 25  # reading the loss waits for the GPU


class Linear(nn.Linear):
    """No bias. The weight is kept in float32 and used in the precision of what comes in."""

    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs, bias=False)

    def forward(self, x):
        return F.linear(x, self.weight.to(x.dtype))


class Norm(nn.Module):
    """Root mean square normalization with a gain."""

    def __init__(self, width):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return F.rms_norm(x, x.shape[-1:]) * self.gain.to(x.dtype)


class Attention(nn.Module):
    """Causal self-attention with rotary positions and normalized queries and keys.

    Rows are cut from the stream anywhere, and attention crosses documents, as in llm.c and in the judge's windows.
    """

    def __init__(self, width, head_size):
        super().__init__()
        self.head_size = head_size
        self.query_key_value = Linear(width, 3 * width)
        self.projection = Linear(width, width)

    def forward(self, x, rotation):
        batch, length, width = x.shape
        q, k, v = self.query_key_value(x).view(batch, length, 3, -1, self.head_size).unbind(2)
        q, k = rotate(F.rms_norm(q, q.shape[-1:]), rotation), rotate(F.rms_norm(k, k.shape[-1:]), rotation)
        y = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=True)
        return self.projection(y.transpose(1, 2).reshape(batch, length, width))


class MLP(nn.Module):
    """Two layers with a squared ReLU between them."""

    def __init__(self, width):
        super().__init__()
        self.expand = Linear(width, 4 * width)
        self.projection = Linear(4 * width, width)

    def forward(self, x):
        return self.projection(F.relu(self.expand(x)).square())


class Block(nn.Module):
    def __init__(self, width, head_size):
        super().__init__()
        self.attention_norm = Norm(width)
        self.attention = Attention(width, head_size)
        self.mlp_norm = Norm(width)
        self.mlp = MLP(width)

    def forward(self, x, rotation):
        x = x + self.attention(self.attention_norm(x), rotation)
        return x + self.mlp(self.mlp_norm(x))


class GPT(nn.Module):
    """Tokens [batch, length] to logits [batch, length, columns], or with targets to their mean loss."""

    def __init__(self, vocab_size, width, layers, head_size):
        super().__init__()
        columns = -(-vocab_size // PAD) * PAD
        self.head_size = head_size
        self.embedding = nn.Embedding(columns, width)
        self.blocks = nn.ModuleList(Block(width, head_size) for _ in range(layers))
        self.norm = Norm(width)
        self.head = Linear(width, columns)

    def forward(self, tokens, targets=None):
        x = self.embedding(tokens)
        x = F.rms_norm(x.bfloat16() if x.is_cuda else x, x.shape[-1:])
        rotation = rotation_of(tokens.shape[1], self.head_size, x.device)
        for block in self.blocks:
            x = block(x, rotation)
        logits = SOFT_CAP * torch.tanh(self.head(self.norm(x)).float() / SOFT_CAP)
        return logits if targets is None else F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def rotation_of(length, head_size, device, base=10000.0):
    """Cosines and sines [length, 1, head_size / 2] of rotary position embedding."""
    frequency = base ** -torch.linspace(0, 1, head_size // 2, device=device)
    angle = torch.arange(length, device=device)[:, None, None] * frequency
    return angle.cos(), angle.sin()


def rotate(x, rotation):
    cos, sin = rotation
    a, b = x.float().chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1).to(x.dtype)


def build_model(run):
    torch.manual_seed(run.seed)
    model = GPT(run.task.vocab_size, run.hparam("width"), run.hparam("layers"), run.hparam("head_size"))
    for name, parameter in model.named_parameters():
        if "projection" in name or name == "head.weight":
            nn.init.zeros_(parameter)  # every block starts as the identity, every prediction as uniform
    return model.to(run.device)


def build_optimizer(model, run):
    """AdamW with one learning rate for the blocks' matrices, and one for each other kind of parameter."""
    kinds = {"matrix": [], "embedding": [], "head": [], "vector": []}
    for name, parameter in model.named_parameters():
        kind = name.split(".")[0] if parameter.dim() == 2 else "vector"
        kinds["matrix" if kind == "blocks" else kind].append(parameter)
    groups = []
    for kind, parameters in kinds.items():
        owner = "matrix" if kind == "matrix" else "other"
        groups.append(
            {
                "params": parameters,
                "base_lr": run.hparam(f"{kind}_lr"),
                "weight_decay": run.hparam(f"{owner}_weight_decay"),
                "betas": (run.hparam(f"{owner}_beta1"), run.hparam(f"{owner}_beta2")),
            }
        )
    return torch.optim.AdamW(groups, eps=run.hparam("epsilon"), fused=True)


def schedule(step, steps, warmup_steps, cooldown):
    """Share of the base learning rate: linear warm-up, constant, linear cooldown to zero."""
    rise = (step + 1) / max(1, warmup_steps)
    fall = (steps - step) / max(1.0, cooldown * steps)
    return min(1.0, rise, fall)


def set_rate(optimizer, share):
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * share


def accumulate(trainer, count, next_batch):
    """Gradients of the mean loss over `count` micro-batches a rank; the last backward pass averages them over ranks."""
    total = 0.0
    for index in range(count):
        if isinstance(trainer, DistributedDataParallel):
            trainer.require_backward_grad_sync = index == count - 1
        loss = trainer(*next_batch()) / count
        loss.backward()
        total = total + loss.detach()
    return total


def wrapped(model, run):
    """What the training loop calls: the model, compiled, and on several devices with gradients averaged."""
    trainer = torch.compile(model) if run.uses("compile") else model
    if run.world_size > 1:
        if run.device != "cpu":
            torch.cuda.set_device(run.device)
        dist.init_process_group("gloo" if run.device == "cpu" else "nccl")
        trainer = DistributedDataParallel(trainer)
    return trainer


def shares_of(run):
    """Rows of a micro-batch, and how many of them each rank takes a step, so that all take `batch` rows together."""
    rows = max(1, min(run.hparam("micro_batch"), run.hparam("batch") // run.world_size))
    count, left = divmod(run.hparam("batch"), rows * run.world_size)
    if left:
        raise harness.errors.UserError(
            f"a batch of {run.hparam('batch')} rows is not {run.world_size} ranks x whole micro-batches of {rows}",
            "use a number of devices that divides batch, and a micro_batch that divides batch / devices",
        )
    return rows, count


def main():
    run = harness.connect()
    model = build_model(run)
    optimizer = build_optimizer(model, run)
    trainer = wrapped(model, run)
    rows, count = shares_of(run)
    steps, length = run.hparam("steps"), run.hparam("length")
    warmup_steps, cooldown = run.hparam("warmup_steps"), run.hparam("cooldown")

    set_rate(optimizer, 0.0)  # at a rate of zero a step compiles and allocates, and leaves the weights as they are
    for _ in range(WARM_UP_STEPS):
        accumulate(trainer, min(2, count), lambda: run.synthetic(rows, length))
        optimizer.step()
        optimizer.zero_grad()
    optimizer.state.clear()

    run.start(model)
    for step in range(steps):
        loss = accumulate(trainer, count, lambda: run.stream.next(rows, length))
        set_rate(optimizer, schedule(step, steps, warmup_steps, cooldown))
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % LOG_EVERY == 0 or step + 1 == steps:
            run.log(step=step + 1, steps=steps, loss=loss.item())
    run.finish(model)


if __name__ == "__main__":
    main()
