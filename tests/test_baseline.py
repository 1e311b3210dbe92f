"""The real thing: the baseline on the real corpus, as `make baseline` runs it; and the optional mirror."""

from __future__ import annotations

import importlib.util
import statistics
from pathlib import Path

import pytest

from harness.campaign import Request, run_once
from harness.cli.summary import read_references
from harness.core.data.prepare import prepare
from harness.core.task import hardware_class
from harness.paths import BASELINES, DATA
from harness.submission import load_submission
from tests.conftest import Toy
from tests.toy_submission import write_submission

pytestmark = pytest.mark.slow
BASELINE = BASELINES / "adamw" / "gcide"


def test_the_baseline_reaches_the_loss_of_its_reference_runs(tmp_path: Path) -> None:
    submission = load_submission(BASELINE)
    prepare(submission.task, DATA)
    record = run_once(Request(submission, hardware_class("cpu-1thread"), DATA, tmp_path)).record
    assert record.state == "JUDGED", record.message
    losses = [reference.val_loss for reference in read_references(BASELINE)]
    # Six standard deviations, and room for another CPU's rounding.
    assert record.val_loss == pytest.approx(statistics.mean(losses), abs=6 * statistics.stdev(losses) + 0.005)


@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="wandb is not installed")
def test_the_wandb_mirror_works_offline(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.wandb_mirror import mirror

    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    submission = load_submission(write_submission(tmp_path / "bigram"), toy.task)
    finished = run_once(Request(submission, hardware_class("cpu-1thread"), toy.data_dir, tmp_path / "runs"))
    mirror(finished)
    assert list(finished.folder.glob("wandb/offline-run-*/*.wandb"))
