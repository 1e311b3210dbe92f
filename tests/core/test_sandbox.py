"""What a child can see and do inside: one property a test, on every rung that promises it; at `open` none is."""

from __future__ import annotations

import fcntl
import os
import platform
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.core import sandbox, seccomp, visible
from harness.paths import PACKAGE, ROOT
from tests.core.boxes import Box, open_folder

REFUSED = ("PermissionError", "OSError", "FileNotFoundError", "ProcessLookupError", "ConnectionRefusedError")
needs_filter = pytest.mark.skipif(not seccomp.available(), reason="no system call filter for this machine")


@pytest.fixture(params=["bubblewrap", "user", "landlock"])
def ruled(request: pytest.FixtureRequest) -> Iterator[Box]:
    """Every rung that has rules about files."""
    with open_folder() as folder:
        yield Box(folder, request.param)


@pytest.fixture(params=["bubblewrap", "user"])
def isolated(request: pytest.FixtureRequest) -> Iterator[Box]:
    with open_folder() as folder:
        yield Box(folder, request.param)


@pytest.fixture
def bubblewrapped() -> Iterator[Box]:
    with open_folder() as folder:
        yield Box(folder, "bubblewrap")


def test_neither_corpus_nor_records_nor_home_nor_another_run_can_be_read(ruled: Box, tmp_path: Path) -> None:
    another_run = ruled.source.parent.parent / "another"
    another_run.mkdir()
    (another_run / "run.json").write_text("{}")
    (tmp_path / "secret").write_text("x")
    home = Path.home() / ".bashrc"
    hidden = [ROOT / "README.md", ROOT / "data", ROOT / "baselines", ROOT / "records", ROOT / "tests"]
    hidden += [ROOT, another_run / "run.json", another_run, tmp_path / "secret", home, Path.home()]
    paths = [str(path) for path in hidden if path.exists()]
    # A mount point's parents exist in bubblewrap's own tree, with nothing but the way to what is shown.
    inside = ruled(f"[os.path.isdir(p) and os.listdir(p) or open(p).read(1) for p in {paths} if readable(p)]")
    shown = {part for path in [*visible.python_paths(), str(PACKAGE), str(ruled.source)] for part in Path(path).parts}
    assert all(set(found) <= shown for found in inside), inside


def test_the_interpreter_the_harness_and_the_source_can_be_read(ruled: Box) -> None:
    shown = [os.__file__, str(PACKAGE / "core" / "run.py"), str(ruled.source / "train.py"), "/proc/self/maps"]
    assert ruled(f"[readable(p) for p in {shown}]") == [True] * 4


def test_manuals_word_lists_and_packages_outside_of_the_environment_cannot_be_read(ruled: Box) -> None:
    files = [str(next(file for file in Path(folder).rglob("*") if file.is_file())) for folder in visible.hidden()]
    hidden = ["/usr/share", "/usr/share/common-licenses", "/var/lib", "/home", "/etc/passwd", *files]
    assert ruled(f"[p for p in {hidden} if readable(p)]") == []


def test_source_and_harness_and_packages_cannot_be_written(ruled: Box) -> None:
    targets = [str(ruled.source / "x"), str(PACKAGE / "x"), str(Path(os.__file__).parent / "x")]
    assert "worked" not in ruled(f"[tried(lambda: open(p, 'w')) for p in {targets}]")
    assert not any(Path(target).exists() for target in targets)


def test_nothing_outside_scratch_can_be_written(ruled: Box) -> None:
    beside = ruled.source.parent.parent / "beside"
    beside.write_text("outside")
    ruled(f"[tried(lambda: open(p, 'w').write('changed')) for p in [{str(beside)!r}, '/etc/x', '/usr/x', '/dev/x']]")
    assert beside.read_text() == "outside"
    assert not Path("/etc/x").exists() and not Path("/dev/x").exists()


def test_scratch_can_be_written(ruled: Box) -> None:
    assert (
        ruled("[tried(lambda: open('here', 'w')), tried(lambda: __import__('tempfile').mkdtemp())]") == ["worked"] * 2
    )
    assert (ruled.scratch / "here").exists()


@needs_filter
def test_the_machine_cannot_be_reached_over_the_network(ruled: Box) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert ruled(f"tried(lambda: socket.create_connection(('127.0.0.1', {port}), 5))") in REFUSED


def test_bubblewrap_leaves_loopback_alone(bubblewrapped: Box) -> None:
    assert bubblewrapped("socket.if_nameindex()") == [[1, "lo"]]


@needs_filter
def test_the_affinity_cannot_be_widened(ruled: Box) -> None:
    every = list(range(os.cpu_count() or 1))
    tried = "[tried(lambda: os.sched_setaffinity(0, EVERY)), len(os.sched_getaffinity(0))]"
    assert ruled(tried.replace("EVERY", str(every))) == ["worked", 1]


def test_the_parent_cannot_be_seen(isolated: Box) -> None:
    paths = [f"/proc/{os.getpid()}/{name}" for name in ("environ", "cmdline", "mem", "maps", "cwd", "fd")]
    assert isolated(f"[p for p in {paths} if readable(p)]") == []


def test_the_parent_cannot_be_signalled(isolated: Box) -> None:
    assert isolated(f"[tried(lambda: os.kill(p, 0)) for p in [{os.getpid()}, {os.getppid()}]]") != ["worked"] * 2
    assert isolated(f"tried(lambda: os.kill({os.getpid()}, 0))") in REFUSED


@needs_filter
def test_no_process_can_be_traced(isolated: Box) -> None:
    column = list(seccomp.AUDIT_ARCHITECTURE).index(os.uname().machine)
    numbers = [seccomp.REFUSED[name][column] for name in ("ptrace", "process_vm_readv", "pidfd_getfd")]
    assert isolated(f"[called(n, 0, 0, 0, 0, 0, 0) for n in {numbers}]") == [os.strerror(1)] * 3


@needs_filter
def test_no_namespace_can_be_made(isolated: Box) -> None:
    unshare = seccomp.REFUSED["unshare"][list(seccomp.AUDIT_ARCHITECTURE).index(os.uname().machine)]
    clone = seccomp.CLONE[list(seccomp.AUDIT_ARCHITECTURE).index(os.uname().machine)]
    user_namespace = 0x10000000
    calls = f"[called({unshare}, {user_namespace}), called({clone}, {user_namespace} | 17, 0, 0, 0, 0)]"
    assert isolated(calls) == [os.strerror(1)] * 2


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="only x86_64 has a second ABI under the same architecture")
def test_calls_of_a_foreign_abi_are_refused(isolated: Box) -> None:
    getpid = 39
    assert isolated(f"[called({getpid}), called({seccomp.X32_BIT} | {getpid})]") == ["worked", os.strerror(1)]


def test_other_processes_cannot_be_listed_in_bubblewrap(bubblewrapped: Box) -> None:
    pids = bubblewrapped("[int(p) for p in os.listdir('/proc') if p.isdigit()]")
    assert len(pids) <= 3


def test_tmp_is_private_in_bubblewrap(bubblewrapped: Box) -> None:
    mine = Path(f"/tmp/speedrun-test-{os.getpid()}")
    mine.write_text("outside")
    try:
        assert bubblewrapped(f"[readable({str(mine)!r}), tried(lambda: open({str(mine)!r}, 'w'))]") == [False, "worked"]
        assert mine.read_text() == "outside"
    finally:
        mine.unlink()


def test_the_environment_is_an_allow_list(ruled: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    names = ruled("sorted(os.environ)")
    assert "AWS_SECRET_ACCESS_KEY" not in names
    assert {"PATH", "HOME", "OMP_NUM_THREADS", "SPEEDRUN_SOCKET", "SPEEDRUN_NONCE"} <= set(names)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator than glibc's")
def test_what_a_script_frees_stays_its_own(ruled: Box) -> None:
    """The second of two arrays of 2,048 pages, the first of which is free again, has its pages: none is cleared."""
    faults, array = "__import__('resource').getrusage(0).ru_minflt", "len(bytearray(8 << 20))"
    _, before, _, after = ruled(f"[{array}, {faults}, {array}, {faults}]")
    assert after - before < 100


def test_the_child_is_nobody_special(isolated: Box) -> None:
    user, capabilities = isolated("[os.getuid(), [l.split()[1] for l in open('/proc/self/status') if l[:3] == 'Cap']]")
    assert user not in (0, os.getuid())
    assert set(capabilities[:3] + capabilities[4:]) == {"0" * 16}  # the bounding set alone may be full


def test_a_second_run_is_another_user(isolated: Box) -> None:
    if isolated.rung == "bubblewrap":
        pytest.skip("one user id in every namespace; the namespaces differ")
    assert isolated("os.getuid()") != isolated("os.getuid()")


def test_what_a_run_leaves_in_shared_memory_is_gone(isolated: Box) -> None:
    name = f"/dev/shm/speedrun-test-{os.getpid()}"
    assert isolated(f"tried(lambda: open({name!r}, 'w'))") == "worked"
    assert not Path(name).exists()
    assert isolated(f"readable({name!r})") is False


@needs_filter
def test_the_model_host_has_no_network_at_all(ruled: Box) -> None:
    assert ruled("tried(socket.socket)", role="host") == "PermissionError"


@needs_filter
@pytest.mark.parametrize("role", ["run", "host"])
def test_nothing_confined_leaves_a_mark_on_a_device_that_others_see(ruled: Box, role: str) -> None:
    """Root's script is root in bubblewrap's user namespace too, and the device is the machine's own."""
    before = Path("/dev/null").stat()
    assert ruled("tried(lambda: os.utime('/dev/null', ns=(1, 1)))", role=role) == "worked"
    after = Path("/dev/null").stat()
    assert (after.st_atime_ns > 1, after.st_mtime_ns > 1, after.st_mode) == (True, True, before.st_mode)


@needs_filter
def test_no_lock_of_a_model_host_is_seen_by_another(ruled: Box) -> None:
    """A lock on what all hosts can read would carry, from one to the other, what the audit keeps from them."""
    shared = str(PACKAGE / "errors.py")
    tries = f"tried(lambda: __import__('fcntl').flock(open({shared!r}), {fcntl.LOCK_SH | fcntl.LOCK_NB}))"
    with Path(shared).open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert ruled(tries, role="host") == "worked"
        assert ruled(tries, role="run") == "BlockingIOError"


def test_the_model_host_writes_into_scratch_alone(isolated: Box) -> None:
    places = ["/tmp/x", "/dev/shm/x", "/x", "/run/x", str(isolated.source / "x"), "here"]
    answers = isolated(f"[tried(lambda: open(p, 'w')) for p in {places}]", role="host")
    assert answers[-1] == "worked" and "worked" not in answers[:-1]


def test_several_processes_on_the_user_rung_are_partial_only() -> None:
    probe = sandbox.SandboxProbe("isolated", rung="user")
    assert [probe.level_for(1), probe.level_for(2)] == ["isolated", "partial"]
    assert sandbox.SandboxProbe("isolated", rung="bubblewrap").level_for(2) == "isolated"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="rungs are Linux's")
@pytest.mark.parametrize(
    ("works", "level", "rung"),
    [
        (["bubblewrap", "user", "landlock"], "isolated", "bubblewrap"),
        (["user", "landlock"], "isolated", "user"),
        (["landlock"], "partial", "landlock"),
        ([], "open", "guard"),
    ],
)
def test_the_probe_takes_the_best_rung_and_says_what_lacks(
    works: list[str], level: str, rung: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lack = ("", "") if "bubblewrap" in works else ("bubblewrap", "install it")
    monkeypatch.setattr(sandbox, "_bubblewrap_lack", lambda: lack)
    monkeypatch.setattr(sandbox, "lack_for", lambda asked: "" if asked in works else "not here")
    monkeypatch.setattr(sandbox.landlock, "abi", lambda: 7)
    found = sandbox.probe.__wrapped__()
    assert (found.level, found.rung) == (level, rung)
    assert (found.lacks == []) == (rung == "bubblewrap") and (found.remedy == "") == (rung == "bubblewrap")


def test_a_folder_closed_to_others_is_named(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    (closed / "inner").mkdir(parents=True)
    for folder in (tmp_path, *tmp_path.parents):
        if not folder.stat().st_mode & 1:
            assert sandbox.closed_to_others([str(closed / "inner")]) is not None
            break
    with open_folder() as place:
        (place / "closed" / "inner").mkdir(parents=True)
        (place / "closed").chmod(0o700)
        assert sandbox.closed_to_others([str(place / "closed" / "inner")]) == place / "closed"
        (place / "closed").chmod(0o711)
        assert sandbox.closed_to_others([str(place / "closed" / "inner")]) is None


def test_a_run_sees_only_the_first_gpus_of_its_class() -> None:
    common = ["/dev/nvidia-uvm", "/dev/nvidiactl"]
    nodes = [*common, *(f"/dev/nvidia{number}" for number in (10, 2, 3))]
    assert visible.first_gpus(nodes, 2) == sorted([*common, "/dev/nvidia2", "/dev/nvidia3"])
