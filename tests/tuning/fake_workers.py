"""Workers that answer at once what a test says, in place of processes that train."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest

from harness.tuning import dispatch
from harness.tuning.worker import Answer, Order

ECHO = "import sys; sys.stdin.read(); sys.stdout.write(sys.argv[1])"


def answer(loss: float | None, status: str | None = None, run_id: str = "run") -> str:
    """What a worker says of a run."""
    return json.dumps(asdict(Answer(loss, status, "it ended so", 1.0, run_id)))


class FakeWorkers:
    """Takes the place of every worker process; `orders` are those given, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, say: Callable[[Order], str]) -> None:
        self.orders: list[Order] = []
        self._say = say
        self._popen = subprocess.Popen
        monkeypatch.setattr(dispatch, "subprocess", self)

    PIPE = subprocess.PIPE

    def Popen(self, command: list[str], **options: Any) -> Any:
        return _Fake(self, options)


class _Fake:
    """A process that is launched when its order is complete, since only then it is known what to say."""

    def __init__(self, workers: FakeWorkers, options: dict[str, Any]) -> None:
        self._workers, self._options = workers, options
        self.stdin: Any = self
        self._process: subprocess.Popen[bytes] | None = None
        self._written = b""
        self.stdout: Any = self

    def write(self, data: bytes) -> None:
        self._written += data

    def close(self) -> None:
        order = Order(**json.loads(self._written))
        self._workers.orders.append(order)
        said = self._workers._say(order)
        self._process = self._workers._popen(
            [sys.executable, "-S", "-c", ECHO, said], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )
        self.stdout = self._process.stdout

    @property
    def returncode(self) -> int | None:
        assert self._process is not None
        return self._process.returncode

    def communicate(self) -> tuple[bytes, bytes]:
        assert self._process is not None
        return self._process.communicate()

    def terminate(self) -> None:
        assert self._process is not None
        self._process.terminate()
