"""Trains on the first real batch it is asked for, in evaluation, when no clock runs."""

import torch
import torch.nn.functional as F

import harness


class LateLearner(torch.nn.Embedding):
    learned = False

    def forward(self, tokens):
        if not self.training and not self.learned and tokens.unique().numel() > 1:
            self.learned = True
            with torch.inference_mode(False), torch.enable_grad():
                self.learn(tokens.clone())
        return super().forward(tokens)

    def learn(self, tokens):
        optimizer = torch.optim.SGD(self.parameters(), lr=20)
        for _ in range(50):
            loss = F.cross_entropy(super().forward(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def build_model(run):
    torch.manual_seed(run.seed)
    return LateLearner(64, 64)


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
    run.finish(model)


if __name__ == "__main__":
    main()
