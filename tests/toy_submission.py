"""A bigram model: the smallest submission that is real from end to end (torch, judge and model host)."""

from __future__ import annotations

from pathlib import Path

MANIFEST = """
task = "toy"
title = "A bigram table"
authors = ["tests"]

[evaluation]
batch = 8
length = 32

[methods.momentum]
kind = "optimizer"
summary = "Heavy-ball momentum."
source = "Polyak, 1964"

[hparams.steps]
default = 30
low = 0
high = 1000

[hparams.lr]
default = 50.0
low = 0.1
high = 1000.0
log = true
of = "momentum"
"""

SCRIPT = """
import torch
import torch.nn.functional as F
import harness

class Bigram(torch.nn.Module):
    def __init__(self, vocab_size):
        super().__init__()
        self.table = torch.nn.Embedding(vocab_size, vocab_size)
        torch.nn.init.normal_(self.table.weight, std=0.01)

    def forward(self, tokens):
        return self.table(tokens)

def build_model(run):
    torch.manual_seed(run.seed)
    return Bigram(run.task.vocab_size).to(run.device)

def main():
    run = harness.connect()
    model = build_model(run)
    momentum = 0.5 if run.uses("momentum") else 0.0
    optimizer = torch.optim.SGD(model.parameters(), lr=run.hparam("lr"), momentum=momentum)
    inputs, targets = run.synthetic(8, 32)
    run.start(model)
    for step in range(run.hparam("steps")):
        inputs, targets = run.stream.next(8, 32)
        loss = F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        run.log(step=step + 1, loss=loss.item())
    run.finish(model)

if __name__ == "__main__":
    main()
"""


def write_submission(folder: Path, script: str = SCRIPT, manifest: str = MANIFEST) -> Path:
    """Writes the submission, or one made from it by replacing text, into a new folder."""
    folder.mkdir(parents=True)
    (folder / "train.py").write_text(script)
    (folder / "submission.toml").write_text(manifest)
    return folder
