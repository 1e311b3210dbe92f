"""Calls for help: a socket to the internet, a name to look up, a neighbour on this machine."""

import socket

import torch
import torch.nn.functional as F

import harness


def reached(port=80):
    """Which of three places answers."""
    places = [("1.1.1.1", 80), ("pypi.org", 443), ("127.0.0.1", port)]
    answered = []
    for place in places:
        try:
            socket.create_connection(place, timeout=2).close()
            answered.append(place[0])
        except OSError:
            continue
    return answered


def build_model(run):
    torch.manual_seed(run.seed)
    return torch.nn.Embedding(64, 64)


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
    print("reached", reached(run.hparam("port")), flush=True)
    run.finish(model)


if __name__ == "__main__":
    main()
