"""State by fault, on whole processes: the journal verifies, nothing is left running, the next run works."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from harness.journal import Journal, verify
from harness.paths import ROOT
from tests.conftest import Toy
from tests.toy_submission import SCRIPT, write_submission

pytestmark = pytest.mark.slow

WAIT = "import time; time.sleep(300)"
# Where the toy waits for the fault, by the state it is met in.
PLACES = {
    "set-up": ("    run.start(model)", f"    print('here', flush=True); {WAIT}"),
    "running": ("    run.finish(model)", f"    print('here', flush=True); {WAIT}"),
}
PLACES["judging"] = (
    "        return self.table(tokens)",
    f"        if not self.training: {WAIT}\n        return self.table(tokens)",
)


def descendants(process: subprocess.Popen) -> list[psutil.Process]:
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.Error:
        return []


def python_running(process: subprocess.Popen, *words: str) -> list[psutil.Process]:
    """The Python processes of a run whose command line holds all the words."""
    found = []
    for child in descendants(process):
        try:
            command = child.cmdline()
        except psutil.Error:
            continue
        inside = [part for part in command if "--ro-bind" not in part]
        if command and "bwrap" not in command[0] and "guard" not in " ".join(inside[:3]):
            found += [child] if all(any(word in part for part in inside) for word in words) else []
    return found


def wait_for(found: Callable[[], object], seconds: float = 40) -> None:
    deadline = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < deadline, "the run did not get there"
        time.sleep(0.05)


def start_run(toy: Toy, runs: Path, submission: Path) -> subprocess.Popen:
    arguments = ["run", submission, "--task", toy.task.path, "--data-dir", toy.data_dir, "--runs-dir", runs]
    command = [sys.executable, "-m", "harness.cli.main", *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def reach(process: subprocess.Popen, runs: Path, place: str) -> None:
    if place == "judging":
        wait_for(lambda: python_running(process, "harness.core.judge") and python_running(process, "model_host"))
        time.sleep(4)  # the host imports torch and loads the weights
    else:
        wait_for(lambda: any("here" in path.read_text() for path in runs.glob("*/output.txt")) or _printed(process))


def _printed(process: subprocess.Popen) -> bool:
    """The output file is buffered; a script that waits has stopped using CPU time after its imports."""
    scripts = python_running(process, "train.py")
    return bool(scripts) and all(s.status() == psutil.STATUS_SLEEPING and s.cpu_times().user > 1 for s in scripts)


@pytest.mark.parametrize("place", ["set-up", "running", "judging"])
@pytest.mark.parametrize(
    "fault", ["kill the referee", "kill the script", "kill the judge", "interrupt", "interrupt twice"]
)
def test_fault(toy: Toy, tmp_path: Path, place: str, fault: str) -> None:
    if (fault, place) in {("kill the judge", "set-up"), ("kill the judge", "running"), ("kill the script", "judging")}:
        pytest.skip("there is none in this state")
    runs = tmp_path / "runs"
    submission = write_submission(tmp_path / "bigram", SCRIPT.replace(*PLACES[place]))
    process = start_run(toy, runs, submission)
    try:
        reach(process, runs, place)
        children = descendants(process)
        assert children
        inject(fault, process)
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    wait_for(lambda: not [child for child in children if child.is_running()], 20)
    check_journal(fault, runs, output, process.returncode)
    plain = start_run(toy, runs, write_submission(tmp_path / "plain"))
    assert plain.wait(60) == 0
    assert verify(runs / "journal.jsonl").ok


def inject(fault: str, process: subprocess.Popen) -> None:
    if fault == "kill the referee":
        process.kill()
    elif fault == "kill the script":
        for script in python_running(process, "train.py"):
            script.kill()
    elif fault == "kill the judge":
        for judge in python_running(process, "harness.core.judge"):
            judge.kill()
    else:
        for _ in range(1 + ("twice" in fault)):
            os.kill(process.pid, signal.SIGINT)


def check_journal(fault: str, runs: Path, output: str, status: int) -> None:
    entries = Journal(runs / "journal.jsonl").entries()
    assert verify(runs / "journal.jsonl").ok
    if fault in ("kill the referee", "interrupt twice"):
        assert entries[0].event == "start"
        return
    assert [entry.event for entry in entries] == ["start", "end"]
    if fault == "interrupt":
        assert status == 130
        assert "interrupted" in output
    else:
        assert status == 1
        assert "FAILED" in output
