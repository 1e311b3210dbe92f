"""Every kind of file and message that others may write, at length: read, or refused in one line; never a traceback."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from typer.testing import CliRunner

from harness.bundle import read_record
from harness.cli.main import app
from harness.cli.progress import describe_row
from harness.cli.summary import read_references
from harness.core import weights
from harness.core.data.prepare import MANIFEST as DATA_MANIFEST
from harness.core.data.prepare import problems
from harness.core.data.shards import map_shard_fd, open_shard, write_shard
from harness.core.failures import RunFailed
from harness.core.protocol import MAX_PACKET, Channel, ProtocolError
from harness.core.ranks import RankLog, Ranks
from harness.core.task import load_task
from harness.core.weights import TensorSpec, WeightsError, WeightsFile
from harness.journal import Journal, verify
from harness.paths import BASELINES
from harness.references import REFERENCE_FILE
from harness.submission import load_submission
from tests.conftest import Toy
from tests.fuzz.strategies import allowed, as_json, as_toml, retold, search, sizes, sizes_of_commands, values, wounded
from tests.fuzz.valid import RUN_JSON
from tests.journal.chains import fill, forge
from tests.toy_submission import MANIFEST, SCRIPT


@sizes
def test_submission_toml(toy: Toy, tmp_path: Path, cases: int) -> None:
    (tmp_path / "train.py").write_text(SCRIPT)

    def read(content: bytes) -> None:
        (tmp_path / "submission.toml").write_bytes(content)
        allowed(lambda: load_submission(tmp_path, toy.task))

    table = tomllib.loads(MANIFEST)
    search(cases, wounded(MANIFEST.encode()) | retold(table).map(as_toml), read)


@sizes
def test_task_toml(toy: Toy, tmp_path: Path, cases: int) -> None:
    def read(content: bytes) -> None:
        (tmp_path / "task.toml").write_bytes(content)
        allowed(lambda: load_task(tmp_path / "task.toml"))

    content = toy.task.path.read_bytes()
    search(cases, wounded(content) | retold(tomllib.loads(content.decode())).map(as_toml), read)


@sizes
def test_run_json(tmp_path: Path, cases: int) -> None:
    def read(content: bytes) -> None:
        (tmp_path / "run.json").write_bytes(content)
        allowed(lambda: read_record(tmp_path / "run.json"))

    search(cases, wounded(as_json(RUN_JSON)) | retold(RUN_JSON).map(as_json) | values.map(as_json), read)


@sizes_of_commands
def test_the_board_of_a_foreign_runs_folder(tmp_path: Path, cases: int) -> None:
    (tmp_path / "a").mkdir()
    shown = ("run_id", "seed", "reason", "state", "val_loss", "target", "seconds", "tokens", "trust")
    table = {name: RUN_JSON[name] for name in shown}
    task = {"task": "toy", "hardware_class": "cpu-1thread"}

    def read(case: tuple[bytes, bool]) -> None:
        content, json_wanted = case
        (tmp_path / "a" / "run.json").write_bytes(content)
        arguments = ["board", "--task", "toy", "--runs-dir", str(tmp_path), *(["--json"] if json_wanted else [])]
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, done.exception
        assert all(char.isprintable() or char == "\n" for char in done.output)
        assert not json_wanted or json.loads(done.stdout)["task"] == "toy"

    changed = retold(table).map(lambda changed: as_json({**changed, **task}))
    search(cases, st.tuples(wounded(as_json({**table, **task})) | changed, st.booleans()), read)


@sizes
def test_shards(tmp_path: Path, cases: int) -> None:
    path = tmp_path / "a.bin"
    write_shard(path, np.arange(50))

    def read(content: bytes) -> None:
        path.write_bytes(content)
        allowed(lambda: open_shard(path, None).sum())
        with path.open("rb") as file:
            allowed(lambda: map_shard_fd(file.fileno()).sum())

    search(cases, wounded(path.read_bytes()) | st.binary(max_size=1100), read)


@sizes
def test_journal_lines(tmp_path: Path, cases: int) -> None:
    path = tmp_path / "journal.jsonl"
    content = fill(path, runs=2)
    entries = [json.loads(line) for line in content.splitlines()]

    def read(content: bytes) -> None:
        path.write_bytes(content)
        sound = verify(path).ok
        allowed(Journal(path).entries)
        allowed(lambda: Journal(path).start("next"))
        assert not sound or verify(path).ok
        assert path.read_bytes().startswith(content[: content.rfind(b"\n") + 1])

    forged = st.tuples(*(retold(entry) for entry in entries)).map(lambda tables: _forged(tables))
    search(cases, wounded(content) | forged, read)


def _forged(tables: tuple[dict, ...]) -> bytes:
    """A chain over these tables where JSON can say them: hashes and places fit, everything else is theirs."""
    try:
        return forge(*({**table, "sequence": number} for number, table in enumerate(tables, start=1)))
    except ValueError:  # a number of more digits than Python writes
        return b""


@sizes
def test_weights_files(cases: int) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Embedding(4, 2))
    specs, tensors = weights.describe(model)
    file = WeightsFile(specs, 1 << 20)
    weights.write(file.descriptor, specs, tensors)
    content = os.pread(file.descriptor, file.size, 0)
    length = int.from_bytes(content[:8], "little")
    header, body = json.loads(content[8 : 8 + length]), content[8 + length :]
    descriptor = os.memfd_create("fuzzed")

    def with_header(table: dict) -> bytes:
        text = as_json(table)
        return len(text).to_bytes(8, "little") + text + body

    def read(content: bytes) -> None:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, content, 0)
        allowed(lambda: weights.load(model, descriptor), WeightsError)

    search(cases, wounded(content) | retold(header).map(with_header), read)


SPEC = TensorSpec("weight", (4,), "F32").to_json()
PACKETS = [
    {"kind": "tensors", "items": [SPEC, {**SPEC, "name": "tied", "alias_of": "weight"}]},
    {"kind": "ready", "digest": "toy", "consulted": ["methods.a"]},
    {"kind": "log", "rows": [{"step": 1, "steps": 9, "loss": 2.5, "seconds": 0.5, "tokens": 100}]},
    {"kind": "finished", "tokens": 100, "export_seconds": 0.1},
    {"kind": "closing", "consulted": ["hparams.b"]},
]


@sizes
def test_packets(cases: int) -> None:
    """A whole conversation of one rank, any of its packets changed, up to what the referee makes of it."""

    def read(packets: list[bytes]) -> None:
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        log = RankLog(limit=50)
        ranks = Ranks([0], log)
        ranks.add(0, Channel(here))
        try:
            for number, packet in enumerate(packets):
                there.send(packet[: MAX_PACKET + 10])
                message = Channel.receive(Channel(here), timeout=5)
                if message is None:
                    return
                ranks.take(0, message)
                if message.kind == "log":
                    assert all(describe_row(row).isprintable() for row in log.latest())
                if number == 1:
                    ranks.check_start([TensorSpec("weight", (4,), "F32")], "toy")
                    ranks.release()
            json.dumps([ranks.tokens(), ranks.export_seconds(), ranks.consulted(), log.rows], allow_nan=False).encode()
        except (ProtocolError, RunFailed) as error:
            assert str(error)
        finally:
            here.close()
            there.close()

    def conversation(changed: tuple[int, bytes]) -> list[bytes]:
        place, packet = changed
        honest = [as_json(packet) for packet in PACKETS]
        honest[0] = as_json({"kind": "tensors", "items": [SPEC]})
        return [*honest[:place], packet, *honest[place + 1 :]]

    changed = [
        st.tuples(st.just(place), wounded(as_json(packet)) | retold(packet).map(as_json))
        for place, packet in enumerate(PACKETS)
    ]
    search(cases, st.one_of(*changed).map(conversation), read)


@sizes
def test_reference_runs(tmp_path: Path, cases: int, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / REFERENCE_FILE
    path.parent.mkdir()
    content = (BASELINES / "adamw" / "gcide" / REFERENCE_FILE).read_bytes()
    lines = [json.loads(line) for line in content.splitlines()]

    def read(content: bytes) -> None:
        path.write_bytes(content)
        for reference in read_references(tmp_path):
            assert 0 < reference.seconds < 1e9
            assert 0 < reference.val_loss < 1e9
        assert "\x1b" not in capsys.readouterr().err

    search(cases, wounded(content) | retold(lines[0]).map(as_json), read)


@sizes
def test_the_manifest_of_prepared_data(toy: Toy, tmp_path: Path, cases: int) -> None:
    folder = toy.task.data_folder(toy.data_dir)
    for shard in toy.task.shards:
        (tmp_path / shard.file).symlink_to(folder / shard.file)
    content = (folder / DATA_MANIFEST).read_bytes()

    def read(content: bytes) -> None:
        (tmp_path / DATA_MANIFEST).write_bytes(content)
        assert all(isinstance(problem, str) for problem in problems(toy.task, tmp_path))

    search(cases, wounded(content) | retold(json.loads(content)).map(as_json), read)


@pytest.mark.parametrize("cases", [200])
def test_tensors_that_do_not_fit_together_are_refused_before_the_clock(cases: int) -> None:
    def lay_out(items: list) -> None:
        file = WeightsFile([TensorSpec.from_json(item) for item in items], 1 << 20)
        try:
            assert hashlib.sha256(os.pread(file.descriptor, file.size, 0)).hexdigest() == file.digest()
        finally:
            file.close()

    table = {"items": [SPEC, {**SPEC, "name": "tied", "alias_of": "weight"}]}
    changed = retold(table).map(lambda changed: changed.get("items"))
    search(
        cases,
        changed.filter(lambda items: isinstance(items, list)),
        lambda items: allowed(lambda: lay_out(items), WeightsError),
    )
