"""Campaigns of these tests take a machine lock of their own: another campaign may be timed on this machine."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.checks import check
from harness.cli import campaigns
from harness.core.sandbox import SandboxProbe
from harness.evidence import attempts
from tests.conftest import Toy
from tests.evidence.board import Board


@pytest.fixture(autouse=True)
def own_machine_lock(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("lock")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder


@pytest.fixture
def board(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Board:
    made = Board(toy, tmp_path)
    monkeypatch.setattr(campaigns, "run_once", lambda request, on_event: made.runner(request))
    monkeypatch.setattr(check.Checker, "results", lambda self: iter(()))
    monkeypatch.setattr(attempts, "probe", lambda: SandboxProbe("isolated"))
    return made


@pytest.fixture
def chain(board: Board) -> Board:
    """A board with two records."""
    assert board.submit(board.submission("adamw", 1.0))["verdict"] == "record"
    assert board.submit(board.submission("my Muon!", 0.8))["verdict"] == "record"
    return board
