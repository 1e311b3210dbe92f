"""GPT-2 (124M) as llm.c trains it: the textbook control, with nothing that came after 2020 but the software under it.

speedrun run fineweb-adamw-llmc --class 1xH200     # 8xH200, 4x, 2x: the same batch, less accumulation
"""

import math

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import harness
import harness.errors

HEAD_SIZE = 64
INITIAL_STD = 0.02
PAD = 64  # columns of logits are a multiple of it, which is what the matrix units like
WARM_UP_STEPS = 3
LOG_EVERY = 25  # reading the loss waits for the GPU


class Block(nn.Module):
    """Attention and MLP, each behind a layer normalization and added to the stream. Attention crosses documents."""

    def __init__(self, width):
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.attention_projection = nn.Linear(width, width)
        self.mlp_norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 4 * width)
        self.mlp_projection = nn.Linear(4 * width, width)

    def forward(self, x):
        batch, length, width = x.shape
        qkv = self.query_key_value(self.attention_norm(x)).view(batch, length, 3, -1, HEAD_SIZE)
        q, k, v = (part.transpose(1, 2) for part in qkv.unbind(2))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.attention_projection(y.transpose(1, 2).reshape(batch, length, width))
        return x + self.mlp_projection(F.gelu(self.expand(self.mlp_norm(x)), approximate="tanh"))


class GPT(nn.Module):
    """Tokens [batch, length] to logits [batch, length, columns], or with targets to their mean loss."""

    def __init__(self, vocab_size, width, layers, length):
        super().__init__()
        self.tokens = nn.Embedding(-(-vocab_size // PAD) * PAD, width)
        self.positions = nn.Embedding(length, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens, targets=None):
        with torch.autocast(tokens.device.type, torch.bfloat16, enabled=tokens.is_cuda):
            x = self.tokens(tokens) + self.positions.weight[: tokens.shape[1]]
            for block in self.blocks:
                x = block(x)
            logits = F.linear(self.norm(x), self.tokens.weight)  # the head is tied to the embedding
            return logits if targets is None else F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def build_model(run):
    torch.manual_seed(run.seed)
    layers = run.hparam("layers")
    model = GPT(run.task.vocab_size, run.hparam("width"), layers, run.hparam("length"))
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2:
            # What is added to the stream once in every half of a block is scaled so that the sum keeps its size.
            scale = (2 * layers) ** -0.5 if "projection" in name else 1.0
            nn.init.normal_(parameter, std=INITIAL_STD * scale)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)
    return model.to(run.device)


def build_optimizer(model, run):
    """AdamW; matrices and embeddings decay, biases and gains do not."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() == 2], "weight_decay": run.hparam("weight_decay")},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    betas = (run.hparam("beta1"), run.hparam("beta2"))
    return torch.optim.AdamW(groups, lr=run.hparam("lr"), betas=betas, eps=run.hparam("epsilon"), fused=True)


def schedule(step, steps, warmup_steps):
    """Share of the learning rate: linear warm-up, then half a cosine down to zero."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / max(1, steps - warmup_steps)))


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
    steps, length, rate = run.hparam("steps"), run.hparam("length"), run.hparam("lr")
    warmup_steps, clip = run.hparam("warmup_steps"), run.hparam("clip")

    def step_at(rate):
        torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        optimizer.zero_grad()

    for _ in range(WARM_UP_STEPS):  # at a rate of zero: compiles and allocates, and leaves the weights as they are
        accumulate(trainer, min(2, count), lambda: run.synthetic(rows, length))
        step_at(0.0)
    optimizer.state.clear()

    run.start(model)
    for step in range(steps):
        loss = accumulate(trainer, count, lambda: run.stream.next(rows, length))
        step_at(rate * schedule(step, steps, warmup_steps))
        if (step + 1) % LOG_EVERY == 0 or step + 1 == steps:
            run.log(step=step + 1, steps=steps, loss=loss.item())
    run.finish(model)


if __name__ == "__main__":
    main()
