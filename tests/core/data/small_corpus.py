"""A seconds-sized task with a corpus of its own: a wheel of made-up entries, tokenizer and pinned shards."""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.core.data.pinning import pin_shards, train_tokenizer
from harness.core.task import Task, load_task
from harness.paths import TASKS

WHEEL = "small_corpus-1.0-py3-none-any.whl"
ENTRIES = 400
VOCABULARY = 320


@dataclass(frozen=True)
class SmallCorpus:
    """The task and the wheel its corpus pins."""

    task: Task
    wheel: Path


def make_small_corpus(folder: Path) -> SmallCorpus:
    """Writes wheel and task file under `folder`, then trains and pins as a maintainer would."""
    wheel = folder / WHEEL
    write_wheel(wheel, small_entries())
    content = wheel.read_bytes()
    text = (TASKS / "gcide.toml").read_text()
    changes = {
        'name = "gcide"': 'name = "small"',
        r"file = \".*\.whl\"": f'file = "{WHEEL}"',
        r"bytes = 10638780": f"bytes = {len(content)}",
        r"1833c1b[0-9a-f]+": hashlib.sha256(content).hexdigest(),
        r"gcide\.tiktoken": "small.tiktoken",
        r"vocab_size = 1024": f"vocab_size = {VOCABULARY}",
        r"end_of_text = 1023": f"end_of_text = {VOCABULARY - 1}",
    }
    for pattern, replacement in changes.items():
        text, count = re.subn(pattern, replacement, text)
        assert count == 1, pattern
    path = folder / "small.toml"
    path.write_text(text)
    task = train_tokenizer(load_task(path), content, lambda message: None)
    return SmallCorpus(pin_shards(task, content, lambda message: None), wheel)


def write_wheel(path: Path, entries: dict[str, dict]) -> None:
    """A wheel laid out as the dictionary's; the same entries give the same bytes."""
    with zipfile.ZipFile(path, "w") as archive:
        for letter in sorted({name[0] for name in entries}):
            part = {name: entry for name, entry in entries.items() if name[0] == letter}
            member = zipfile.ZipInfo(f"dictionary/data/en/words_{letter.upper()}.json")
            archive.writestr(member, json.dumps(part))
        archive.writestr(zipfile.ZipInfo("dictionary/__init__.py"), "raise SystemExit('never run')")


def small_entries() -> dict[str, dict]:
    """Entries of random words, so that no two share a long run."""
    random = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnoprstuvw"))
    words = ["".join(random.choice(letters, random.integers(2, 9))) for _ in range(300)]
    entries = {}
    for _ in range(ENTRIES):
        name = "".join(random.choice(letters, 7))
        definitions = [
            {"text": " ".join(random.choice(words, 20)).capitalize() + ".", "examples": []} for _ in range(2)
        ]
        entries[name] = entry(name, definitions=definitions)
    return entries


def entry(name: str, etymology: str | None = None, definitions: list[dict] | tuple = (), **extra: str) -> dict:
    """An entry with one noun, as the wheel spells it."""
    sense = {"etymology": etymology, "part_of_speech": "n.", "definitions": list(definitions), **extra}
    return {"entry": name, "pos": [sense]}
