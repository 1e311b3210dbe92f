"""A small tuning from end to end: workers, resuming, what stands in trials.csv."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.bundle import read_record
from harness.core.task import hardware_class
from harness.errors import UserError
from harness.evidence.locks import require_ready_machine
from harness.journal import Journal
from harness.paths import ROOT
from harness.submission import load_submission
from harness.tuning.search import scouts
from harness.tuning.trials import JUDGED, Trial
from harness.tuning.tune import Progress, Tuning, working_folder
from tests.conftest import Toy
from tests.toy_submission import SCRIPT
from tests.tuning.toy_tuning import PROTOCOL, place_of, write_tuning

TWO_CORES = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="two workers need two cores")


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "tuning" / "trials.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@TWO_CORES
def test_four_trials_by_two_workers(toy: Toy, tmp_path: Path) -> None:
    tuning = Tuning(write_tuning(toy, tmp_path / "bigram"))
    told: list[Progress] = []
    runs = tmp_path / "runs"
    tuning.run(["scout", "search"], place_of(toy, tuning.submission, runs, workers=2), told.append)

    rows = sorted(rows_of(tmp_path / "bigram"), key=lambda row: (row["stage"], row["number"]))
    assert [(row["stage"], row["number"]) for row in rows] == [
        ("scout", "0"), ("scout", "1"), ("search", "0"), ("search", "1"),
    ]  # fmt: skip
    assert [row["steps"] for row in rows] == ["15", "15", "30", "30"]
    for row in rows:
        record = read_record(runs / row["run_id"] / "run.json")
        assert record.val_loss == float(row["val_loss"])  # the judge's, to the last digit
        assert (record.seed, record.hparams["lr"]) == (int(row["seed"]), float(row["lr"]))
    assert rows[2]["lr"] in [row["lr"] for row in rows[:2]]  # the search began at the best scout
    assert [progress.stage_done for progress in told] == [1, 2, 1, 2]
    assert told[-1].best == min(tuning.table.of_stage("search"), key=lambda trial: trial.val_loss or 0)
    assert told[-1].left_seconds == 0


@TWO_CORES
def test_each_worker_keeps_to_its_own_core(toy: Toy, tmp_path: Path) -> None:
    submission = write_tuning(toy, tmp_path / "bigram")
    cores = place_of(toy, submission, tmp_path / "runs", workers=2).cores()
    assert len(cores) == 2 and not set(cores[0]) & set(cores[1])
    with pytest.raises(UserError, match="may use"):
        place_of(toy, submission, tmp_path / "runs", workers=len(os.sched_getaffinity(0)) + 1).cores()


@pytest.mark.slow
def test_a_killed_tuning_goes_on_with_the_same_trial(toy: Toy, tmp_path: Path) -> None:
    protocol = PROTOCOL.split("[stages.scout]")[0] + '[stages.search]\ntrials = 2\nfrom_scouts = 0\nknobs = ["lr"]\n'
    submission = write_tuning(toy, tmp_path / "bigram", protocol)
    runs = tmp_path / "runs"
    command = [
        sys.executable, "-m", "harness.cli.main", "tune", str(submission.folder), "--task", str(toy.task.path),
        "--data-dir", str(toy.data_dir), "--runs-dir", str(runs),
    ]  # fmt: skip
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    journal = Journal(runs / "journal.jsonl")
    while process.poll() is None and not journal.entries():
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    started = journal.entries()
    assert [entry.event for entry in started] == ["start"]
    assert not (submission.folder / "tuning" / "trials.csv").exists()

    tuning = Tuning(load_submission(submission.folder, toy.task))
    tuning.run(["search"], place_of(toy, submission, runs), lambda progress: None)
    assert [trial.job.number for trial in tuning.table.of_stage("search")] == [0, 1]
    first = read_record(runs / tuning.table.trials[0].run_id / "run.json")
    assert first.seed == started[0].facts["seed"]
    proposals = (runs / "tuning" / "toy-bigram" / "search.log").read_text().count('{"number":')
    assert proposals == 2  # the trial that was killed was run again, not proposed anew


@pytest.mark.slow
def test_ctrl_c_ends_the_run_and_keeps_it_in_the_journal(toy: Toy, tmp_path: Path) -> None:
    submission = write_tuning(toy, tmp_path / "bigram")
    tuning = Tuning(submission)

    def interrupt(progress: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tuning.run(["scout"], place_of(toy, submission, tmp_path / "runs"), interrupt)
    assert len(rows_of(submission.folder)) == 1
    again = Tuning(load_submission(submission.folder, toy.task))
    again.run(["scout"], place_of(toy, submission, tmp_path / "runs"), lambda progress: None)
    assert [row["number"] for row in rows_of(submission.folder)] == ["0", "1"]


@pytest.mark.slow
def test_a_diverged_trial_is_kept_without_a_loss(toy: Toy, tmp_path: Path) -> None:
    submission = write_tuning(toy, tmp_path / "bigram")
    bad = SCRIPT.replace(
        "    run.finish(model)", "    model.table.weight.data.fill_(float('nan'))\n    run.finish(model)"
    )
    (submission.folder / "train.py").write_text(bad)
    tuning = Tuning(load_submission(submission.folder, toy.task))
    tuning.run(["scout"], place_of(toy, tuning.submission, tmp_path / "runs"), lambda progress: None)
    rows = rows_of(submission.folder)
    assert [(row["val_loss"], row["status"]) for row in rows] == [("", "not-finite")] * 2


def test_another_source_cannot_go_on(toy: Toy, tmp_path: Path) -> None:
    submission = write_tuning(toy, tmp_path / "bigram")
    for job in scouts(Tuning(submission).design):
        Tuning(submission).table.add(Trial(job, 3.5, JUDGED, 1.0, "made-up"))
    script = submission.folder / "train.py"
    script.write_text("# a comment changes nothing\n" + SCRIPT)
    assert len(Tuning(load_submission(submission.folder, toy.task)).table.trials) == 2
    script.write_text(SCRIPT.replace("std=0.01", "std=0.02"))
    with pytest.raises(UserError, match="trials.csv: line 2 was made with another source"):
        Tuning(load_submission(submission.folder, toy.task))


def test_no_campaign_is_timed_beside_a_tuning(toy: Toy, tmp_path: Path) -> None:
    place = place_of(toy, write_tuning(toy, tmp_path / "bigram"), tmp_path / "runs")
    with working_folder(place), pytest.raises(UserError, match="each would slow the other: process .* tuning"):
        require_ready_machine(hardware_class("cpu-1thread"))


def test_only_one_process_tunes_a_submission(toy: Toy, tmp_path: Path) -> None:
    place = place_of(toy, write_tuning(toy, tmp_path / "bigram"), tmp_path / "runs")
    with working_folder(place), pytest.raises(UserError, match="another process tunes"), working_folder(place):
        pass
