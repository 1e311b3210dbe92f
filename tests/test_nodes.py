"""Runs over several nodes, both of them on this machine: two commands that meet through torchrun."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.cli.main import app
from harness.core.sandbox import SandboxProbe
from harness.errors import UserError
from harness.paths import ROOT
from tests.conftest import Toy
from tests.toy_submission import SCRIPT, write_submission

DISTRIBUTED = SCRIPT.replace(
    "    run.start(model)",
    "    import torch.distributed as dist\n"
    "    dist.init_process_group('gloo')\n"
    "    model = torch.nn.parallel.DistributedDataParallel(model)\n"
    "    run.start(model)",
)


def free_port() -> int:
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        return tried.getsockname()[1]


def started(toy: Toy, folder: Path, submission: Path, *, port: int, node: int) -> subprocess.Popen[str]:
    arguments = [
        submission, "--class", "2xcpu-1thread", "--nodes", 2, "--node", node, "--meet", f"127.0.0.1:{port}",
        "--seed", 7, "--json",
        "--task", toy.task.path, "--data-dir", toy.data_dir, "--runs-dir", folder / f"runs-{node}",
    ]  # fmt: skip
    command = [sys.executable, "-m", "harness.cli.main", "run", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)


def both(toy: Toy, folder: Path, submission: Path) -> list[tuple[int, str, str]]:
    """Exit code, output and errors of node 0 and node 1."""
    port = free_port()
    nodes = [started(toy, folder, submission, port=port, node=node) for node in (0, 1)]
    said = [node.communicate(timeout=240) for node in nodes]
    return [(node.returncode, *texts) for node, texts in zip(nodes, said, strict=True)]


def test_two_nodes_train_one_model(sequential_toy: Toy, tmp_path: Path) -> None:
    (code, out, err), (other_code, other_out, other_err) = both(
        sequential_toy, tmp_path, write_submission(tmp_path / "bigram", DISTRIBUTED)
    )
    said = json.loads(out)
    assert (code, said["status"]) == (0, "JUDGED"), said["message"] + err
    assert said["tokens"] == 2 * 30 * 8 * 32  # the referee counts for both nodes
    assert said["trust"] in ("partial", "open")
    assert (other_code, other_out) == (0, "")
    assert "node 1 of 2 has finished" in other_err
    assert not list((tmp_path / "runs-1").glob("*-toy-*"))  # nothing is kept on the other node


def test_nodes_that_do_not_meet_before_the_start_are_told_how(sequential_toy: Toy, tmp_path: Path) -> None:
    (code, out, _), (other_code, _, other_err) = both(
        sequential_toy, tmp_path, write_submission(tmp_path / "bigram", SCRIPT)
    )
    assert (code, other_code) == (1, 1)
    assert "call torch.distributed.init_process_group before run.start" in json.loads(out)["message"]
    assert "call torch.distributed.init_process_group before run.start" in other_err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--node", "1"], "--node 1: there are 1"),
        (["--nodes", "2", "--seed", "7"], "the nodes need a place to meet (--meet is missing)"),
        (["--nodes", "2", "--seed", "7", "--meet", "here"], "(--meet here)"),
        (["--nodes", "2", "--seed", "7", "--meet", "here:70000"], "(--meet here:70000)"),
        (["--nodes", "2", "--seed", "7", "--meet", "here:29500"], "does not divide the 1 device(s) of cpu-1thread"),
        (["--nodes", "2", "--meet", "here:29500", "--class", "2xcpu-1thread"], "the nodes need one seed"),
    ],
)
def test_nodes_that_are_described_badly(arguments: list[str], message: str, toy: Toy, tmp_path: Path) -> None:
    submission = write_submission(tmp_path / "bigram", DISTRIBUTED)
    places = ["--task", toy.task.path, "--data-dir", toy.data_dir, "--runs-dir", tmp_path / "runs"]
    result = CliRunner().invoke(app, ["run", *map(str, [submission, *places, *arguments])])
    assert isinstance(result.exception, UserError)
    assert message in result.exception.message


def test_a_run_that_reaches_other_machines_is_never_isolated() -> None:
    for rung in ("bubblewrap", "user"):
        assert SandboxProbe("isolated", rung=rung).level_for(8, nodes=2) == "partial"
    assert SandboxProbe("isolated", rung="bubblewrap").level_for(8) == "isolated"
    assert SandboxProbe("open").level_for(8, nodes=2) == "open"
