"""The judge: the loss against float64, windows that cover every token once, and hosts that misbehave."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.core import judge as judge_module
from harness.core.failures import Failure, RunFailed
from harness.core.judge import Job, ask_judge
from harness.core.scoring import SLOTS, Windows, nats, score
from harness.core.slots import Slots, sealed_memory, slot_bytes


def reference_nats(logits: np.ndarray, targets: np.ndarray) -> float:
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=1, keepdims=True)
    return float((np.log(np.exp(wide).sum(axis=1)) - wide[np.arange(len(targets)), targets]).sum())


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 5000), st.integers(2, 70), st.floats(0.01, 80), st.integers(0, 2**31))
def test_loss_agrees_with_float64(count: int, columns: int, scale: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    logits = (scale * random.standard_normal((count, columns))).astype(np.float32)
    targets = random.integers(0, columns, count).astype(np.uint16)
    rounding = 1e-6 * max(1.0, scale) * count  # float32 carries seven digits of the largest logit
    assert nats(logits, targets) == pytest.approx(reference_nats(logits, targets), rel=1e-6, abs=rounding)


@settings(max_examples=100, deadline=None)
@given(st.integers(2, 500), st.integers(1, 7), st.integers(1, 40))
def test_windows_cover_every_token_once(count: int, batch: int, length: int) -> None:
    tokens = np.arange(count, dtype=np.uint16)
    windows = Windows(tokens, batch, length, end_of_text=999)
    inputs = np.empty((batch, length), np.int64)
    targets: list[int] = []
    for index in range(windows.batches):
        windows.fill(index, inputs)
        wanted = windows.targets(index)
        assert (inputs.reshape(-1)[: len(wanted)] == wanted.astype(int) - 1).all()
        assert (inputs.reshape(-1)[len(wanted) :] == 999).all()
        targets += wanted.tolist()
    assert targets == list(range(1, count))


class ToyHost:
    """Answers logits that give the right next token the probability it is told to."""

    def __init__(self, slots: Slots, columns: int, value: float = 0.0) -> None:
        self._slots, self._columns, self._value = slots, columns, value
        self.asked: list[int] = []

    def forward(self, slot: int) -> None:
        self.asked.append(slot)
        logits = self._slots.logits[slot]
        logits[:] = 0
        following = (self._slots.tokens[slot] + 1) % self._columns
        np.put_along_axis(logits, following[..., None], np.float32(self._value), axis=2)

    def wait(self, slot: int) -> None:
        pass


def judged(columns: int, value: float) -> float:
    tokens = (np.arange(1001) % 50).astype(np.uint16)
    descriptor = sealed_memory(SLOTS * slot_bytes(3, 7, columns))
    slots = Slots(descriptor, SLOTS, 3, 7, columns)
    windows = Windows(tokens, 3, 7, 0)
    total = score(ToyHost(slots, columns, value), slots, windows, range(windows.batches))
    return total / windows.scored


def test_uniform_logits_cost_the_log_of_the_columns() -> None:
    assert judged(50, 0.0) == pytest.approx(math.log(50))


def test_extra_columns_stay_in_the_softmax() -> None:
    assert judged(64, 0.0) == pytest.approx(math.log(64))


def test_other_logits_change_the_score() -> None:
    assert judged(50, 5.0) < judged(50, 1.0) < judged(50, 0.0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_are_a_named_outcome(value: float) -> None:
    with pytest.raises(RunFailed) as caught:
        judged(50, value)
    assert caught.value.reason is Failure.NOT_FINITE


def test_logits_are_read_once() -> None:
    class Changing(np.ndarray):
        """Memory whose second reading gives other values, as a host can arrange."""

        reads = 0

        def copy(self, order: str = "C") -> np.ndarray:
            Changing.reads += 1
            return np.asarray(self).copy(order)

        def max(self, *arguments: object, **keywords: object) -> np.ndarray:  # type: ignore[override]
            raise AssertionError("the host's memory was read a second time")

    logits = np.zeros((5, 7), np.float32).view(Changing)
    assert nats(logits, np.zeros(5, np.uint16)) == pytest.approx(5 * math.log(7))
    assert Changing.reads == 1


class Asked:
    """Asks a judge that is any program."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self._job = Job(
            task="", data_folder="", split="", source="", scratch="", output=str(folder), trust="", context={},
            weights=0, batch=1, length=1, threads=1, cpus=[], referee=os.getpid(),
        )  # fmt: skip
        self.kept = folder / "judge.txt"

    def __call__(self, code: str) -> str:
        """Why there is no judgement."""
        self._monkeypatch.setattr(judge_module, "COMMAND", [sys.executable, "-S", "-c", code])
        with pytest.raises(RunFailed) as caught:
            ask_judge(self._job, 60, lambda done, batches: None)
        assert caught.value.reason is Failure.JUDGE_CRASH
        return caught.value.message


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Asked:
    return Asked(tmp_path, monkeypatch)


def test_a_judge_that_crashes_is_kept_and_quoted(asked: Asked) -> None:
    assert asked("import sys; sys.stdin.read(); 1 / 0").endswith("its last line: ZeroDivisionError: division by zero")
    assert asked.kept.read_text().startswith("Traceback (most recent call last)")


def test_a_judge_that_never_reads_its_job_is_quoted_too(asked: Asked) -> None:
    assert asked("1 / 0").endswith("ZeroDivisionError: division by zero")


def test_a_judge_that_is_killed_is_named(asked: Asked) -> None:
    assert asked("import os; os.kill(os.getpid(), 9)") == (
        "the judge was killed (SIGKILL); its last line: it printed nothing"
    )


def test_what_a_judge_prints_is_bounded(asked: Asked) -> None:
    flood = (
        "import sys; sys.stdin.read(); [print('x' * 999, file=sys.stderr) for _ in range(5000)]; sys.exit('the end')"
    )
    assert asked(flood) == "the judge ended with status 1; its last line: the end"
    assert asked.kept.stat().st_size == judge_module.OUTPUT_BYTES
