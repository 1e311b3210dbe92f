"""The compile cache: filled by a launch that never sees data, copied for every later process, never written back."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from harness.core.failures import Failure
from harness.core.referee import Referee
from harness.core.sandbox import probe
from tests.conftest import Toy
from tests.core.children import HONEST, Toys

# Notes in the cache what each launch saw, as a compiler does; prints what it found there.
NOTES = """
from pathlib import Path
cache = Path(os.environ["TORCHINDUCTOR_CACHE_DIR"])
print("found", sorted(path.name for path in cache.glob("*")), flush=True)
cache.mkdir(parents=True, exist_ok=True)
(cache / "kernel").write_text("compiled")
run = connect_run()
start(run)
(cache / "seen").write_text(str(run.stream.take(10).tolist()))
finish(run)
"""


@pytest.fixture
def toys(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Toys:
    toys = Toys(toy, tmp_path, probe().level, monkeypatch)
    toys.compiled = tmp_path / "compiled" / "here"
    return toys


def output(toys: Toys) -> str:
    return (toys.referee._plan.folder / "output.txt").read_text()


def test_the_first_run_compiles_and_the_second_finds_it(toys: Toys) -> None:
    toys.run(NOTES, compile_cpu_seconds=30)
    assert toys.states() == ["COMPILING", "LAUNCHED", "READY", "RUNNING", "FINISHED", "JUDGED"]
    assert "found ['kernel']" in output(toys)
    toys.run(NOTES, compile_cpu_seconds=30)
    assert toys.states() == ["LAUNCHED", "READY", "RUNNING", "FINISHED", "JUDGED"]
    assert "found ['kernel']" in output(toys)


def test_of_two_first_runs_side_by_side_the_one_that_comes_second_goes_on(
    toys: Toys, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch_host = Referee._launch_host

    def launch_after_another_run(referee: Referee, purpose: str, *arguments: Any) -> Any:
        if purpose == "compile-host" and toys.compiled is not None:
            toys.compiled.mkdir(parents=True)
            (toys.compiled / "kernel").write_text("compiled by the other run")
        return launch_host(referee, purpose, *arguments)

    monkeypatch.setattr(Referee, "_launch_host", launch_after_another_run)
    assert toys.run(NOTES, compile_cpu_seconds=30).state == "JUDGED"
    assert toys.compiled is not None and (toys.compiled / "kernel").read_text() == "compiled by the other run"


def test_nothing_learned_in_a_run_is_in_the_cache_of_the_next(toys: Toys) -> None:
    for _ in range(2):
        assert toys.run(NOTES, compile_cpu_seconds=30).state == "JUDGED"
        assert toys.compiled is not None
        assert sorted(path.name for path in toys.compiled.rglob("*")) == ["inductor", "kernel"]


def test_compiling_has_a_cap_of_its_own(toys: Toys) -> None:
    burns = "end = time.process_time() + 3\nwhile time.process_time() < end: pass\n" + HONEST
    outcome = toys.run(burns, compile_cpu_seconds=1, setup_cpu_seconds=60)
    assert outcome.reason is Failure.SETUP_CAP
    assert "compilation before the run" in outcome.message
    assert toys.compiled is not None and not toys.compiled.exists()


def test_set_up_of_a_timed_run_may_not_use_the_cap_of_compilation(toys: Toys) -> None:
    burns = "end = time.process_time() + 3\nwhile time.process_time() < end: pass\n" + HONEST
    outcome = toys.run(burns, compile_cpu_seconds=60, setup_cpu_seconds=1)
    assert toys.states() == ["COMPILING", "LAUNCHED", "FAILED"]
    assert outcome.reason is Failure.SETUP_CAP
    assert "set-up before run.start" in outcome.message


def test_a_script_that_fails_while_compiling_fails_the_run(toys: Toys) -> None:
    outcome = toys.run("sys.exit(3)", compile_cpu_seconds=30)
    assert outcome.reason is Failure.CRASH
    assert toys.compiled is not None and not os.path.lexists(toys.compiled)


def test_without_a_cache_both_caps_count_together(toys: Toys) -> None:
    toys.compiled = None
    burns = "end = time.process_time() + 2\nwhile time.process_time() < end: pass\n" + HONEST
    assert toys.run(burns, compile_cpu_seconds=30, setup_cpu_seconds=1).state == "JUDGED"
    assert toys.states()[0] == "LAUNCHED"
