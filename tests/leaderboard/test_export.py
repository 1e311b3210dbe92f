"""What is generated and kept in the repository is current, and read without pandas."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from harness.errors import UserError
from harness.paths import ROOT
from leaderboard import export, store


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
    folder = tmp_path / "gcide/cpu-1thread/001-adamw"
    folder.mkdir(parents=True)
    (folder / "record.json").write_text("{}")
    assert store.load().not_listed(tmp_path) == ["gcide/cpu-1thread/001-adamw"]


def test_a_readme_without_markers_is_an_error() -> None:
    with pytest.raises(UserError, match="markers"):
        export.with_table("# no table", store.load())
