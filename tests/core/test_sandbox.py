"""What a child sees inside: one property a test. At trust level `open` none of this holds, and runs say so."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from harness.core.child import Child, split_cpus
from harness.core.protocol import Listener
from harness.core.sandbox import Sandbox, probe
from harness.paths import PACKAGE, ROOT

pytestmark = pytest.mark.skipif(probe().level != "isolated", reason="bubblewrap does not work here")

LOOK = """
import json, os, socket
def tried(action):
    try:
        action()
        return "worked"
    except OSError as error:
        return type(error).__name__
def visible(path):
    return os.path.exists(path)
print(json.dumps(RESULT))
"""


class Inside:
    """Evaluates one Python expression in a sandbox."""

    def __init__(self, folder: Path) -> None:
        self.source = folder / "run" / "source"
        self.scratch = folder / "run" / "scratch"
        self.source.mkdir(parents=True)
        self.scratch.mkdir()
        self.output = folder / "output.txt"

    def __call__(self, expression: str) -> object:
        (self.source / "train.py").write_text(LOOK.replace("RESULT", expression))
        listener = Listener()
        sandbox = Sandbox("isolated", self.source, self.scratch, threads=1)
        command = sandbox.command([sys.executable, str(self.source / "train.py")], listener)
        child = Child(command, sandbox.environment(listener), self.scratch, self.output, 1 << 20, split_cpus(1)[0])
        while child.exit_status() is None:
            child.pump_output()
        child.close()
        listener.close()
        return json.loads(self.output.read_text())


@pytest.fixture
def inside(tmp_path: Path) -> Inside:
    return Inside(tmp_path)


def test_neither_corpus_nor_records_nor_home_can_be_seen(inside: Inside, tmp_path: Path) -> None:
    (tmp_path / "run" / "secret").write_text("another run's")
    hidden = [
        ROOT / "data",
        ROOT / "runs",
        ROOT / "README.md",
        ROOT / "tests",
        tmp_path / "run" / "secret",
        "/root/.bashrc",
    ]
    paths = [str(path) for path in hidden]
    assert inside(f"[visible(p) for p in {paths}]") == [False] * len(paths)


def test_the_interpreter_the_harness_and_the_source_can_be_seen(inside: Inside) -> None:
    shown = [sys.prefix, str(PACKAGE / "core" / "run.py"), str(inside.source / "train.py")]
    assert inside(f"[visible(p) for p in {shown}]") == [True] * 3


def test_manuals_and_word_lists_are_not_there(inside: Inside) -> None:
    assert inside("visible('/usr/share')") is False


def test_there_is_no_network_but_loopback(inside: Inside) -> None:
    assert inside("socket.if_nameindex()") == [[1, "lo"]]


def test_source_and_harness_cannot_be_written(inside: Inside) -> None:
    targets = [str(inside.source / "x"), str(PACKAGE / "x"), str(Path(sys.prefix) / "lib" / "x")]
    assert inside(f"[tried(lambda: open(p, 'w')) for p in {targets}]") == ["OSError"] * 3
    assert not (PACKAGE / "x").exists()


def test_scratch_and_tmp_can_be_written_and_tmp_is_private(inside: Inside) -> None:
    mine = Path(f"/tmp/speedrun-test-{os.getpid()}")
    mine.write_text("outside")
    try:
        assert inside(f"[visible({str(mine)!r}), tried(lambda: open({str(mine)!r}, 'w'))]") == [False, "worked"]
        assert mine.read_text() == "outside"
    finally:
        mine.unlink()
    assert inside("tried(lambda: open('here', 'w'))") == "worked"
    assert (inside.scratch / "here").exists()


def test_other_processes_cannot_be_seen(inside: Inside) -> None:
    pids = inside("sorted(int(p) for p in os.listdir('/proc') if p.isdigit())")
    assert isinstance(pids, list) and len(pids) <= 3


def test_the_environment_is_an_allow_list(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    names = inside("sorted(os.environ)")
    assert isinstance(names, list)
    assert "AWS_SECRET_ACCESS_KEY" not in names
    assert {"PATH", "HOME", "OMP_NUM_THREADS", "SPEEDRUN_SOCKET", "SPEEDRUN_NONCE"} <= set(names)


def test_the_child_is_nobody_special(inside: Inside) -> None:
    assert inside("os.getuid()") == 1000


def test_the_run_is_pinned_to_the_cores_of_its_class(inside: Inside) -> None:
    assert inside("len(os.sched_getaffinity(0))") == 1
