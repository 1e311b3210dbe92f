"""Real model hosts, honest and not, under the real judge: every way to misbehave is a named outcome."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.core import weights
from harness.core.failures import Failure, RunFailed
from harness.core.judge import JUDGING_HOSTS, Job, Judgement, judge
from harness.core.protocol import Context, TaskFacts
from harness.core.sandbox import probe
from harness.core.weights import WeightsFile
from tests.conftest import Toy

MODEL = """
import os, sys, time
import torch

class Model(torch.nn.Module):
    def __init__(self, columns=64):
        super().__init__()
        self.table = torch.nn.Embedding(64, columns)
    def forward(self, tokens):
        return self.table(tokens)

def build_model(run):
    torch.manual_seed(run.seed)
    return Model()
"""


class Judged:
    """Judges a table of logits that some script's model is to hold."""

    def __init__(self, toy: Toy, folder: Path) -> None:
        self._toy = toy
        self._folder = folder

    def __call__(self, script: str = MODEL, table: torch.Tensor | None = None, **caps: float) -> Judgement:
        source, scratch = self._folder / "source", self._folder / "scratch"
        source.mkdir(exist_ok=True)
        for purpose in JUDGING_HOSTS:
            (scratch / purpose).mkdir(parents=True, exist_ok=True)
        (source / "train.py").write_text(script)
        values = torch.zeros(64, 64) if table is None else table
        model = torch.nn.Module()
        model.table = torch.nn.Embedding.from_pretrained(values)
        specs, tensors = weights.describe(model)
        file = WeightsFile(specs, max_bytes=1 << 20)
        weights.write(file.descriptor, specs, tensors)
        file.seal()
        task = self._toy.task
        path = task.path
        if caps:
            path = self._folder / "capped.toml"
            text = task.path.read_text()
            for name, value in caps.items():
                old = next(line for line in text.splitlines() if line.startswith(name))
                text = text.replace(old, f"{name} = {value}")
            path.write_text(text)
        facts = TaskFacts("toy", 64, 63, "free", 3.9, 64, (1, 20, 40))
        context = Context(facts, 3, 1, "cpu", {}, {})
        job = Job(
            task=str(path), data_folder=str(task.data_folder(self._toy.data_dir)), split="validation",
            source=str(source), scratch=str(scratch), output=str(self._folder), trust=probe().level,
            context=context.to_json(), weights=file.descriptor, batch=4, length=16, threads=1, cpus=[0],
            referee=os.getpid(),
        )  # fmt: skip
        return judge(job, lambda done, batches: None)


@pytest.fixture
def judged(toy: Toy, tmp_path: Path) -> Judged:
    return Judged(toy, tmp_path)


def failure(judged: Judged, script: str, **caps: float) -> RunFailed:
    with pytest.raises(RunFailed) as caught:
        judged(script, **caps)
    return caught.value


def test_uniform_weights_score_the_log_of_the_vocabulary(judged: Judged) -> None:
    judgement = judged()
    assert judgement.val_loss == pytest.approx(math.log(64))
    assert judgement.tokens == 2999
    assert judgement.bits_per_byte == pytest.approx(2999 * math.log2(64) / 3000)


def test_swapped_weights_change_the_score(judged: Judged) -> None:
    following = torch.tensor(5.0) * torch.from_numpy(np.roll(np.eye(64, dtype=np.float32), 1, axis=1))
    assert judged(table=following).val_loss < math.log(64) - 0.5


def test_extra_columns_are_kept_in_the_softmax(judged: Judged) -> None:
    padded = MODEL.replace("return self.table(tokens)", "x = self.table(tokens); return torch.cat([x, x], dim=2)")
    judgement = judged(padded)
    assert judgement.columns == 128
    assert judgement.val_loss == pytest.approx(math.log(128))


def test_low_precision_logits_are_scored_in_float32(judged: Judged) -> None:
    half = MODEL.replace("return self.table(tokens)", "return self.table(tokens).to(torch.bfloat16)")
    assert judged(half).val_loss == pytest.approx(math.log(64))


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("self.table(tokens)[:, :, :50]", Failure.WRONG_SHAPE),
        ("self.table(tokens)[:, :-1]", Failure.WRONG_SHAPE),
        ("(self.table(tokens), None)", Failure.WRONG_SHAPE),
        ("self.table(tokens).long()", Failure.WRONG_SHAPE),
        ("self.table(tokens) * float('nan')", Failure.NOT_FINITE),
        ("os._exit(3)", Failure.HOST_CRASH),
        ("1 / 0", Failure.HOST_CRASH),
    ],
)
def test_bad_answers_are_named(judged: Judged, answer: str, reason: Failure) -> None:
    assert failure(judged, MODEL.replace("return self.table(tokens)", f"return {answer}")).reason is reason


def test_a_host_that_hangs_is_ended(judged: Judged) -> None:
    hangs = MODEL.replace("return self.table(tokens)", "time.sleep(60)")
    assert failure(judged, hangs, judging_seconds=6).reason is Failure.HOST_TIMEOUT


def test_a_host_that_computes_while_loading_is_ended(judged: Judged) -> None:
    learns = MODEL.replace("    return Model()", "    while True: pass")
    assert failure(judged, learns, host_load_cpu_seconds=1).reason is Failure.HOST_LOAD_CAP


def test_a_model_that_is_dear_in_every_batch_alike_is_ended(judged: Judged) -> None:
    dear = MODEL.replace("return self.table", "[torch.randn(1000).sort() for _ in range(5000)]; return self.table")
    assert failure(judged, dear, judging_cpu_seconds=1).reason is Failure.HOST_ANSWER_CAP


def test_a_host_that_floods_its_output_is_scored_and_capped(judged: Judged, tmp_path: Path) -> None:
    floods = MODEL.replace("return self.table", "print('x' * 300_000, flush=True); return self.table")
    assert judged(floods).val_loss == pytest.approx(math.log(64))
    assert (tmp_path / "host.txt").stat().st_size <= 1 << 20


def test_a_host_that_floods_the_protocol_is_named(judged: Judged) -> None:
    floods = MODEL.replace(
        "    return Model()",
        "    import gc\n"
        "    from harness.core.protocol import Channel\n"
        "    channel = next(o for o in gc.get_objects() if isinstance(o, Channel))\n"
        "    for _ in range(5): channel.send('done', slot=0)\n"
        "    return Model()",
    )
    assert failure(judged, floods).reason is Failure.HOST_PROTOCOL


def test_a_crash_shows_the_last_lines(judged: Judged) -> None:
    assert "ZeroDivisionError" in failure(judged, MODEL.replace("    return Model()", "    1 / 0")).message


def test_another_shape_than_exported_is_refused(judged: Judged) -> None:
    failed = failure(judged, MODEL.replace("columns=64", "columns=65"))
    assert failed.reason is Failure.HOST_CRASH
    assert "do not fit" in failed.message


def test_a_host_cannot_shrink_the_shared_memory(judged: Judged) -> None:
    shrinks = MODEL.replace(
        "        return self.table(tokens)",
        "        for fd in os.listdir('/proc/self/fd'):\n"
        "            try: os.ftruncate(int(fd), 0)\n"
        "            except OSError: pass\n"
        "        return self.table(tokens)",
    )
    assert judged(shrinks).val_loss == pytest.approx(math.log(64))


def test_a_host_that_describes_nothing_for_ever_is_ended(judged: Judged) -> None:
    talks = MODEL.replace(
        "    return Model()",
        "    import gc\n"
        "    from harness.core.protocol import Channel\n"
        "    channel = next(o for o in gc.get_objects() if isinstance(o, Channel))\n"
        "    while True: channel.send('tensors', items=[])\n",
    )
    assert failure(judged, talks).reason is Failure.HOST_PROTOCOL
