"""A sound journal that many tests damage."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.journal.chains import fill


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("journals")


@pytest.fixture(scope="module")
def written(folder: Path) -> bytes:
    """A sound journal of four finished runs, eight lines."""
    return fill(folder / "sound.jsonl")
