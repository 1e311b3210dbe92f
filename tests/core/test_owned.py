"""Only what its owner has left behind is removed: never for its name, its age or somebody else's user id."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness.core import owned
from harness.core.owned import LOCK, Claim, TemporaryFolder, abandoned, remove_abandoned_temporaries

OWNER = """
import sys, time
from pathlib import Path
from harness.core.owned import Claim
claim = Claim(Path(sys.argv[1]))
print("claimed", flush=True)
time.sleep(600)
"""


@pytest.fixture
def left(tmp_path: Path) -> Path:
    """A folder whose owner was killed."""
    folder = tmp_path / "speedrun-left"
    folder.mkdir()
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(folder)], stdout=subprocess.PIPE)
    try:
        assert owner.stdout is not None and owner.stdout.readline() == b"claimed\n"
        assert list(abandoned([folder])) == [], "its owner lives"
    finally:
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        owner.stdout.close()
    return folder


def test_a_folder_is_abandoned_when_its_owner_was_killed(left: Path) -> None:
    assert list(abandoned([left])) == [left]


def test_two_do_not_tidy_one_folder_at_once(left: Path) -> None:
    for folder in abandoned([left]):
        assert list(abandoned([folder])) == []


def test_a_folder_without_a_lock_file_or_with_a_link_for_one_is_left_alone(left: Path, tmp_path: Path) -> None:
    plain, linked = tmp_path / "speedrun-plain", tmp_path / "speedrun-linked"
    for folder in (plain, linked):
        folder.mkdir()
        os.utime(folder, (0, 0))
    (linked / LOCK).symlink_to(left / LOCK)
    assert list(abandoned([plain, linked, tmp_path / "speedrun-nothing"])) == []


def test_a_folder_of_another_user_is_left_alone(left: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: left.stat().st_uid + 1)
    assert list(abandoned([left])) == []


def test_a_claim_ends_with_its_drop(tmp_path: Path) -> None:
    claim = Claim(tmp_path)
    assert list(abandoned([tmp_path])) == []
    claim.drop()
    claim.close()
    assert list(tmp_path.iterdir()) == []


def test_temporary_folders_of_killed_processes_are_removed_and_no_others(
    left: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owned.tempfile, "gettempdir", lambda: str(left.parent))
    (left / "deep" / "er").mkdir(parents=True)
    by_hand = left.parent / "speedrun-by-hand"
    by_hand.mkdir()
    with TemporaryFolder(inside=str(left.parent)) as in_use:
        remove_abandoned_temporaries()
        assert not left.exists()
        assert in_use.exists() and by_hand.exists()
    assert not in_use.exists()


def test_a_folder_that_cannot_be_claimed_is_not_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OSError, match="No space left"):
        TemporaryFolder(inside=str(tmp_path))
    assert list(tmp_path.iterdir()) == []
