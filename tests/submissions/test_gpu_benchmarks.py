"""The GPU benchmarks run where there is no GPU, at sizes that say nothing but that they run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness.paths import RECORDS, ROOT
from tests.core.data.hub_corpus import VOCABULARY


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "arguments", "rows"),
    [
        ("triton_kernels", [], 6),
        ("judge_nats", [], 2),
        ("step_times", [], 4),
        ("rehearsals", ["--with", "baseline", "--gpt2-vocab", str(VOCABULARY)], 1),
    ],
)
def test_a_tiny_table(script: str, arguments: list[str], rows: int) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu" / f"{script}.py"), "--tiny", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    table = [line for line in done.stdout.splitlines() if line.startswith("|")]
    assert len(table) == 2 + rows
    assert len({line.count("|") for line in table}) == 1


def gcide(part: str, out: Path) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        str(ROOT / "benchmarks" / "gpu" / "gcide.py"),
        part,
        "--class",
        "64xZ9",
        "--out",
        str(out),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


@pytest.mark.parametrize("part", ["calibrate", "baseline", "race"])
def test_the_small_task_asks_for_a_gpu_that_is_there(part: str, tmp_path: Path) -> None:
    done = gcide(part, tmp_path)
    assert done.returncode == 1
    assert "of whole GPUs it has" in done.stderr or "speedrun data prepare gcide" in done.stderr


def test_the_table_of_the_small_task_has_a_line_for_each_arm(tmp_path: Path) -> None:
    shutil.copytree(RECORDS / "gcide" / "cpu-1thread", tmp_path / "records" / "gcide" / "cpu-1thread")
    table = [line for line in gcide("report", tmp_path).stdout.splitlines() if line.startswith("| baseline")]
    assert len(table) == 1 and "3.2236 (sd 0.0108)" in table[0]
