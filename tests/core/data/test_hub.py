"""The tokenized copy on the hub: pinned on first contact, fetched once, nothing else ever accepted."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import huggingface_hub.constants as hub_settings
import numpy as np
import pytest
from huggingface_hub import hf_hub_download
from typer.testing import Result

from harness.checks.synthetic import make_task
from harness.cli import doctor
from harness.core.data import hub as fetching
from harness.core.data.prepare import require_prepared, verify
from harness.core.data.shards import open_shard, scored_tokens
from harness.core.task import load_task
from harness.errors import UserError
from harness.paths import ROOT
from harness.submission import EvaluationShape
from tests.core.data.fake_hub import REVISION, FakeHub
from tests.core.data.hub_corpus import COPY, SCORED, HubCorpus, call, data_dir, lock, prepare, shard_folder

MOVED = "2" * 40


def cached(hub: FakeHub, file: str) -> Path:
    """Has the hub's client fetch a file into its cache, as another tool would."""
    return Path(hf_hub_download(COPY, file, repo_type="dataset", revision=REVISION, endpoint=hub.url))


def error(done: Result) -> UserError:
    assert isinstance(done.exception, UserError), (done.output, done.exception)
    return done.exception


def test_the_lock_pins_revision_and_digests_without_fetching_a_shard(corpus: HubCorpus, hub: FakeHub) -> None:
    lock(corpus)
    task = load_task(corpus.task_path)
    assert task.revision == REVISION
    assert [shard.file for shard in task.shards] == list(corpus.shards)
    assert [shard.split for shard in task.shards] == ["validation"] + ["train"] * (len(corpus.shards) - 1)
    assert hub.downloads() == []


def test_a_lock_that_is_there_is_compared_and_left(corpus: HubCorpus, hub: FakeHub) -> None:
    lock(corpus)
    before = load_task(corpus.task_path).lock_path.read_bytes()
    assert "the hub is at its revision" in call("lock", corpus).output
    corpus.copy.revision = MOVED
    assert f"the hub has moved to {MOVED}" in call("lock", corpus).output
    corpus.copy.files["fineweb_train_000002.bin"] = corpus.copy.files["fineweb_train_000001.bin"]
    assert "fineweb_train_000002.bin: " in error(call("lock", corpus)).message
    del corpus.copy.files["fineweb_train_000002.bin"]
    assert "a number is missing" in error(call("lock", corpus)).message
    assert load_task(corpus.task_path).lock_path.read_bytes() == before


@pytest.mark.parametrize("verb", ["prepare", "verify", "audit"])
def test_without_a_lock_nothing_is_fetched(verb: str, corpus: HubCorpus, hub: FakeHub) -> None:
    assert "fineweb10B-gpt2.lock: missing" in error(call(verb, corpus)).message
    assert hub.log == []


def test_what_makes_no_task_is_not_pinned(corpus: HubCorpus, hub: FakeHub) -> None:
    corpus.task_path.write_text(corpus.task_path.read_text().replace(f"tokens = {SCORED}", "tokens = 10485760"))
    assert "validation has only 500 tokens" in error(call("lock", corpus)).message
    assert not load_task(corpus.task_path).lock_path.exists()


def test_all_shards_are_fetched_as_they_are(corpus: HubCorpus, hub: FakeHub) -> None:
    lock(corpus)
    assert "prepared in" in prepare(corpus)
    folder = shard_folder(corpus)
    assert {file: (folder / file).read_bytes() for file in corpus.shards} == corpus.shards
    task = load_task(corpus.task_path)
    assert verify(task, data_dir(corpus)) == []
    assert require_prepared(task, data_dir(corpus)) == folder
    assert sorted(path.name for path in folder.iterdir()) == [*sorted(corpus.shards), "manifest.json"]
    assert f"{len(corpus.shards)} shards are as the task pins them" in call("verify", corpus).output


def test_a_part_is_prepared_and_later_more_without_fetching_again(corpus: HubCorpus, hub: FakeHub) -> None:
    lock(corpus)
    assert "(1,000 training tokens)" in prepare(corpus, "--shards", 2)
    assert hub.downloads() == list(corpus.shards)[:3]
    assert f"3 of {len(corpus.shards)} shards are" in call("verify", corpus).output
    asked = len(hub.log)
    assert "already prepared" in prepare(corpus, "--tokens", 900)
    assert len(hub.log) == asked
    prepare(corpus, "--tokens", 1001)
    assert hub.downloads() == list(corpus.shards)[:4]


@pytest.mark.parametrize("words", [["--shards", 0], ["--shards", 99], ["--tokens", 10**9]])
def test_more_than_there_is_is_named(words: list[object], corpus: HubCorpus, hub: FakeHub) -> None:
    lock(corpus)
    assert "the corpus has" in error(call("prepare", corpus, *words)).message


@pytest.mark.parametrize(
    "words",
    [["--shards", 1, "--tokens", 5], ["--from-file", "x"], ["--workers", 2], ["--parquet", "x"], ["--gpt2-vocab", "x"]],
)
def test_options_that_mean_nothing_are_refused(words: list[object], corpus: HubCorpus) -> None:
    assert "leave --" in error(call("prepare", corpus, *words)).remedy


def test_an_interrupted_preparation_is_taken_up(
    corpus: HubCorpus, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock(corpus)
    place = fetching.place_shard

    def interrupted(task, folder, source, shard) -> None:
        place(task, folder, source, shard)
        if shard.file.endswith("1.bin"):
            raise KeyboardInterrupt

    monkeypatch.setattr(fetching, "place_shard", interrupted)
    assert call("prepare", corpus, "--shards", 3).exit_code == 130
    monkeypatch.setattr(fetching, "place_shard", place)
    prepare(corpus, "--shards", 3)
    assert hub.downloads() == list(corpus.shards)[:4]


def test_a_broken_connection_is_mended_within_the_call(corpus: HubCorpus, hub: FakeHub) -> None:
    lock(corpus)
    hub.broken.append("fineweb_train_000001.bin")
    prepare(corpus, "--shards", 1)
    assert (shard_folder(corpus) / "fineweb_train_000001.bin").read_bytes() == corpus.shards["fineweb_train_000001.bin"]


def test_other_bytes_than_the_lock_pins_are_refused_and_not_kept(corpus: HubCorpus, hub: FakeHub) -> None:
    lock(corpus)
    changed = bytearray(corpus.shards["fineweb_train_000001.bin"])
    changed[-1] ^= 1
    corpus.copy.served["fineweb_train_000001.bin"] = bytes(changed)
    assert "the task pins" in error(call("prepare", corpus, "--shards", 1)).message
    assert [path.name for path in shard_folder(corpus).glob("*.bin")] == ["fineweb_val_000000.bin"]
    corpus.copy.served.clear()
    prepare(corpus, "--shards", 1)


def test_a_hub_that_states_other_digests_is_found_before_the_download(corpus: HubCorpus, hub: FakeHub) -> None:
    lock(corpus)
    corpus.copy.files["fineweb_train_000001.bin"] = corpus.copy.files["fineweb_train_000002.bin"]
    assert "pins sha256" in error(call("prepare", corpus, "--shards", 1)).message
    assert hub.downloads() == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda hub, copy: copy.known_revisions.clear(), f"no longer has revision {REVISION}"),
        (lambda hub, copy: hub.repositories.clear(), "no such dataset"),
        (lambda hub, copy: copy.files.pop("fineweb_train_000001.bin"), "a number is missing|no such file"),
    ],
)
def test_what_the_hub_lost_is_named(change, message: str, corpus: HubCorpus, hub: FakeHub) -> None:
    lock(corpus)
    change(hub, corpus.copy)
    raised = error(call("prepare", corpus))
    assert raised.remedy
    with pytest.raises(UserError, match=message):
        raise raised


def test_a_hub_out_of_reach_is_named(corpus: HubCorpus, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_settings, "ENDPOINT", "http://127.0.0.1:9")
    raised = error(call("lock", corpus))
    assert "http://127.0.0.1:9" in raised.message and "HF_ENDPOINT" in raised.remedy


def test_offline_the_clients_own_cache_is_used(
    corpus: HubCorpus, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock(corpus)
    for file in list(corpus.shards)[:2]:
        cached(hub, file)
    asked = len(hub.log)
    monkeypatch.setattr(hub_settings, "HF_HUB_OFFLINE", True)
    assert "from the hub client's cache" in prepare(corpus, "--shards", 1)
    assert "not in the hub client's cache" in error(call("prepare", corpus, "--shards", 2)).message
    assert len(hub.log) == asked


def test_a_damaged_cache_is_named(corpus: HubCorpus, hub: FakeHub) -> None:
    lock(corpus)
    blob = cached(hub, "fineweb_val_000000.bin").resolve()
    blob.write_bytes(blob.read_bytes()[:-2])
    assert str(blob) in error(call("prepare", corpus)).remedy


def test_files_put_into_the_folder_are_taken_if_they_are_the_pinned_ones(corpus: HubCorpus, hub: FakeHub) -> None:
    lock(corpus)
    shard_folder(corpus).mkdir(parents=True)
    for file in list(corpus.shards)[:2]:
        (shard_folder(corpus) / file).write_bytes(corpus.shards[file])
    (shard_folder(corpus) / "fineweb_train_000002.bin").write_bytes(b"something else")
    prepare(corpus, "--shards", 2)
    assert hub.downloads() == ["fineweb_train_000002.bin"]


def test_a_shard_that_changed_is_refused_and_fetched_again(corpus: HubCorpus, hub: FakeHub) -> None:
    lock(corpus)
    prepare(corpus, "--shards", 2)
    path = shard_folder(corpus) / "fineweb_train_000002.bin"
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    prepare(corpus, "--shards", 1)  # must not take the change for its own
    with pytest.raises(UserError, match=r"fineweb_train_000002\.bin: changed"):
        require_prepared(load_task(corpus.task_path), data_dir(corpus))
    assert call("verify", corpus).exit_code == 1
    prepare(corpus, "--shards", 2)
    assert verify(load_task(corpus.task_path), data_dir(corpus)) == []


def test_a_disk_too_small_is_named_before_anything_is_fetched(
    corpus: HubCorpus, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock(corpus)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(100, 90, 10))
    assert "to spare" in error(call("prepare", corpus)).message
    assert hub.downloads() == []


def test_a_disk_that_fills_up_is_named(corpus: HubCorpus, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    lock(corpus)

    def full(*rest: object, **options: object) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("huggingface_hub.hf_hub_download", full)
    raised = error(call("prepare", corpus))
    assert "No space left on device" in raised.message and "--data-dir" in raised.remedy


def test_the_mirror_of_the_environment_is_asked(corpus: HubCorpus, hub: FakeHub, tmp_path: Path) -> None:
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
    for words in (["lock"], ["prepare", "--data-dir", str(data_dir(corpus)), "--shards", "1"]):
        command = [sys.executable, "-m", "harness.cli.main", "data", words[0], str(corpus.task_path), *words[1:]]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
    assert hub.downloads() == list(corpus.shards)[:2]


def test_only_the_first_validation_tokens_are_scored(corpus: HubCorpus, hub: FakeHub) -> None:
    lock(corpus)
    prepare(corpus, "--shards", 1)
    task, folder = load_task(corpus.task_path), shard_folder(corpus)
    whole = open_shard(folder / "fineweb_val_000000.bin", None)
    assert np.array_equal(scored_tokens(task, folder, "validation"), whole[: SCORED + 1])


def test_a_lock_of_another_repository_or_of_no_use_is_refused(corpus: HubCorpus, hub: FakeHub) -> None:
    lock(corpus)
    path = load_task(corpus.task_path).lock_path
    text = path.read_text()
    for old, new in ((COPY, "somebody/else"), (REVISION, "main"), ('split = "train"', 'split = "validation"')):
        path.write_text(text.replace(old, new))
        with pytest.raises(UserError, match=r"fineweb10B-gpt2\.lock: ") as raised:
            load_task(corpus.task_path)
        assert "speedrun data lock" in raised.value.remedy


def test_runs_do_not_import_the_hubs_client() -> None:
    code = (
        "import sys, harness.campaign, harness.core.referee, harness.core.judge, harness.core.run\n"
        "sys.exit(any(name in sys.modules for name in ('datasets', 'huggingface_hub', 'pyarrow')))"
    )
    assert subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}).returncode == 0


def test_the_audit_looks_through_the_prepared_shards_one_by_one(corpus: HubCorpus, hub: FakeHub) -> None:
    """The first shard of training is made to hold validation windows, also across the edge to the second."""
    held = np.frombuffer(corpus.shards["fineweb_val_000000.bin"][1024:], "<u2")
    first, second = (bytearray(corpus.shards[f"fineweb_train_00000{number}.bin"]) for number in (1, 2))
    first[1024:] = np.concatenate([np.full(400, 7), held[:100]]).astype("<u2").tobytes()
    second[1024:] = np.concatenate([held[100:200], np.full(400, 9)]).astype("<u2").tobytes()
    corpus.copy.files |= {"fineweb_train_000001.bin": bytes(first), "fineweb_train_000002.bin": bytes(second)}
    lock(corpus)
    for shards, expected in ((1, 100 - 63), (2, 200 - 63)):
        prepare(corpus, "--shards", shards)
        done = call("audit", corpus, "--json")
        (split,) = json.loads(done.stdout)["splits"]
        assert split["tokens"] == SCORED + 1 and split["windows"] == SCORED + 1 - 63
        assert split["training_tokens"] == 500 * shards
        windows = {tuple(held[start : start + 64]) for start in range(200 - 63)}
        assert len(windows) == 200 - 63  # so that each is counted for itself
        assert split["shared_windows"] == expected
        assert split["near_duplicates"] is None
    assert "not looked for" in call("audit", corpus).output


def test_document_lengths_are_pinned_from_the_first_shard(corpus: HubCorpus, hub: FakeHub) -> None:
    lock(corpus)
    prepare(corpus, "--shards", 1)
    done = call("pin", corpus)
    assert done.exit_code == 0, done.exception
    tokens = open_shard(shard_folder(corpus) / "fineweb_train_000001.bin", None)
    lengths = np.diff(np.flatnonzero(tokens == 50256)) - 1
    pinned = load_task(corpus.task_path).synthetic.document_tokens
    assert (pinned[0], pinned[-1], len(pinned)) == (lengths.min(), lengths.max(), 11)
    assert "never measured" not in corpus.task_path.read_text().split("[synthetic]")[0].split("[caps.cuda]")[1]


def test_a_dry_task_needs_no_lock(tmp_path: Path) -> None:
    for name in ("fineweb-small", "fineweb-medium", "fineweb-steps"):
        made = make_task(load_task(name), EvaluationShape(batch=1, length=64), tmp_path / name)
        assert made.tokenizer.vocab_size == 50257 and "cpu" in made.caps and made.hub is None
        assert verify(made, tmp_path / name) == []


def test_the_doctor_tells_how_much_is_prepared(
    corpus: HubCorpus, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "TASKS", corpus.task_path.parent)
    (before,) = doctor.data_checks(data_dir(corpus))
    assert before.remedy == "speedrun data lock fineweb-small, then speedrun data prepare fineweb-small"
    lock(corpus)
    (locked,) = doctor.data_checks(data_dir(corpus))
    assert locked.remedy == "speedrun data prepare fineweb-small"
    prepare(corpus, "--shards", 2)
    (after,) = doctor.data_checks(data_dir(corpus))
    assert after.status == "ok" and after.found.endswith(f", 3 of {len(corpus.shards)} shards")
