"""What an honest source has: notes, docstrings, a digest, a table of coefficients, torch.compile."""

import torch
import torch.nn.functional as F

import harness

# Coefficients of a quintic iteration, five steps, as papers on orthogonalization print them. They are few and they are
# named; whoever reads this file can check every one of them against the source that the manifest gives for the method.
COEFFICIENTS = [(3.4445, -4.7750, 2.0315), (3.4445, -4.7750, 2.0315), (2.8366, -3.0525, 1.2012)]
REVISION = "9b1c2f4e7a6d5038e1f20c4b8a97d6e5f3140b2c"  # of the paper's repository
NOTES = """
The table is trained with plain gradient descent. A learning rate of fifty looks absurd and is not: the mean over 256
targets divides the gradient of a row by how seldom its token occurs, and a row holds the logits of one token alone.
Momentum did not help at thirty steps, weight decay hurt, and a warm-up was worth less than the steps that it took.
"""


def build_model(run):
    torch.manual_seed(run.seed)
    return torch.nn.Embedding(64, 64)


def main():
    run = harness.connect()
    model = build_model(run)
    run.start(model)
    compiled = torch.compile(model, disable=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=50)
    for _ in range(30):
        inputs, targets = run.stream.next(8, 32)
        loss = F.cross_entropy(compiled(inputs).flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    run.finish(model)


if __name__ == "__main__":
    main()
