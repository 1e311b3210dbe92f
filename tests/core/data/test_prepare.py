"""Preparing data: once, whole or not at all, and never trusted when it changed."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from harness.core.data import prepare as preparing
from harness.core.data import sources
from harness.core.data.documents import read_gcide
from harness.core.data.prepare import Prepared, prepare, require_prepared, verify
from harness.core.data.shards import open_shard, write_shard
from harness.core.data.splits import split_documents
from harness.core.data.tokenizer import load_encoding
from harness.core.task import Task
from harness.errors import UserError
from harness.paths import ROOT
from tests.core.data.small_corpus import SmallCorpus

FILES = ["small_holdout_000000.bin", "small_train_000000.bin", "small_validation_000000.bin"]
TRAIN = "small_train_000000.bin"


def run(small_corpus: SmallCorpus, data_dir: Path) -> Prepared:
    return prepare(small_corpus.task, data_dir, small_corpus.wheel)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def wrong_pin(task: Task) -> Task:
    shards = [shard.model_copy(update={"sha256": "0" * 64}) for shard in task.shards]
    return task.model_copy(update={"shards": shards})


def test_the_shards_are_the_documents_of_the_splits(small_corpus: SmallCorpus, tmp_path: Path) -> None:
    folder = run(small_corpus, tmp_path).folder
    assert names(folder) == ["manifest.json", *FILES]
    encoding = load_encoding(small_corpus.task)
    splits = split_documents(read_gcide(small_corpus.wheel.read_bytes()))
    for shard in small_corpus.task.shards:
        tokens = open_shard(folder / shard.file, shard)
        texts = [document.text for document in splits[shard.split]]
        assert encoding.decode(tokens.tolist()) == "".join(f"<|endoftext|>{text}" for text in texts)
        assert shard.documents == len(texts) == (tokens == encoding.eot_token).sum()
        assert shard.text_bytes == sum(len(text) for text in texts)


def test_prepared_data_is_left_as_it_is(
    small_corpus: SmallCorpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(small_corpus, tmp_path)
    before = {name: (first.folder / name).stat().st_ino for name in names(first.folder)}
    monkeypatch.setattr(sources, "fetch", None)
    assert run(small_corpus, tmp_path) == Prepared(first.folder, built=False)
    assert {name: (first.folder / name).stat().st_ino for name in names(first.folder)} == before
    assert require_prepared(small_corpus.task, tmp_path) == first.folder


def test_the_manifest_tells_what_was_made_of_what(small_corpus: SmallCorpus, tmp_path: Path) -> None:
    task = small_corpus.task
    manifest = json.loads((run(small_corpus, tmp_path).folder / "manifest.json").read_text())
    assert manifest["task_sha256"] == task.digest
    assert manifest["corpus_sha256"] == task.corpus.sha256
    assert [entry["sha256"] for entry in manifest["shards"]] == [shard.sha256 for shard in task.shards]


def test_data_that_was_never_prepared_is_named_with_the_remedy(small_corpus: SmallCorpus, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not prepared") as raised:
        require_prepared(small_corpus.task, tmp_path)
    assert raised.value.remedy == "speedrun data prepare small"


def flip_last_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "a byte changed": flip_last_byte,
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-2]),
    "wrong magic": lambda path: path.write_bytes(b"\0" + path.read_bytes()[1:]),
    "other tokens": lambda path: write_shard(path, np.array([1, 2, 3])),
    "missing": lambda path: path.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_data_is_refused_named_and_built_again(damage: str, small_corpus: SmallCorpus, tmp_path: Path) -> None:
    folder = run(small_corpus, tmp_path).folder
    DAMAGE[damage](folder / TRAIN)
    with pytest.raises(UserError, match=TRAIN):
        require_prepared(small_corpus.task, tmp_path)
    assert [TRAIN in problem for problem in verify(small_corpus.task, tmp_path)] == [True]
    assert run(small_corpus, tmp_path).built
    assert verify(small_corpus.task, tmp_path) == []
    assert names(tmp_path) == ["small"]


def test_verify_finds_a_change_that_size_and_time_hide(small_corpus: SmallCorpus, tmp_path: Path) -> None:
    path = run(small_corpus, tmp_path).folder / TRAIN
    status = path.stat()
    flip_last_byte(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert TRAIN in verify(small_corpus.task, tmp_path)[0]


def test_verify_renews_the_manifest_of_whole_data(small_corpus: SmallCorpus, tmp_path: Path) -> None:
    folder = run(small_corpus, tmp_path).folder
    os.utime(folder / TRAIN, ns=(1, 1))
    with pytest.raises(UserError, match="changed since it was prepared"):
        require_prepared(small_corpus.task, tmp_path)
    assert verify(small_corpus.task, tmp_path) == []
    assert require_prepared(small_corpus.task, tmp_path) == folder


@pytest.mark.parametrize("content", [b"", b"[]", b'{"shards": [1]}', b'{"shards": [{"file": 1}]}', b"\xff"])
def test_a_damaged_manifest_is_refused(content: bytes, small_corpus: SmallCorpus, tmp_path: Path) -> None:
    folder = run(small_corpus, tmp_path).folder
    (folder / "manifest.json").write_bytes(content)
    with pytest.raises(UserError, match=r"small"):
        require_prepared(small_corpus.task, tmp_path)


def test_what_differs_from_the_pins_is_refused_and_leaves_nothing(small_corpus: SmallCorpus, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"small_\w+\.bin: what was built differs from what small\.toml pins"):
        prepare(wrong_pin(small_corpus.task), tmp_path, small_corpus.wheel)
    assert names(tmp_path) == []


def test_data_of_another_version_of_the_task_is_refused_and_kept_when_the_build_fails(
    small_corpus: SmallCorpus, tmp_path: Path
) -> None:
    folder = run(small_corpus, tmp_path).folder
    with pytest.raises(UserError, match="another version of the task"):
        require_prepared(wrong_pin(small_corpus.task), tmp_path)
    with pytest.raises(UserError, match="differs"):
        prepare(wrong_pin(small_corpus.task), tmp_path, small_corpus.wheel)
    assert require_prepared(small_corpus.task, tmp_path) == folder


@pytest.mark.parametrize("failing_call", [1, 2, 3, 4])
def test_a_full_disk_leaves_nothing(
    failing_call: int, small_corpus: SmallCorpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = iter(range(1, 10))

    def fsync(descriptor: int) -> None:
        if next(calls) == failing_call:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(UserError, match="No space left on device"):
        run(small_corpus, tmp_path)
    assert names(tmp_path) == []


CHILD = """
import os, resource, signal, sys
from pathlib import Path
from harness.core.data import prepare as preparing
from harness.core.task import load_task

{before}
preparing.prepare(load_task(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
"""


def run_child(before: str, small_corpus: SmallCorpus, data_dir: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", CHILD.format(before=before)]
    command += [str(small_corpus.task.path), str(data_dir), str(small_corpus.wheel)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


def test_a_write_that_the_system_cuts_short_leaves_nothing(small_corpus: SmallCorpus, tmp_path: Path) -> None:
    limit = "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))"
    done = run_child(limit, small_corpus, tmp_path)
    assert "UserError" in done.stderr and "File too large" in done.stderr
    assert names(tmp_path) == []


KILLS = {
    "while building": "write_shard",
    "before the manifest": "write_manifest",
    "before it is in place": "_put_in_place",
}


@pytest.mark.parametrize("moment", KILLS)
def test_a_killed_build_leaves_no_data_and_the_next_one_clears_up(
    moment: str, small_corpus: SmallCorpus, tmp_path: Path
) -> None:
    kill = f"preparing.{KILLS[moment]} = lambda *rest: os.kill(os.getpid(), signal.SIGKILL)"
    assert run_child(kill, small_corpus, tmp_path).returncode == -9
    assert not (tmp_path / "small").exists()
    assert run(small_corpus, tmp_path).built
    assert names(tmp_path) == ["small"]


def test_two_at_once_build_once(small_corpus: SmallCorpus, tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        built = [found.built for found in pool.map(lambda _: run(small_corpus, tmp_path), range(2))]
    assert sorted(built) == [False, True]
    assert verify(small_corpus.task, tmp_path) == []


def test_a_folder_that_cannot_be_written_is_named(small_corpus: SmallCorpus, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file/data: cannot be written") as raised:
        run(small_corpus, tmp_path / "file" / "data")
    assert "--data-dir" in raised.value.remedy


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes into read-only folders")
def test_a_read_only_folder_is_named(small_corpus: SmallCorpus, tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with pytest.raises(UserError, match="cannot be written: Permission denied"):
        run(small_corpus, tmp_path)


def test_a_failing_rename_puts_the_old_data_back(
    small_corpus: SmallCorpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = run(small_corpus, tmp_path).folder
    (folder / "mine.txt").write_text("kept")
    flip_last_byte(folder / TRAIN)
    rename = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if ".new-" in self.name:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(UserError, match="Read-only file system"):
        run(small_corpus, tmp_path)
    assert (folder / "mine.txt").read_text() == "kept"
    assert names(tmp_path) == ["small"]


def test_a_task_without_a_corpus_names_the_remedy(small_corpus: SmallCorpus, tmp_path: Path) -> None:
    task = small_corpus.task.model_copy(update={"corpus": None})
    with pytest.raises(UserError, match=r"has no \[corpus\]") as raised:
        prepare(task, tmp_path)
    assert "data verify small" in raised.value.remedy


def test_an_unknown_kind_of_corpus_is_named(small_corpus: SmallCorpus) -> None:
    corpus = small_corpus.task.corpus.model_copy(update={"kind": "tape"})
    with pytest.raises(UserError, match=r"corpus\.kind 'tape'"):
        preparing.read_corpus(small_corpus.task.model_copy(update={"corpus": corpus}), b"")


@pytest.mark.parametrize("count", [1, 3, 4, 100])
def test_a_long_list_of_problems_is_cut(count: int) -> None:
    shown = preparing.summary([f"shard {number}" for number in range(count)])
    assert shown.count("shard") == min(count, 3)
    assert ("more" in shown) == (count > 3)
