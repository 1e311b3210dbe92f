"""Cheats of the training script: before the clock, under it and after it, and what lies outside of the run."""

from __future__ import annotations

import os
import shutil
import socket
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from harness.core import clock
from harness.core.data import serve
from harness.core.referee import Referee
from tests.cheats.conftest import Cheats, load
from tests.conftest import Toy


def lines(printed: str, word: str) -> list[str]:
    """The lines that a script printed and that begin with a word."""
    return [line for line in printed.splitlines() if line.startswith(word)]


# Data


def test_the_validation_split_is_nowhere_to_be_found(toy: Toy, cheat: Cheats) -> None:
    assert len(load("searches_for_validation_data").found([toy.data_dir])) == 2
    assert lines(cheat.train("searches_for_validation_data").printed, "found") == ["found []"]


def test_no_other_process_can_be_read(cheat: Cheats) -> None:
    assert load("reads_proc").reached()
    reached = cheat.train("reads_proc").printed
    assert "harness" not in reached and "pytest" not in reached and "reached" in reached


def test_nothing_outside_answers(cheat: Cheats) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert "127.0.0.1" in load("calls_home").reached(port)
        assert lines(cheat.train("calls_home", settings=[f"port={port}"]).printed, "reached") == ["reached []"]


def test_the_referee_tells_no_loss_while_a_run_goes_on(cheat: Cheats) -> None:
    printed = cheat.train("asks_for_its_validation_loss").printed
    assert lines(printed, "was told") in ([], ["was told None"])  # the referee only closes the channel


def test_an_ordered_stream_is_taken_in_its_order(sequential_toy: Toy, cheat: Cheats) -> None:
    ran = cheat.train("reorders_the_stream", toy=sequential_toy)
    assert "cannot seek" in ran.printed


def test_weights_that_carry_the_corpus_are_refused(cheat: Cheats) -> None:
    assert "corpus hold" in cheat.train("corpus_in_weights").outcome.message


# Before the clock


def test_a_warm_up_that_leaves_a_trace_does_not_start(cheat: Cheats) -> None:
    assert "torch.manual_seed(run.seed)" in cheat.train("trains_before_the_clock").outcome.message


def test_a_warm_up_that_is_undone_is_honest(cheat: Cheats) -> None:
    assert cheat.train("honest_warm_up").outcome.state == "JUDGED"


def test_training_in_build_model_runs_into_its_cap(cheat: Cheats) -> None:
    assert "before run.start" in cheat.train("trains_in_build_model", setup_cpu_seconds=5).outcome.message


def test_the_compile_cache_carries_nothing_from_run_to_run(cheat: Cheats, tmp_path: Path) -> None:
    compiled = tmp_path / "compiled"
    for _ in range(2):
        ran = cheat.train("learns_across_runs_through_cache", compiled=compiled, compile_cpu_seconds=60)
        assert lines(ran.printed, "found") == ["found nothing"]
    assert list(compiled.rglob("*")) == []


def test_the_shards_are_read_before_the_clock_starts(
    sequential_toy: Toy, toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks: list[bytes] = []
    read = os.pread
    monkeypatch.setattr(serve.os, "pread", lambda *place: blocks.append(read(*place)) or blocks[-1])
    with ExitStack() as stack:
        serve.open_training(stack, sequential_toy.task, sequential_toy.data_dir / "toy")
        assert sum(map(len, blocks)) > 2 * 50_001
        copies = serve.open_training(stack, toy.task, toy.data_dir / "toy")  # handed out as copies in memory
        assert all(str(Path(f"/proc/self/fd/{copy.descriptor}").readlink()).startswith("/memfd:") for copy in copies)


# Under the clock


def test_the_clock_of_a_run_is_not_in_its_process(cheat: Cheats) -> None:
    ran = cheat.train("patches_clock")
    assert ran.outcome.seconds is not None and ran.outcome.seconds > 30 * 0.02
    assert ran.rows[-1]["seconds"] == 0
    assert "refused" in ran.printed


def test_every_step_and_what_lies_between_is_on_the_clock(cheat: Cheats) -> None:
    ran = cheat.train("leaves_steps_out_of_its_timing")
    claimed = ran.rows[-1]["train_seconds"]
    assert ran.outcome.seconds is not None and claimed is not None
    assert ran.outcome.seconds > 30 * 0.02 + claimed


def test_a_run_that_never_stops_is_stopped(cheat: Cheats, monkeypatch: pytest.MonkeyPatch) -> None:
    release = Referee._release

    def release_with_a_second_left(referee: Referee, *arguments: Any) -> None:
        release(referee, *arguments)
        referee._deadline = time.monotonic() + 1

    monkeypatch.setattr(Referee, "_release", release_with_a_second_left)
    monkeypatch.setattr(clock, "read_counters", lambda cpus: None)  # or the other tests' load might be blamed
    assert "in state RUNNING" in cheat.train("trains_past_the_time_limit").outcome.message


def test_no_process_of_a_run_gets_another_core(cheat: Cheats) -> None:
    ran = cheat.train("widens_affinity")
    assert lines(ran.printed, "cores") == ["cores 1"] * 2


def test_settings_in_the_environment_do_not_arrive(cheat: Cheats, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHEAT_STEPS", "3")
    ran = cheat.train("reads_settings_from_the_environment")
    assert "steps as written" in ran.printed
    assert ran.outcome.tokens == 30 * 8 * 32


# After the clock


def test_mapped_weights_are_not_judged(cheat: Cheats) -> None:
    assert "keeps them mapped" in cheat.train("keeps_weights_mapped").outcome.message


def test_what_a_thread_learns_after_the_stop_stays_out(cheat: Cheats) -> None:
    ran = cheat.train("thread_trains_during_export")
    assert lines(ran.printed, "refused") == ["refused"]


def test_a_lie_to_the_referee_gains_nothing(cheat: Cheats, honest_loss: float) -> None:
    assert cheat.run("patches_socket").loss > honest_loss + 1


def test_what_is_filed_is_what_ran(cheat: Cheats, tmp_path: Path) -> None:
    folder = Path(__file__).parent / "rewrites_what_is_filed"
    copy = tmp_path / "runs" / "here" / "source"
    shutil.copytree(folder, copy)
    written = load("rewrites_what_is_filed").exchange(copy)
    assert written == ["written"] * 4
    ran = cheat.train("rewrites_what_is_filed")
    assert (ran.folder / "source" / "train.py").read_text() == (folder / "train.py").read_text()
    assert not {"run.json", "log.jsonl"} & {path.name for path in ran.folder.iterdir()}
