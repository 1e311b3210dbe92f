"""Campaigns of these tests take a machine lock of their own: another campaign may be timed on this machine."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def own_machine_lock(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("lock")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
