"""What a child takes too much of is a named failure, on every rung, and nothing of it is left behind."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from harness.core import child as child_module
from harness.core import limits
from harness.core.failures import Failure
from harness.core.referee import Referee
from harness.core.sandbox import NO_LIMITS
from tests.conftest import Toy
from tests.core.boxes import Box, open_folder
from tests.core.children import Toys

RUNGS = ["bubblewrap", "user", "landlock", "guard"]
MIB = 1 << 20


@pytest.fixture(params=RUNGS)
def box(request: pytest.FixtureRequest) -> Iterator[Box]:
    with open_folder() as folder:
        yield Box(folder, request.param)


@pytest.fixture(params=["control group", "sampled"])
def counted(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to count; without a control group the first is skipped, since it would be the second."""
    if request.param == "sampled":
        monkeypatch.setattr(child_module, "find_parent", lambda: None)
    elif child_module.find_parent() is None:
        pytest.skip("no control group can be made here")


def left_behind(marker: str) -> list[psutil.Process]:
    """What still runs, after a while for the kernel to take down what it has killed."""
    deadline = time.monotonic() + 20
    while found := [p for p in psutil.process_iter(["cmdline"]) if marker in (p.info["cmdline"] or [])]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.1)
    return found


BOMB = """
import os, sys
os.execv(sys.executable, [sys.executable, "-S", "-c", '''
import os, signal, time
for number in (1, 2, 15):
    signal.signal(number, signal.SIG_IGN)
for level in range(9):  # doubles to 512 processes and no further, for the sake of whoever shares the machine
    try:
        if os.fork() == 0 and level % 2:
            os.setsid()
    except OSError:
        time.sleep(0.1)
while True:  # then each of them forks on, so that the killer has to hit what moves
    try:
        if os.fork() == 0:
            os._exit(0)
        os.wait()
    except OSError:
        time.sleep(0.1)
''', "MARKER"])
"""


@pytest.mark.usefixtures("counted")
def test_a_fork_bomb_is_named_and_leaves_nothing(box: Box, request: pytest.FixtureRequest) -> None:
    marker = f"bomb-{os.getpid()}-{request.node.name}"
    failed = box.run(BOMB.replace("MARKER", marker), limits=replace(NO_LIMITS, tasks=100))
    assert failed is not None and failed.reason is Failure.PROCESS_CAP
    assert left_behind(marker) == []


@pytest.mark.usefixtures("counted")
def test_processes_left_behind_end_with_the_run(box: Box, request: pytest.FixtureRequest) -> None:
    marker = f"left-{os.getpid()}-{request.node.name}"
    script = "import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)', "
    assert box.run(script + f"{marker!r}], start_new_session=True)") is None
    assert left_behind(marker) == []


def test_memory_past_the_cap_is_named(box: Box) -> None:
    script = (
        "import time\nkept = bytearray(400 * 2**20)\nfor i in range(0, len(kept), 4096): kept[i] = 1\ntime.sleep(60)"
    )
    failed = box.run(script, limits=replace(NO_LIMITS, memory_bytes=300 * MIB))
    assert failed is not None and failed.reason is Failure.MEMORY_CAP


def test_a_scratch_folder_past_the_cap_is_named(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_module, "SCRATCH_SECONDS", 0.1)
    script = "import time\nfor i in range(8): open(f'{i}', 'wb').write(bytes(2**20))\ntime.sleep(60)"
    failed = box.run(script, limits=replace(NO_LIMITS, scratch_bytes=4 * MIB))
    assert failed is not None and failed.reason is Failure.DISK_CAP


def test_a_single_file_cannot_grow_past_the_cap(box: Box) -> None:
    tried = "[tried(lambda: open('big', 'wb').write(bytes(2**21))), os.stat('big').st_size]"
    assert box(tried, limits=replace(NO_LIMITS, file_bytes=MIB)) == ["OSError", MIB]


def test_a_memory_file_cannot_grow_past_the_cap(box: Box) -> None:
    tried = "tried(lambda: os.ftruncate(os.memfd_create('x'), 2**21))"
    assert box(tried, limits=replace(NO_LIMITS, file_bytes=MIB)) == "OSError"


def test_private_memory_folders_are_capped_in_bubblewrap(tmp_path: Path) -> None:
    box = Box(tmp_path, "bubblewrap")
    fill = "[tried(lambda: open(p + '/big', 'wb').write(bytes(2**22))) for p in ('/tmp', '/dev/shm')]"
    assert box(fill, limits=replace(NO_LIMITS, shared_memory_bytes=MIB)) == ["OSError"] * 2


@pytest.mark.parametrize("rung", RUNGS)
def test_the_referee_names_a_forking_child(toy: Toy, rung: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_folder() as folder:
        toys = Toys(toy, folder, Box(folder, rung).level, monkeypatch)
        marker = f"toy-{os.getpid()}-{rung}"
        monkeypatch.setitem(limits.TASKS, ("run", False), 100)
        outcome = Referee(replace(toys.plan(BOMB.replace("MARKER", marker)), rung=rung)).run()
        assert outcome.reason is Failure.PROCESS_CAP, outcome.message
        assert left_behind(marker) == []


@pytest.mark.usefixtures("counted")
def test_a_script_that_kills_its_guard_ends_too(
    toy: Toy, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = f"guardless-{os.getpid()}-{request.node.name}"
    script = f"""
run = connect_run()
helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", {marker!r}], start_new_session=True)
time.sleep(2)  # long enough to have been seen
os.kill(os.getppid(), signal.SIGKILL)
time.sleep(600)
"""
    with open_folder() as folder:
        toys = Toys(toy, folder, Box(folder, "guard").level, monkeypatch)
        outcome = Referee(replace(toys.plan(script), rung="guard")).run()
        assert outcome.reason is Failure.CRASH
        assert "the script was killed (SIGKILL)" in outcome.message
        assert left_behind(marker) == []
        assert left_behind(str(folder / "run1" / "source" / "train.py")) == []


@pytest.mark.parametrize("rung", RUNGS)
def test_an_honest_run_passes_on_every_rung(toy: Toy, rung: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_folder() as folder:
        toys = Toys(toy, folder, Box(folder, rung).level, monkeypatch)
        script = "run = connect_run()\nstart(run)\nrun.stream.take(100)\nfinish(run)\n"
        outcome = Referee(replace(toys.plan(script), rung=rung)).run()
        assert (outcome.state, outcome.reason) == ("JUDGED", None), outcome.message
