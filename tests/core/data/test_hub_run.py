"""Runs of a task whose shards come from the hub."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.campaign import Request, run_once
from harness.core.task import hardware_class, load_task
from harness.errors import UserError
from harness.submission import load_submission
from tests.core.data.fake_hub import FakeHub
from tests.core.data.hub_corpus import SCORED, HubCorpus, data_dir, lock, prepare

SUBMISSION = """
import torch
import torch.nn.functional as F
import harness

class Small(torch.nn.Module):
    def __init__(self, columns):
        super().__init__()
        self.embedding = torch.nn.Embedding(columns, 4)

    def forward(self, tokens):
        return self.embedding(tokens) @ self.embedding.weight.T

def build_model(run):
    torch.manual_seed(run.seed)
    return Small(50304)  # padded beyond the vocabulary

def main():
    run = harness.connect()
    model = build_model(run)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    run.start(model)
    for step in range(3):
        inputs, targets = run.stream.next(2, 32)
        F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()
        run.log(step=step)
    run.finish(model)

if __name__ == "__main__":
    main()
"""


def request(corpus: HubCorpus, tmp_path: Path) -> Request:
    folder = tmp_path / "submission"
    folder.mkdir()
    manifest = (
        'task = "fineweb-small"\ntitle = "A small one"\nauthors = ["tests"]\n[evaluation]\nbatch = 2\nlength = 64\n'
    )
    (folder / "submission.toml").write_text(manifest)
    (folder / "train.py").write_text(SUBMISSION)
    submission = load_submission(folder, load_task(corpus.task_path))
    return Request(submission, hardware_class("cpu-1thread"), data_dir(corpus), tmp_path / "runs")


def test_a_run_reads_the_prepared_part_and_is_judged_on_the_first_tokens(
    corpus: HubCorpus, hub: FakeHub, tmp_path: Path
) -> None:
    text = corpus.task_path.read_text()
    caps = text[text.index("[caps.cuda]") : text.index("# Written by `speedrun data pin`")]
    text = text.replace(
        caps, caps.replace("cuda", "cpu").replace("compile_cpu_seconds = 1800", "compile_cpu_seconds = 0")
    )
    text = text.replace("tolerance = { cuda = 0.5 }", "tolerance = { cpu = 0.01 }")
    corpus.task_path.write_text(text.replace('order = "sequential"\n', 'order = "sequential"\nstep_tokens = 128\n'))
    lock(corpus)
    prepare(corpus, "--shards", 1)
    record = run_once(request(corpus, tmp_path)).record
    assert record.reason is None, record.message
    assert record.judgement["tokens"] == SCORED and record.bits_per_byte is None
    assert (record.tokens, record.tokens_counted_by, record.steps) == (192, "referee", 1.5)


def test_a_task_for_gpus_refuses_a_cpu_class(corpus: HubCorpus, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="fineweb-small: has no caps for cpu-1thread") as raised:
        run_once(request(corpus, tmp_path))
    assert "8xH100" in raised.value.remedy
