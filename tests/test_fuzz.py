"""Hostile files, at length: never a traceback, never a crash; always the one user error."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.bundle import read_record
from harness.core.task import load_task
from harness.errors import UserError
from harness.submission import load_submission
from tests.conftest import Toy
from tests.toy_submission import MANIFEST, SCRIPT

pytestmark = pytest.mark.slow
LONG = settings(
    max_examples=5000,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=8), children, max_size=4),
)


def mutated(text: str) -> st.SearchStrategy[bytes]:
    """Bytes near a valid file: a slice of it replaced by something else."""
    content = text.encode()
    place = st.integers(0, len(content))
    return st.tuples(
        place, place, st.binary(max_size=12) | st.sampled_from([b"=", b"[", b'"', b"\n", b"1e999", b"{"])
    ).map(lambda cut: content[: min(cut[:2])] + cut[2] + content[max(cut[:2]) :])


def allowed(read: Callable[[], object]) -> None:
    try:
        read()
    except UserError as error:
        assert error.message


@LONG
@given(mutated(MANIFEST))
def test_submission_toml(toy: Toy, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "train.py").write_text(SCRIPT)
    (tmp_path / "submission.toml").write_bytes(content)
    allowed(lambda: load_submission(tmp_path, toy.task))


@LONG
@given(st.data())
def test_task_toml(toy: Toy, tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "task.toml"
    path.write_bytes(data.draw(mutated(toy.task.path.read_text())))
    allowed(lambda: load_task(path))


@LONG
@given(st.binary(max_size=200) | values.map(lambda value: json.dumps(value).encode()))
def test_run_json(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "run.json"
    path.write_bytes(content)
    allowed(lambda: read_record(path))
