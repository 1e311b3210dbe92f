"""Scripts inside a sandbox on a chosen rung, for the tests of what it keeps from them."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from harness.core.child import Child, split_cpus
from harness.core.failures import RunFailed
from harness.core.protocol import Listener
from harness.core.sandbox import LEVELS, NO_LIMITS, Sandbox, lack_for

LOOK = """
import ctypes, json, os, socket, sys
def tried(action):
    try:
        action()
        return "worked"
    except OSError as error:
        return type(error).__name__
def readable(path):
    try:
        os.listdir(path) if os.path.isdir(path) else open(path, "rb").read(1)
        return True
    except OSError:
        return False
libc = ctypes.CDLL(None, use_errno=True)
def called(number, *arguments):
    result = libc.syscall(number, *arguments)
    return os.strerror(ctypes.get_errno()) if result < 0 else "worked"
print(json.dumps(RESULT))
"""


@cache
def _lack(rung: str) -> str:
    return lack_for(rung)  # type: ignore[arg-type]


def require(rung: str) -> str:
    """The rung's trust level; skips the test, with the reason, where the rung does not work."""
    if _lack(rung):
        pytest.skip(f"rung {rung} does not work here: {_lack(rung)}")
    return LEVELS[rung]  # type: ignore[index]


@contextmanager
def open_folder() -> Iterator[Path]:
    """A temporary folder that other users may pass through, which pytest's own is not."""
    folder = Path(tempfile.mkdtemp(prefix="speedrun-test-")).resolve()
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


class Box:
    """Runs scripts on one rung, one at a time."""

    def __init__(self, folder: Path, rung: str) -> None:
        self.rung = rung
        self.level = require(rung)
        self.source = folder / "run" / "source"
        self.scratch = folder / "run" / "scratch"
        self.source.mkdir(parents=True)
        self.output = folder / "output.txt"

    def __call__(self, expression: str, **options: Any) -> Any:
        """The value of a Python expression inside; `options` go to the sandbox."""
        assert self.run(LOOK.replace("RESULT", expression), **options) is None
        return json.loads(self.output.read_text())

    def run(self, script: str, **options: Any) -> RunFailed | None:
        """Runs a script to its end, or to a limit it breaks."""
        shutil.rmtree(self.scratch, ignore_errors=True)
        self.scratch.mkdir()
        (self.source / "train.py").write_text(script)
        listener = Listener()
        settings = {"limits": NO_LIMITS, "rung": self.rung, **options}
        sandbox = Sandbox(self.level, self.source, self.scratch, threads=1, **settings)
        command = sandbox.command([sys.executable, str(self.source / "train.py")], listener)
        child = Child(
            command, sandbox.environment(listener), self.scratch, self.output, 1 << 20, split_cpus(1)[0],
            sandbox.limits, sandbox.user,
        )  # fmt: skip
        try:
            while child.exit_status() is None:
                child.pump_output()
                child.check_limits()
                time.sleep(0.01)
        except RunFailed as failed:
            return failed
        finally:
            child.close()
            listener.close()
        return None
