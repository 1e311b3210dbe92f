"""What a task file may say: contradictions are errors that name the field."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.core.task import Task, load_task
from harness.errors import UserError
from harness.paths import TASKS


def changed(name: str, tmp_path: Path, *changes: tuple[str, str]) -> Task:
    """A task of the harness with its text changed."""
    text = (TASKS / f"{name}.toml").read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = tmp_path / f"{name}.toml"
    path.write_text(text)
    return load_task(path)


CONTRADICTIONS = {
    "free order": ("fineweb-small", ('order = "sequential"', 'order = "free"'), "order = 'sequential'"),
    "shards in the file": (
        "fineweb-small",
        ("[synthetic]", f'[[shards]]\nfile = "a.bin"\nsplit = "train"\ntokens = 1\nsha256 = "{"0" * 64}"\n[synthetic]'),
        "has its shards in its lock file",
    ),
    "a revision": (
        "fineweb-small",
        ('name = "fineweb-small"', 'name = "fineweb-small"\nrevision = "main"'),
        "revision",
    ),
    "a path as lock": ("fineweb-small", ('lock = "', 'lock = "../'), "hub.lock"),
    "a path as repository": ("fineweb-small", ('"kjj0/', '"kjj0/../'), "hub.repository"),
    "steps uncounted": ("gcide", ('order = "free"', 'order = "free"\nstep_tokens = 5'), "step_tokens"),
    "bytes uncounted": ("gcide", ("text_bytes = 722027\n", ""), "documents and text_bytes"),
    "more scored than there is": (
        "gcide",
        ("max_length = 1024\n", "max_length = 1024\ntokens = 316389\n"),
        "only 316,389",
    ),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_a_contradiction_is_named(name: str, tmp_path: Path) -> None:
    task, change, message = CONTRADICTIONS[name]
    with pytest.raises(UserError, match=re.escape(message)):
        changed(task, tmp_path, change)


def test_the_fineweb_tasks_share_data_and_differ_in_what_counts() -> None:
    small, medium, steps = (load_task(f"fineweb-{name}") for name in ("small", "medium", "steps"))
    assert small.hub == medium.hub == steps.hub and small.tokenizer == medium.tokenizer == steps.tokenizer
    assert [task.target.val_loss for task in (small, medium, steps)] == [3.28, 2.92, 3.28]
    assert [task.step_tokens for task in (small, medium, steps)] == [None, None, 524_288]
    assert {task.evaluation.tokens for task in (small, medium, steps)} == {10_485_760}
    assert small.data_folder(Path("data")) == steps.data_folder(Path("data"))
