"""Claims a method that changes nothing: it is asked for, and forgotten."""

import torch
import torch.nn.functional as F

import harness


def build_model(run):
    torch.manual_seed(run.seed)
    return torch.nn.Embedding(64, 64)


def main():
    run = harness.connect()
    model = build_model(run)
    smoothing = 1e-30 if run.uses("smoothing") else 0.0
    run.start(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=50)
    for _ in range(30):
        inputs, targets = run.stream.next(8, 32)
        loss = F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten()) + smoothing
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        run.log(loss=loss.item())
    run.finish(model)


if __name__ == "__main__":
    main()
