"""Asks for all cores of the machine, for itself and for helper processes."""

import os
import subprocess
import sys

import torch
import torch.nn.functional as F

import harness

WIDEN = "import os; os.sched_setaffinity(0, range(os.cpu_count())); print('cores', len(os.sched_getaffinity(0)))"


def widen():
    os.sched_setaffinity(0, range(os.cpu_count()))
    print("cores", len(os.sched_getaffinity(0)), flush=True)
    subprocess.run([sys.executable, "-S", "-c", WIDEN])


def build_model(run):
    torch.manual_seed(run.seed)
    return torch.nn.Embedding(64, 64)


def main():
    run = harness.connect()
    model = build_model(run)
    widen()
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
