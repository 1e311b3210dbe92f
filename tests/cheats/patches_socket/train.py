"""Says `finished` before it trains and `ready` with another model's digest: its own end of the socket is patched."""

import torch
import torch.nn.functional as F

import harness
import harness.core.weights
from harness.core.protocol import Channel


def build_model(run):
    torch.manual_seed(run.seed)
    return torch.nn.Embedding(64, 64)


def main():
    run = harness.connect()
    honest = harness.core.weights.digest(*harness.core.weights.describe(build_model(run)))
    send = Channel.send

    def lie(self, kind, descriptors=(), **fields):
        if kind == "ready":
            fields["digest"] = honest
        if kind != "finished":  # it was said already
            send(self, kind, descriptors, **fields)

    Channel.send = lie
    model = build_model(run)
    torch.nn.init.zeros_(model.weight)  # stands for weights that were trained before
    run.start(model)
    send(run._channel, "finished", tokens=0, export_seconds=0.0)
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
