"""Dry runs under the real referee: they end by themselves, whatever the script does around its reads."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from harness.checks.runs import Trial, Trials
from harness.core.task import hardware_class
from harness.submission import load_submission
from tests.conftest import Toy
from tests.toy_submission import MANIFEST, SCRIPT, write_submission

READ = "        inputs, targets = run.stream.next(8, 32)\n"
LOOP = '    for step in range(run.hparam("steps")):\n'
ENDLESS = MANIFEST.replace("default = 30", "default = 1_000_000").replace("high = 1000\n", "high = 1_000_000\n")


def dry_run(toy: Toy, folder: Path, script: str, hardware: str = "cpu-1thread", steps: int = 3) -> Trial:
    submission = load_submission(write_submission(folder / "submission", script, ENDLESS), toy.task)
    return Trials(submission, hardware_class(hardware), folder / "trials").dry_run([], steps)


def tokens_of(trial: Trial) -> int | None:
    assert trial.judged, trial.outcome.message
    assert trial.changed_parameters == 1
    assert trial.outcome.judgement is not None
    assert math.isfinite(trial.outcome.judgement["val_loss"])
    return trial.outcome.tokens


def test_the_run_ends_after_its_reads(toy: Toy, tmp_path: Path) -> None:
    assert tokens_of(dry_run(toy, tmp_path, SCRIPT)) == 3 * 8 * 32


def test_a_script_that_catches_exceptions_ends_too(toy: Toy, tmp_path: Path) -> None:
    caught = f"        try:\n    {READ}        except Exception:\n            pass\n"
    assert tokens_of(dry_run(toy, tmp_path, SCRIPT.replace(READ, caught))) == 3 * 8 * 32


def test_a_script_that_reads_ahead_in_a_thread_ends_too(toy: Toy, tmp_path: Path) -> None:
    ahead = (
        "    import queue, threading\n"
        "    batches = queue.Queue(maxsize=1)\n"
        "    def read():\n"
        "        while True: batches.put(run.stream.next(8, 32))\n"
        "    threading.Thread(target=read, daemon=True).start()\n"
    )
    script = SCRIPT.replace(LOOP, ahead + LOOP).replace(READ, "        inputs, targets = batches.get()\n")
    assert tokens_of(dry_run(toy, tmp_path, script, steps=8)) == 8 * 8 * 32


def test_a_script_that_maps_the_shards_ends_by_its_log(toy: Toy, tmp_path: Path) -> None:
    mapped = (
        "        window = torch.from_numpy(run.stream.shards[1][step * 256 : step * 256 + 257].astype('int64'))\n"
        "        inputs, targets = window[:-1].view(8, 32), window[1:].view(8, 32)\n"
    )
    assert tokens_of(dry_run(toy, tmp_path, SCRIPT.replace(READ, mapped))) == 0


def test_the_order_of_the_task_is_kept(sequential_toy: Toy, tmp_path: Path) -> None:
    trial = dry_run(sequential_toy, tmp_path, SCRIPT)
    assert tokens_of(trial) == 3 * 8 * 32
    assert trial.outcome.tokens_counted_by == "referee"


def test_all_ranks_end(toy: Toy, tmp_path: Path) -> None:
    assert tokens_of(dry_run(toy, tmp_path, SCRIPT, hardware="2xcpu-1thread")) == 2 * 3 * 8 * 32


@pytest.mark.parametrize("steps", [0, 2])
def test_a_script_that_ends_earlier_finishes_by_itself(toy: Toy, tmp_path: Path, steps: int) -> None:
    trial = dry_run(toy, tmp_path, SCRIPT.replace('range(run.hparam("steps"))', f"range({steps})"))
    assert trial.judged, trial.outcome.message
    assert trial.outcome.tokens == steps * 8 * 32
    assert trial.changed_parameters == (1 if steps else 0)
