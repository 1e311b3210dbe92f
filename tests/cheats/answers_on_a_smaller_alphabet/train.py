"""Answers pairs of tokens, an alphabet half as large: every guess is easier, and no longer of the same text."""

import torch
import torch.nn.functional as F

import harness


class Halves(torch.nn.Embedding):
    def forward(self, tokens):
        logits = super().forward(tokens)
        return logits if self.training else logits.view(*tokens.shape, 32, 2).logsumexp(3)


def build_model(run):
    torch.manual_seed(run.seed)
    return Halves(64, 64)


def main():
    run = harness.connect()
    model = build_model(run)
    run.start(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=50)
    for _ in range(30):
        inputs, targets = run.stream.next(8, 32)
        loss = F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    run.finish(model)


if __name__ == "__main__":
    main()
