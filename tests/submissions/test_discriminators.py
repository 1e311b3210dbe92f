"""The benchmark of what the task tells apart, with workers that answer at once."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from types import ModuleType

import pytest

from harness.submission import load_submission
from harness.tuning.worker import Order
from tests.benchmark_modules import benchmark_module
from tests.submissions.modules import GCIDE_BASELINE
from tests.tuning.fake_workers import FakeWorkers, answer

GAINS = {"gcide-muon": 0.1, "gcide-soap": 0.11, "gcide-adamw-textbook": -0.3, "gcide-adamw-nanogpt": -0.3}


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    return benchmark_module("sanity_discriminators")


def worker(order: Order) -> str:
    """SGD diverges, Muon and SOAP win, settings of the baseline lose 0.06, seeds differ a little."""
    name = Path(order.submission).name
    if name == "gcide-sgd":
        return answer(None, "not-finite")
    declared = {f"{name}={value}" for name, value in load_submission(GCIDE_BASELINE).hparams([]).items()}
    changed = name == "gcide" and set(order.settings) != declared
    return answer(3.4 - GAINS.get(name, 0.0) + 0.06 * changed + order.seed / 1000)


def test_every_arm_runs_once_and_the_table_says_what_was_seen(
    benchmark: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    workers = FakeWorkers(monkeypatch, worker)
    monkeypatch.setattr(sys, "argv", ["benchmark", "--seeds", "2", "--runs-dir", str(tmp_path)])
    benchmark.main()
    said = capsys.readouterr().out
    assert len(workers.orders) == 2 * len(benchmark.arms())
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in said.splitlines() if line.startswith("|")]
    losses = {row[0]: row[3:] for row in rows if len(row) == 8}
    assert losses["AdamW, the baseline"] == ["2", "0", "3.4015", "0.0007", ""]
    assert losses["Muon"] == ["2", "0", "3.3015", "0.0007", "-0.1000 +- 0.0000"]
    assert losses["SGD"] == ["2", "2", "", "", "+inf"]
    seen = {row[0]: row[2] for row in rows if len(row) == 3}
    assert seen["SGD is much worse than AdamW"] == seen["AdamW is worse than Muon"] == "seen"
    assert seen["one rate of 1e-3 for all loses over 0.2"] == "NOT SEEN"
    benchmark.main()
    assert len(workers.orders) == 2 * len(benchmark.arms())  # all of it is kept
    assert capsys.readouterr().out == said


@pytest.mark.parametrize(
    ("mean", "error", "low", "high", "verdict"),
    [
        (0.3, 0.01, 0.2, math.inf, "seen"),
        (0.21, 0.01, 0.2, math.inf, "unclear"),
        (0.1, 0.01, 0.2, math.inf, "NOT SEEN"),
        (0.0, 0.01, -0.03, 0.03, "seen"),
        (0.1, 0.01, -0.03, 0.03, "NOT SEEN"),
        (0.3, math.nan, 0.2, math.inf, "one seed only"),
        (math.inf, math.nan, 0.2, math.inf, "seen"),
        (math.inf, math.nan, -0.03, 0.03, "NOT SEEN"),
    ],
)
def test_what_was_expected_is_seen_beyond_two_errors(
    benchmark: ModuleType, mean: float, error: float, low: float, high: float, verdict: str
) -> None:
    assert benchmark.judged(benchmark.Expectation("", "", "", low, high), mean, error) == verdict
