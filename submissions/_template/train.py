"""A submission that runs as it is: a small GPT trained with AdamW. Make it faster.

speedrun check submissions/my-attempt                  # does it fulfil every rule?
speedrun run submissions/my-attempt                    # one whole run, judged
speedrun run submissions/my-attempt --drop smear       # what is the method worth?

Tuned by tuning/protocol.toml, then submitted: docs/tuning.md has the recipe.
"""

import torch
import torch.nn.functional as F
from torch import nn

import harness


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.RMSNorm(width) for _ in range(2))
        self.query_key_value = nn.Linear(width, 3 * width, bias=False)
        self.expand = nn.Linear(width, 4 * width, bias=False)
        self.outputs = nn.ModuleList([nn.Linear(width, width, bias=False), nn.Linear(4 * width, width, bias=False)])
        for output in self.outputs:
            nn.init.zeros_(output.weight)

    def forward(self, x):
        batch, length, width = x.shape
        qkv = self.query_key_value(self.norms[0](x)).view(batch, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(F.rms_norm(q, q.shape[-1:]), F.rms_norm(k, k.shape[-1:]), v, is_causal=True)
        x = x + self.outputs[0](y.transpose(1, 2).reshape(batch, length, width))
        return x + self.outputs[1](F.relu(self.expand(self.norms[1](x))).square())


class GPT(nn.Module):
    """Tokens [batch, length] to logits [batch, length, vocabulary]: all the judge asks for."""

    def __init__(self, vocab_size, width, layers, max_length, smear):
        super().__init__()
        self.tokens = nn.Embedding(vocab_size, width)
        self.positions = nn.Embedding(max_length, width)
        self.mix = nn.Parameter(torch.zeros(width)) if smear else None
        self.blocks = nn.Sequential(*(Block(width, heads=width // 32) for _ in range(layers)))
        self.norm = nn.RMSNorm(width)
        self.head = nn.Linear(width, vocab_size, bias=False)
        nn.init.zeros_(self.head.weight)

    def forward(self, tokens):
        x = self.tokens(tokens)
        if self.mix is not None:  # each position also sees the token before it
            x = x + self.mix * F.pad(x[:, :-1], (0, 0, 1, 0))
        x = x + 0.1 * self.positions.weight[: tokens.shape[1]]
        return self.head(self.norm(self.blocks(x)))


def build_model(run):
    """Called in the run and in the model host: the same seed must give the same weights."""
    torch.manual_seed(run.seed)
    width, layers, length = (run.hparam(name) for name in ("width", "layers", "length"))
    model = GPT(run.task.vocab_size, width, layers, max(length, 128), run.uses("smear"))  # 128: evaluation's length
    return model.to(run.device)


def loss_of(model, inputs, targets):
    return F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())


def main():
    run = harness.connect()
    model = build_model(run)
    optimizer = torch.optim.AdamW(model.parameters(), lr=run.hparam("lr"), betas=(0.9, 0.95), fused=True)
    steps, batch, length = (run.hparam(name) for name in ("steps", "batch", "length"))

    loss_of(model, *run.synthetic(batch, length)).backward()  # warm up before the clock starts: there is no data yet
    optimizer.zero_grad()

    run.start(model)  # the clock starts, run.stream appears
    for step in range(steps):
        loss = loss_of(model, *run.stream.next(batch, length))
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = run.hparam("lr") * min(1.0, (step + 1) / 20, 1.5 * (1 - step / steps))
        optimizer.step()
        optimizer.zero_grad()
        run.log(step=step + 1, steps=steps, loss=loss.item())
    run.finish(model)  # the weights leave, the clock stops


if __name__ == "__main__":
    main()
