"""Torch-free toy children: scripts that speak the protocol themselves, so that every order can be tried."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.core import clock
from harness.core import referee as referee_module
from harness.core.clock import Counters
from harness.core.plan import Event, Outcome, Plan
from harness.core.referee import Referee
from harness.core.task import hardware_class
from harness.core.weights import TensorSpec
from tests.conftest import Toy

SPEC = TensorSpec("weight", (4,), "F32")
DIGEST = "toy"

# What every toy script begins with. `run` is a real Run without a model: start and finish are spelled out.
PRELUDE = """
import os, sys, time, threading, subprocess, mmap, signal
from harness.core.run import connect_run
SPEC = {"name": "weight", "shape": [4], "dtype": "F32", "alias_of": None}

def ready(run, digest="toy", specs=(SPEC,)):
    run._channel.send("tensors", items=list(specs))
    run._channel.send("ready", digest=digest, consulted=[])

def start(run, **changes):
    ready(run, **changes)
    answer = run._expect("start")
    run._stream, run._state = run._open_stream(answer), "running"
    run._started = time.monotonic()
    return answer

def export(run):
    os.pwrite(run._weights_descriptor, b"\\0" * 16, os.fstat(run._weights_descriptor).st_size - 16)

def finish(run):
    if run.rank == 0:
        export(run)
    run._channel.send("finished", tokens=run.stream.position, export_seconds=0.0)
    run._expect("sealed")
    run._send_rows(wait=True)
    run._channel.send("closing", consulted=[])
"""

HONEST = """
run = connect_run()
start(run)
run.stream.take(100)
run.log(step=1, loss=2.5)
finish(run)
"""


class FakeHost:
    """Stands for the fresh build: it says at once what an honest script starts with."""

    def build(self) -> tuple[list[TensorSpec], str]:
        return [SPEC], DIGEST

    def load(self, weights: int, batch: int, length: int) -> int:
        return 64

    def close(self) -> None:
        pass


def fake_judgement(*_: Any) -> dict[str, Any]:
    return {"val_loss": 1.0, "bits_per_byte": 2.0}


class Toys:
    """Runs a toy script under the real referee, with a stand-in for what would need torch."""

    def __init__(self, toy: Toy, folder: Path, trust: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self._toy = toy
        self._folder = folder
        self._trust = trust
        self._count = 0
        self.events: list[Event] = []
        self.compiled: Path | None = None
        self.counters: Counters | None = None  # what the kernel says of the run's CPUs, however busy the machine is
        monkeypatch.setattr(clock, "read_counters", lambda cpus: self.counters)
        monkeypatch.setattr(Referee, "_launch_host", lambda *_: FakeHost())
        monkeypatch.setattr(referee_module, "ask_judge", fake_judgement)

    def plan(self, script: str, hardware: str = "cpu-1thread", **caps: Any) -> Plan:
        self._count += 1
        folder = self._folder / f"run{self._count}"
        (folder / "source").mkdir(parents=True)
        (folder / "source" / "train.py").write_text(PRELUDE + script)
        task = self._toy.task
        if caps:
            task = task.model_copy(update={"caps": {"cpu": task.caps["cpu"].model_copy(update=caps)}})
        return Plan(
            task=task, hardware=hardware_class(hardware), source=folder / "source",
            data_folder=task.data_folder(self._toy.data_dir), folder=folder, trust=self._trust, seed=7,
            methods={}, hparams={}, batch=4, length=16, compiled=self.compiled,
        )  # fmt: skip

    def run(self, script: str, hardware: str = "cpu-1thread", **caps: Any) -> Outcome:
        self.events = []
        self.referee = Referee(self.plan(script, hardware, **caps), self.events.append)
        return self.referee.run()

    def states(self) -> list[str]:
        return [event.values["state"] for event in self.events if event.kind == "state"]
