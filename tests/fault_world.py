"""A runs folder and a temporary folder of their own for runs that are hurt, and what must hold of them afterwards."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from harness.cli.main import app
from harness.core.cgroup import find_parent
from harness.core.owned import LOCK
from harness.journal import Journal
from harness.paths import ROOT
from tests.conftest import Toy
from tests.toy_run import JUDGE, SLEPT, write_toy

PATIENCE = 120.0  # seconds; others may use this machine at the same time


def wait_for(found: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not found():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


@dataclass(frozen=True)
class Ended:
    """How a command ended and all that it printed."""

    status: int
    said: str


class World:
    """Starts toy runs in `folder`, finds their processes, and looks for what they leave."""

    def __init__(self, toy: Toy, folder: Path) -> None:
        self.folder = folder
        self.runs = folder / "runs"
        self.slept = folder / "slept"
        self._toy = toy
        self._temporaries = folder / "tmp"
        self._temporaries.mkdir()
        self._submission = write_toy(folder / "toy")
        self._pids: set[int] = set()
        self._memory_files: set[tuple[int, int]] = set()

    def start(self, *settings: str, hardware: str = "cpu-1thread", task: Path | None = None) -> subprocess.Popen[str]:
        """Starts a run; `settings` are those of tests/toy_run.py."""
        arguments: list[object] = ["run", self._submission, "--class", hardware, "--task", task or self._toy.task.path]
        arguments += ["--data-dir", self._toy.data_dir, "--runs-dir", self.runs]
        arguments += [word for setting in settings for word in ("--set", setting)]
        return subprocess.Popen(
            [sys.executable, "-m", "tests.toy_run", *map(str, arguments)],
            env={**os.environ, "TMPDIR": str(self._temporaries), SLEPT: str(self.slept)},
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip

    def reach(self, process: subprocess.Popen[str]) -> Path:
        """Waits until the run is where it was told to wait; the file that holds it there."""
        wait_for(lambda: self._here() or process.poll() is not None, "the run did not get there")
        assert process.poll() is None, process.communicate()[0]
        for one in self.processes():
            self._pids.add(one.pid)
            self._memory_files |= memory_files(one.pid)
        return self._here()[0]

    def end(self, process: subprocess.Popen[str]) -> Ended:
        """Waits for the end of the run and of every process of it."""
        said, _ = process.communicate(timeout=PATIENCE)
        wait_for(lambda: not self.processes(), f"still there: {self.processes()}")
        return Ended(process.returncode, said)

    def run(self, *settings: str, **options: object) -> Ended:
        """A run from start to end."""
        return self.end(self.start(*settings, **options))  # type: ignore[arg-type]

    def kill(self) -> None:
        """Ends what a failed test has left."""
        for process in self.processes():
            process.kill()

    # Processes

    def processes(self) -> list[psutil.Process]:
        """Every process of every run here: their environment or command line names this world's folder."""
        found = []
        for process in psutil.process_iter():
            try:
                words = [*process.cmdline(), *process.environ().values()]
            except psutil.Error:
                continue
            if any(str(self.folder) in word for word in words) and process.pid != os.getpid():
                found.append(process)
        return found

    def of(self, part: str) -> list[psutil.Process]:
        """`script`, `sandbox`, `rank`, `judge`, `build`, `host` or `shadow`."""
        return [process for process in self.processes() if self._part(process) == part]

    def _part(self, process: psutil.Process) -> str:
        command = process.cmdline()
        scratch = Path(process.environ().get("HOME", "")).name
        if JUDGE in command:
            return "judge"
        if "bwrap" in command[0] or "harness.core.guard" in command[:4]:
            return "sandbox"
        if command[-1].endswith("train.py"):
            return "rank" if process.environ().get("RANK") == "1" else "script"
        return scratch

    def _here(self) -> list[Path]:
        return list(self.runs.glob("*/scratch/*/here"))

    # What must hold afterwards

    def events(self) -> list[tuple[str, str | None]]:
        """The journal: event and status of each line."""
        return [(entry.event, entry.status) for entry in Journal(self.runs / "journal.jsonl").entries()]

    def verifies(self) -> bool:
        """Whether `speedrun journal verify` passes."""
        done = CliRunner().invoke(app, ["journal", "verify", str(self.runs / "journal.jsonl")])
        return done.exit_code == 0

    def left_behind(self) -> list[object]:
        """Processes, memory files, sockets, scratch folders, locks, half-written files and control groups."""
        patterns = ("*/scratch", f"*/{LOCK}*", "*/*.partial")
        files = [path for pattern in patterns for path in self.runs.glob(pattern)]
        held = self._memory_files & {file for pid in psutil.pids() for file in memory_files(pid)}
        parent = find_parent()
        groups = [group for pid in self._pids for group in parent.glob(f"speedrun-{pid}-*")] if parent else []
        return [*self.processes(), *held, *self._temporaries.iterdir(), *files, *groups]


def memory_files(pid: int) -> set[tuple[int, int]]:
    """Device and inode of the memory files that a process holds open."""
    found = set()
    try:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            if str(descriptor.readlink()).startswith("/memfd:"):
                status = descriptor.stat()
                found.add((status.st_dev, status.st_ino))
    except OSError:
        pass  # it ended while we looked
    return found


def send(processes: list[psutil.Process], number: int = signal.SIGKILL) -> None:
    """Sends a signal to each, of which there must be one."""
    assert processes, "no such process in this state"
    for process in processes:
        process.send_signal(number)


@contextmanager
def world_for(toy: Toy) -> Iterator[World]:
    """A world in a folder with a short path: sockets have paths of at most 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="faults-", dir="/tmp"))
    world = World(toy, folder)
    try:
        yield world
    finally:
        world.kill()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """A file system of its own in memory, of that size; the test is skipped where none can be mounted."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "none", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no small file system can be mounted: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def remount(folder: Path, option: str) -> None:
    """`ro` or `rw`."""
    subprocess.run(["mount", "-o", f"remount,{option}", str(folder)], check=True, capture_output=True)
