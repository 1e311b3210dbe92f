"""Children never outlive the run, whatever happens to the referee: kill -9 included, with and without bubblewrap."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.conftest import Toy
from tests.core.boxes import open_folder, require

# A referee with a toy child that forks away three times over, ignoring every signal it can.
DRIVER = """
import signal
import sys
from dataclasses import replace
from pathlib import Path
import pytest
from tests.conftest import Toy
from tests.core.children import Toys
from harness.core.referee import Referee
from harness.core.task import load_task

signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell hands it on ignored
with pytest.MonkeyPatch.context() as monkeypatch:
    toy = Toy(load_task(sys.argv[1]), Path(sys.argv[2]))
    toys = Toys(toy, Path(sys.argv[3]), sys.argv[4], monkeypatch)
    script = '''
run = connect_run()
start(run)
code = (
    "import os, signal, time; [signal.signal(s, signal.SIG_IGN) for s in (1, 2, 15)]; "
    "os.fork(); os.setsid() if os.fork() == 0 else None; time.sleep(600)"
)
subprocess.Popen([sys.executable, "-c", code, "MARKER"], start_new_session=True)
time.sleep(1)
print("forked", flush=True)
time.sleep(600)
'''.replace("MARKER", sys.argv[5])
    print(Referee(replace(toys.plan(script), rung=sys.argv[6])).run(), flush=True)
"""


def marked(marker: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if marker in (process.info["cmdline"] or []):
            found.append(process)
    return found


def wait_until(condition, seconds: float = 20) -> bool:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.1)
    return False


@pytest.fixture
def folder() -> Iterator[Path]:
    with open_folder() as folder:
        yield folder


@pytest.mark.parametrize("rung", ["bubblewrap", "user", "guard"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_no_process_outlives_a_killed_referee(toy: Toy, folder: Path, rung: str, number: signal.Signals) -> None:
    level = require(rung)
    marker = f"marker-{os.getpid()}-{rung}-{number}"
    arguments = [str(toy.task.path), str(toy.data_dir), str(folder), level, marker, rung]
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, *arguments], stdout=subprocess.PIPE, text=True)
    try:
        assert wait_until(lambda: len(marked(marker)) >= 3), "the toy child did not fork"
        driver.send_signal(number)
        driver.wait(30)
        assert wait_until(lambda: not marked(marker)), marked(marker)
    finally:
        driver.kill()
        for process in marked(marker):
            process.kill()
