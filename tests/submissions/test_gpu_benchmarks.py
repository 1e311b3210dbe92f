"""The GPU benchmarks run where there is no GPU, at sizes that say nothing but that they run."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from harness.paths import ROOT
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
