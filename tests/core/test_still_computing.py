"""Who computes at the seal is named: helpers and background threads, and nobody in an honest run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.core.sandbox import probe
from tests.conftest import Toy
from tests.core.children import HONEST, Toys

HELPER = """
run = connect_run()
start(run)
helper = subprocess.Popen([sys.executable, "-S", "-c", "CODE"])
time.sleep(0.5)
finish(run)
"""


@pytest.fixture
def toys(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Toys:
    return Toys(toy, tmp_path, probe().level, monkeypatch)


def test_a_busy_helper_is_named(toys: Toys) -> None:
    code = "open('/proc/self/comm', 'w').write('late-trainer')\nwhile True: pass".replace("\n", "\\n")
    outcome = toys.run(HELPER.replace("CODE", code))
    assert outcome.state == "JUDGED", outcome.message
    (named,) = outcome.still_computing
    assert named.name == "late-trainer"
    assert named.cpu_seconds > 0
    assert named.pid != os.getpid()


def test_a_thread_of_the_script_is_named(toys: Toys) -> None:
    thread = "def work():\n    while True: pass\nthreading.Thread(target=work, daemon=True).start()\n"
    outcome = toys.run(HONEST.replace("finish(run)", thread + "finish(run)"))
    assert len(outcome.still_computing) == 1, outcome.message


def test_a_helper_that_waits_is_not_named(toys: Toys) -> None:
    outcome = toys.run(HELPER.replace("CODE", "import time; time.sleep(60)"))
    assert (outcome.state, outcome.still_computing) == ("JUDGED", [])


@pytest.mark.parametrize("hardware", ["cpu-1thread", "2xcpu-1thread"])
def test_nobody_is_named_in_an_honest_run(toys: Toys, hardware: str) -> None:
    outcome = toys.run(HONEST, hardware)
    assert (outcome.state, outcome.still_computing) == ("JUDGED", [])
