"""State by fault, on whole processes with torch-free toys (tests/toy_run.py).

After each: the journal verifies, nothing of the run is left, the error says what happened, and the next run works. What
a referee that was killed leaves is tidied up by the next command, which also ends its run in the journal.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.conftest import Toy
from tests.fault_world import Ended, World, remount, send, small_disk, world_for

MIB = 1 << 20
BUNDLE_BYTES = MIB  # far above a bundle of the toy, whatever its script prints or logs


@pytest.fixture
def world(toy: Toy) -> Iterator[World]:
    with world_for(toy) as world:
        yield world


def check_aftermath(world: World, status: str) -> None:
    """What must hold when the run has ended by itself."""
    assert world.events() == [("start", None), ("end", status)]
    assert world.verifies()
    assert world.left_behind() == []
    check_next_run(world)


def check_next_run(world: World) -> None:
    before = len(world.events())
    following = world.run()
    assert following.status == 0, following.said
    assert world.events()[before:][-2:] == [("start", None), ("end", "JUDGED")]
    assert world.verifies()
    assert world.left_behind() == []


def hurt(world: World, place: str, fault: Callable[[subprocess.Popen[str]], None], **options: object) -> Ended:
    process = world.start(f"at={place}", **options)  # type: ignore[arg-type]
    here = world.reach(process)
    fault(process)
    here.unlink(missing_ok=True)
    return world.end(process)


def said_plainly(ended: Ended, words: str) -> bool:
    return words in ended.said and "Traceback" not in ended.said


# Killed: who, where the run is then, the run's end in the journal, and what the user is told.
KILLED = [
    ("script", "running", "crash", "the script was killed (SIGKILL)"),
    ("judge", "host", "judge-crash", "the judge was killed (SIGKILL)"),
    ("host", "host", "model-host-crash", "the model host was killed (SIGKILL)"),
    ("shadow", "shadow", "model-host-crash", "the shadow host was killed (SIGKILL)"),
]
MORE_KILLED = [
    ("script", "set-up", "crash", "the script was killed (SIGKILL)"),
    ("script", "exporting", "crash", "the script was killed (SIGKILL)"),
    ("sandbox", "running", "crash", "the script was killed (SIGKILL)"),
    ("build", "build", "model-host-crash", "the model host was killed (SIGKILL)"),
    ("host", "shadow", "model-host-crash", "the model host was killed (SIGKILL)"),
    ("shadow", "host", "model-host-crash", "the shadow host was killed (SIGKILL)"),
    ("judge", "shadow", "judge-crash", "the judge was killed (SIGKILL)"),
]


@pytest.mark.parametrize(
    ("part", "place", "status", "words"),
    [*KILLED, *(pytest.param(*case, marks=pytest.mark.slow) for case in MORE_KILLED)],
)
def test_a_process_of_the_run_is_killed(world: World, part: str, place: str, status: str, words: str) -> None:
    ended = hurt(world, place, lambda process: send(world.of(part)))
    assert ended.status == 1
    assert said_plainly(ended, words), ended.said
    assert world.events() == [("start", None), ("end", status)]
    assert world.verifies()
    check_next_run(world)


@pytest.mark.slow
@pytest.mark.parametrize("place", ["set-up", "running"])
def test_a_rank_is_killed(world: World, place: str) -> None:
    ended = hurt(world, place, lambda process: send(world.of("rank")), hardware="2xcpu-1thread")
    assert ended.status == 1
    assert said_plainly(ended, "rank 1") or said_plainly(ended, "the script ended with status 1"), ended.said
    assert world.events()[-1] in (("end", "crash"), ("end", "no-weights"))
    assert world.verifies()
    check_next_run(world)


@pytest.mark.parametrize(
    "place", ["running", *(pytest.param(place, marks=pytest.mark.slow) for place in ("set-up", "build", "host"))]
)
def test_the_referee_is_killed(world: World, place: str) -> None:
    hurt(world, place, lambda process: process.kill())
    assert world.events() == [("start", None)]
    assert world.verifies()
    following = world.run()
    assert following.status == 0, following.said
    assert "was killed before it ended" in following.said
    assert world.events() == [("start", None), ("end", "killed"), ("start", None), ("end", "JUDGED")]
    assert world.verifies()
    assert world.left_behind() == []


@pytest.mark.slow
def test_a_run_in_progress_is_not_taken_for_a_killed_one(world: World) -> None:
    process = world.start("at=running")
    here = world.reach(process)
    beside = world.start()
    assert beside.communicate(timeout=120)[0]
    assert beside.returncode == 0
    here.unlink()
    assert world.end(process).status == 0
    assert [event for event, _ in world.events()] == ["start", "start", "end", "end"]
    assert {status for event, status in world.events() if event == "end"} == {"JUDGED"}
    assert world.left_behind() == []


INTERRUPTS = [("running", (signal.SIGINT, signal.SIGINT))]
MORE_INTERRUPTS = [
    (place, signals)
    for place in ("set-up", "running", "build", "host")
    for signals in ((signal.SIGINT,), (signal.SIGTERM,), (signal.SIGINT, signal.SIGINT))
    if (place, signals) not in INTERRUPTS
]


@pytest.mark.parametrize(
    ("place", "signals"),
    [*INTERRUPTS, *(pytest.param(*case, marks=pytest.mark.slow) for case in MORE_INTERRUPTS)],
)
def test_the_user_interrupts(world: World, place: str, signals: tuple[signal.Signals, ...]) -> None:
    def interrupt(process: subprocess.Popen[str]) -> None:
        for number in signals:
            process.send_signal(number)
            time.sleep(0.02)  # two signals at the same instant are one

    ended = hurt(world, place, interrupt)
    assert ended.status == 130
    assert said_plainly(ended, "interrupted by the user"), ended.said
    check_aftermath(world, "interrupted")


@pytest.mark.slow
def test_a_third_interrupt_ends_at_once_and_the_next_command_tidies_up(world: World) -> None:
    def interrupt(process: subprocess.Popen[str]) -> None:
        send(world.of("sandbox"), signal.SIGSTOP)  # ending the run then takes long
        for _ in range(20):
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                time.sleep(0.05)

    ended = hurt(world, "running", interrupt)
    assert ended.status == -signal.SIGINT
    assert "once more ends it at once" in ended.said
    check_next_run(world)
    # On a busy machine the third may come when the end line stands already; then there is nothing left to tidy.
    assert world.events()[1] in {("end", "killed"), ("end", "interrupted")}


@pytest.mark.parametrize(
    ("does", "status", "words"),
    [
        ("forks", "process-cap", "it started more than the 100 processes and threads that are allowed"),
        pytest.param("fills memory", "memory-cap", "it took more than 150,000,000 bytes", marks=pytest.mark.slow),
    ],
)
def test_a_script_takes_too_much(world: World, toy: Toy, does: str, status: str, words: str) -> None:
    task = toy.task.path.with_name("toy-of-little-memory.toml")
    task.write_text(toy.task.path.read_text().replace("memory_bytes = 8589934592", "memory_bytes = 150000000"))
    ended = world.run(f"does={does}", task=task)
    assert ended.status == 1
    assert said_plainly(ended, words), ended.said
    check_aftermath(world, status)


@pytest.mark.slow
@pytest.mark.parametrize("does", ["prints", "logs"])
def test_a_script_that_floods_output_or_log_is_cut_and_judged(world: World, does: str) -> None:
    ended = world.run(f"does={does}")
    assert ended.status == 0, ended.said
    assert sum(file.stat().st_size for file in world.runs.rglob("*") if file.is_file()) < BUNDLE_BYTES
    check_aftermath(world, "JUDGED")


def test_the_scratch_folder_is_on_a_full_disk(world: World) -> None:
    with small_disk(world.runs, megabytes=4):
        ended = world.run("does=fills scratch")
        assert ended.status == 1
        assert "FAILED: crash" in ended.said
        assert "OSError: [Errno 28] No space left on device" in ended.said
        check_aftermath(world, "crash")


@pytest.mark.slow
def test_the_disk_fills_up_during_the_run(world: World) -> None:
    with small_disk(world.runs, megabytes=4):
        ended = hurt(world, "running", lambda process: fill(world.runs / "other"))
        assert ended.status == 1
        assert said_plainly(ended, "No space left on device"), ended.said
        assert "free space" in ended.said
        (world.runs / "other").unlink()
        check_next_run(world)
        assert world.events()[1] in (("end", "harness-error"), ("end", "killed"))


@pytest.mark.slow
def test_the_disk_is_full_before_the_run(world: World) -> None:
    with small_disk(world.runs, megabytes=4):
        fill(world.runs / "other")
        ended = world.run()
        assert ended.status == 1
        assert said_plainly(ended, "No space left on device"), ended.said
        (world.runs / "other").unlink()
        assert world.left_behind() == []
        check_next_run(world)


@pytest.mark.slow
def test_the_runs_folder_is_read_only(world: World) -> None:
    with small_disk(world.runs, megabytes=4):
        remount(world.runs, "ro")
        ended = world.run()
        assert ended.status == 1
        assert said_plainly(ended, "Read-only file system"), ended.said
        assert "--runs-dir" in ended.said
        remount(world.runs, "rw")
        assert world.left_behind() == []
        check_next_run(world)


@pytest.mark.slow
@pytest.mark.parametrize("stopped", ["script", "sandbox", "referee"])
def test_processes_are_stopped_and_go_on(world: World, stopped: str) -> None:
    def stop(process: subprocess.Popen[str]) -> None:
        chosen = [psutil.Process(process.pid)] if stopped == "referee" else world.of(stopped)
        send(chosen, signal.SIGSTOP)
        time.sleep(1)
        send(chosen, signal.SIGCONT)

    ended = hurt(world, "running", stop)
    assert ended.status == 0, ended.said
    check_aftermath(world, "JUDGED")


@pytest.mark.slow
def test_the_machine_sleeps(world: World) -> None:
    ended = hurt(world, "running", lambda process: world.slept.touch())
    world.slept.unlink()
    assert ended.status == 1
    assert said_plainly(ended, "the machine slept for 30.0 s during the run"), ended.said
    check_aftermath(world, "suspended")


def fill(path: Path) -> None:
    """Leaves no byte free on the small disk that the path is on."""
    with path.open("wb", buffering=0) as file:
        try:
            for _ in range(64 * 256):  # 64 MB at most, on a disk of a few
                file.write(bytes(4096))
        except OSError:
            return
    raise AssertionError(f"{os.fspath(path)}: a disk that does not fill up")
