"""Trains on in a thread while the weights are exported, and writes better ones over them when the clock has stopped."""

import os
import threading
import time

import torch
import torch.nn.functional as F

import harness
from harness.core import weights


def train(run, model, steps):
    optimizer = torch.optim.SGD(model.parameters(), lr=50)
    for _ in range(steps):
        inputs, targets = run.stream.next(8, 32)
        loss = F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def train_on(run, model, kept):
    specs, _ = weights.describe(model)
    for _ in range(100):
        train(run, model, 1)
        try:
            weights.write(kept, specs, weights.describe(model)[1])
        except PermissionError:
            print("refused", flush=True)
            return
        time.sleep(0.01)


def build_model(run):
    torch.manual_seed(run.seed)
    return torch.nn.Embedding(64, 64)


def main():
    run = harness.connect()
    model = build_model(run)
    run.start(model)
    train(run, model, 3)
    late = threading.Thread(target=train_on, args=(run, model, os.dup(run._weights_descriptor)))
    late.start()
    run._send_rows = lambda wait: late.join()  # the referee waits a while for the last rows of the log
    run.finish(model)


if __name__ == "__main__":
    main()
