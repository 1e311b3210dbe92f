"""Muon at GPT-2's size: the blocks' matrices by orthogonalized momentum, everything else by AdamW.

speedrun run fineweb-muon --class 1xH200      # 8xH200, 4x, 2x: the same batch, less accumulation
speedrun run fineweb-muon --drop muon         # AdamW for the matrices too
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
        weights = [nn.Linear(width, width, bias=False).weight for _ in range(3)]
        self.query_key_value = nn.Parameter(torch.stack(weights).detach())  # three matrices: Muon takes each by itself
        self.projection = Linear(width, width)

    def forward(self, x, rotation):
        batch, length, width = x.shape
        qkv = F.linear(x, self.query_key_value.flatten(0, 1).to(x.dtype))
        q, k, v = qkv.view(batch, length, 3, -1, self.head_size).unbind(2)
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


def orthogonalize(update, steps=5):
    """Nearly U V^T for every matrix U S V^T of [..., rows, columns], in bfloat16: singular values between 0.7 and 1.2.

    Newton-Schulz: X <- aX + (bA + cA^2)X with A = XX^T (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/).
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x = update.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    x = (x.mT if tall else x).flatten(0, -3)
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return (x.mT if tall else x).reshape(update.shape)


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalized. Parameters are matrices [rows, columns] or stacks of them [count, rows, columns].

    Each rank keeps the momentum of its share of the parameters, orthogonalizes it, and gets the rest from the others.
    Gradients must be the same on all ranks. Decay and scale are those of torch.optim.Muon ("original").
    """

    def __init__(self, parameters, lr, momentum, weight_decay, rank, world_size, orthogonalize):
        by_shape = {}
        for parameter in parameters:
            by_shape.setdefault(parameter.shape, []).append(parameter)
        defaults = {"lr": lr, "base_lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__([{"params": alike} for alike in by_shape.values()], defaults)
        self.rank, self.world_size, self.orthogonalize = rank, world_size, orthogonalize

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            parameters, beta = group["params"], group["momentum"]
            gradients = self._own_gradients(parameters)
            state = self.state[parameters[0]]
            if not state:
                state["momentum"] = torch.zeros_like(gradients)
            momentum = state["momentum"]
            momentum.lerp_(gradients, 1 - beta)
            updates = self.orthogonalize(gradients.lerp_(momentum, beta))  # Nesterov's look ahead
            if self.world_size > 1:
                own, updates = updates, updates.new_empty(self.world_size * len(updates), *updates.shape[1:])
                dist.all_gather_into_tensor(updates, own.contiguous())
            updates = updates[: len(parameters)].to(parameters[0].dtype)
            scale = max(1.0, updates.shape[-2] / updates.shape[-1]) ** 0.5
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(parameters, list(updates.unbind()), alpha=-group["lr"] * scale)

    def _own_gradients(self, parameters):
        """This rank's share, stacked; the last ranks' is filled up with zeros, which stay zeros."""
        share = -(-len(parameters) // self.world_size)
        own = parameters[self.rank * share : (self.rank + 1) * share]
        gradients = parameters[0].new_zeros(share, *parameters[0].shape)
        for place, parameter in zip(gradients, own, strict=False):
            place.copy_(parameter.grad)
        return gradients


def build_optimizers(model, run):
    """Muon for the blocks' matrices, AdamW with learning rates of their own for all else; without Muon AdamW alone."""
    kinds = {"matrix": [], "embedding": [], "head": [], "vector": []}
    for name, parameter in model.named_parameters():
        kind = name.split(".")[0] if parameter.dim() >= 2 else "vector"
        kinds["matrix" if kind == "blocks" else kind].append(parameter)
    matrices = kinds.pop("matrix")
    adamw = {"weight_decay": run.hparam("weight_decay"), "betas": (run.hparam("beta1"), run.hparam("beta2"))}
    groups = [{"params": those, "base_lr": run.hparam(f"{kind}_lr"), **adamw} for kind, those in kinds.items()]
    optimizers = []
    if run.uses("muon"):
        compiled = torch.compile(orthogonalize, dynamic=False) if run.uses("compile") else orthogonalize
        muon = (run.hparam("muon_lr"), run.hparam("momentum"), run.hparam("muon_weight_decay"))
        optimizers.append(Muon(matrices, *muon, run.rank, run.world_size, compiled))
    else:
        alone = {"base_lr": run.hparam("matrix_lr"), "weight_decay": run.hparam("matrix_weight_decay")}
        groups.append({"params": matrices, **alone, "betas": (run.hparam("matrix_beta1"), run.hparam("matrix_beta2"))})
    optimizers.append(torch.optim.AdamW(groups, eps=run.hparam("epsilon"), fused=True))
    return optimizers


def schedule(step, steps, warmup_steps, cooldown):
    """Share of the base learning rate: linear warm-up, constant, linear cooldown to zero."""
    rise = (step + 1) / max(1, warmup_steps)
    fall = (steps - step) / max(1.0, cooldown * steps)
    return min(1.0, rise, fall)


def update(optimizers, share):
    """One step of each optimizer at that share of its learning rates; the gradients are gone afterwards."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * share
        optimizer.step()
        optimizer.zero_grad()


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
    optimizers = build_optimizers(model, run)
    trainer = wrapped(model, run)
    rows, count = shares_of(run)
    steps, length = run.hparam("steps"), run.hparam("length")
    warmup_steps, cooldown = run.hparam("warmup_steps"), run.hparam("cooldown")

    for _ in range(WARM_UP_STEPS):  # at a rate of zero: compiles and allocates, and leaves the weights as they are
        accumulate(trainer, min(2, count), lambda: run.synthetic(rows, length))
        update(optimizers, 0.0)
    for optimizer in optimizers:
        optimizer.state.clear()

    run.start(model)
    for step in range(steps):
        loss = accumulate(trainer, count, lambda: run.stream.next(rows, length))
        update(optimizers, schedule(step, steps, warmup_steps, cooldown))
        if (step + 1) % LOG_EVERY == 0 or step + 1 == steps:
            run.log(step=step + 1, steps=steps, loss=loss.item())
    run.finish(model)


if __name__ == "__main__":
    main()
