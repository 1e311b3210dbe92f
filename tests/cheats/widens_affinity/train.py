"""Asks for all cores of the machine, for itself and for helper processes."""

import os
import subprocess
import sys

import torch
import torch.nn.functional as F

import harness

WIDEN = "import os; os.sched_setaffinity(0, range(os.cpu_count())); print('widened', flush=True)"


def widen():
    try:
        os.sched_setaffinity(0, range(os.cpu_count()))
        print("widened", flush=True)
    except PermissionError:
        print("refused", flush=True)
    helper = subprocess.run([sys.executable, "-S", "-c", WIDEN], capture_output=True, text=True)
    print("widened" if helper.stdout else "refused", flush=True)
    print("cores", len(os.sched_getaffinity(0)), flush=True)


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
