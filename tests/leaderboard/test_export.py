"""What is generated and kept in the repository is current, and read without pandas."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness.cli import board_site
from harness.errors import UserError
from harness.paths import ROOT
from leaderboard import export, store
from tests.evidence.board import Board


def test_generated_files_are_current() -> None:
    stale = [str(path) for path, text in export.generated().items() if not path.exists() or path.read_text() != text]
    assert not stale, "run: speedrun board export"


def test_reading_needs_neither_pandas_nor_numpy() -> None:
    code = (
        "import sys; from leaderboard import store, lifelines; s = store.load(); "
        "lifelines.lifelines(s.methods_of('nanogpt/1'), s.records_of('nanogpt/1')); "
        "sys.exit(bool({'pandas', 'numpy', 'torch'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_the_file_is_ascii_and_a_row_a_line() -> None:
    text = store.FILE.read_text()
    assert text.isascii()
    assert len(text.splitlines()) > len(json.loads(text)["records"])


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("nanogpt/1/41", "nanogpt/1/041"),
        ("nanogpt/41", "nanogpt/1/041"),
        ("nanogpt/3/046", "nanogpt/3/046"),
        ("nanogpt/1/21a", "nanogpt/1/021a"),
    ],
)
def test_records_are_found_by_their_names(name: str, found: str) -> None:
    assert store.load().record(name)["record"] == found


@pytest.mark.parametrize("name", ["nanogpt/1/999", "x", "../../etc/passwd", "nanogpt/1/\x1b"])
def test_a_name_of_no_record_is_an_error(name: str) -> None:
    with pytest.raises(UserError):
        store.load().record(name)


def test_a_file_of_another_version_is_refused(tmp_path) -> None:
    path = tmp_path / "leaderboard.json"
    path.write_text('{"schema": 99}')
    with pytest.raises(UserError, match="schema 99"):
        store.load(path)
    path.write_text("[]")
    with pytest.raises(UserError):
        store.load(path)


def test_a_record_that_was_filed_since_is_named(tmp_path) -> None:
    folder = tmp_path / "gcide/cpu-1thread/999-later"
    folder.mkdir(parents=True)
    (folder / "record.json").write_text("{}")
    assert store.load().not_listed(tmp_path) == ["gcide/cpu-1thread/999-later"]


def test_a_readme_without_markers_is_an_error() -> None:
    with pytest.raises(UserError, match="markers"):
        export.with_table("# no table", store.load())


@pytest.fixture
def checkout(board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of its own, whose records are those of `board`."""
    root = tmp_path / "checkout"
    (root / "docs").mkdir(parents=True)
    shutil.copy(ROOT / "pyproject.toml", root)
    (root / "README.md").write_text(f"# Ours\n\n{export.BEGIN}\n{export.END}\n")
    for module in (export, board_site):
        monkeypatch.setattr(module, "ROOT", root)
    monkeypatch.setattr(board_site, "RECORDS", board.where.records.resolve())
    monkeypatch.setattr(store, "FILE", root / "leaderboard.json")
    return root


def stale(board: Board) -> list[str]:
    files = export.generated(board.where.records)
    return [path.name for path, text in files.items() if not path.exists() or path.read_text() != text]


def test_submit_and_verify_renew_what_is_generated(board: Board, checkout: Path) -> None:
    done = board.invoke("submit", board.submission("adamw", 1.0), "--task", board.toy.task.path)
    assert done.exit_code == 0
    assert "board renewed, commit it too" in done.stderr and "README.md" in done.stderr
    assert stale(board) == []
    assert "| `toy/cpu-1thread` | 1 |" in (checkout / "README.md").read_text()
    assert board.invoke("verify", "toy/cpu-1thread/001").exit_code == 0
    assert stale(board) == []
    assert len(store.load(store.FILE).verifications) == 1


def test_an_attempt_is_on_the_board_before_its_first_run(board: Board, checkout: Path) -> None:
    seen: list[str] = []
    runner = board.runner

    def look(request: object) -> None:
        seen.extend(row["verdict"] for row in store.load(store.FILE).attempts)
        runner(request)

    board.runner = look
    board.submit(board.submission("adamw", 1.0))
    assert set(seen) == {"not decided yet"}


def test_what_cannot_be_renewed_is_a_warning(board: Board, checkout: Path) -> None:
    (checkout / "README.md").write_text("# no markers\n")
    done = board.invoke("submit", board.submission("adamw", 1.0), "--task", board.toy.task.path)
    assert done.exit_code == 0
    assert "the markers of the table of records are gone" in done.stderr and "speedrun board export" in done.stderr


def test_records_of_another_folder_are_on_no_board(board: Board) -> None:
    done = board.invoke("submit", board.submission("adamw", 1.0), "--task", board.toy.task.path)
    assert done.exit_code == 0 and "board renewed" not in done.stderr
