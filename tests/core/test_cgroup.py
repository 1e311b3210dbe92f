"""The control group's logic, on a folder that stands for the kernel's; its kill on a real one, where there is one."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from harness.core.cgroup import Cgroup, find_parent, process_began, remove_abandoned
from harness.core.sandbox import NO_LIMITS


class Kernel:
    """A version 2 hierarchy of plain files: groups are folders with the files that the kernel would put there."""

    def __init__(self, mount: Path) -> None:
        self.mount = mount

    def group(self, path: str, subtree: str = "") -> Path:
        folder = self.mount / path.strip("/")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cgroup.procs").write_text("")
        (folder / "cgroup.subtree_control").write_text(subtree)
        return folder

    def fill(self, cgroup: Cgroup, **files: str) -> None:
        for name, content in files.items():
            (cgroup.folder / name.replace("_", ".", 1)).write_text(content)


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    kernel = Kernel(tmp_path)
    kernel.group("/")
    return kernel


def test_the_first_group_upwards_with_both_controllers_is_taken(kernel: Kernel) -> None:
    kernel.group("user")
    slice_ = kernel.group("user/slice", "cpu memory pids")
    kernel.group("user/slice/shell")
    assert find_parent(kernel.mount, "/user/slice/shell") == slice_


def test_without_controllers_the_own_group_still_serves_to_kill(kernel: Kernel) -> None:
    own = kernel.group("own", "cpu")
    assert find_parent(kernel.mount, "/own") == own


def test_no_hierarchy_is_no_group(tmp_path: Path) -> None:
    assert find_parent(tmp_path, "/not/there") is None


def test_limits_are_written_where_the_kernel_has_their_files(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    make = Path.mkdir

    def mkdir(folder: Path, *arguments: object, **options: object) -> None:
        make(folder, *arguments, **options)  # type: ignore[arg-type]
        if folder.name.startswith("speedrun-"):
            for name in ("memory.max", "pids.max"):
                (folder / name).write_text("max\n")

    monkeypatch.setattr(Path, "mkdir", mkdir)
    cgroup = Cgroup(kernel.mount, NO_LIMITS)
    assert int((cgroup.folder / "memory.max").read_text()) > NO_LIMITS.memory_bytes
    assert int((cgroup.folder / "pids.max").read_text()) > NO_LIMITS.tasks
    assert not (cgroup.folder / "memory.swap.max").exists()


def test_numbers_are_read_from_the_files_and_none_without_them(kernel: Kernel) -> None:
    cgroup = Cgroup(kernel.mount, NO_LIMITS)
    assert (cgroup.cpu_seconds(), cgroup.memory_bytes(), cgroup.tasks()) == (None, None, None)
    assert not cgroup.refused_forks() and not cgroup.ran_out_of_memory()
    kernel.fill(
        cgroup, cpu_stat="usage_usec 1500000\nuser_usec 1\n", memory_current="4096\n", pids_current="3\n",
        pids_events="max 2\n", memory_events="low 0\noom_kill 1\n",
    )  # fmt: skip
    assert (cgroup.cpu_seconds(), cgroup.memory_bytes(), cgroup.tasks()) == (1.5, 4096, 3)
    assert cgroup.refused_forks() and cgroup.ran_out_of_memory()


def test_a_group_whose_maker_is_gone_is_removed_and_no_other(kernel: Kernel) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    own = f"{os.getpid()}-{process_began(os.getpid())}"
    left = [kernel.mount / f"speedrun-{owner}-00000000" for owner in (f"{gone.pid}-1", f"{os.getpid()}-1")]
    kept = [kernel.mount / name for name in (f"speedrun-{own}-00000000", "speedrun-by-hand", f"speedrun-{gone.pid}-0")]
    full = kernel.mount / f"speedrun-{gone.pid}-1-11111111" / "with-something-in-it"
    for folder in (*left, *kept, full):
        folder.mkdir(parents=True)
    remove_abandoned(kernel.mount)
    assert [folder.exists() for folder in (*left, *kept, full)] == [False] * 2 + [True] * 4


def test_the_kernel_kills_a_group_whole_and_counts_its_cpu_time() -> None:
    parent = find_parent()
    if parent is None:
        pytest.skip("no writable control group of version 2 here")
    cgroup = Cgroup(parent, NO_LIMITS)
    try:
        command = cgroup.command(["sh", "-c", "setsid sh -c 'while :; do :; done' & while :; do :; done"])
        process = subprocess.Popen(command)
        while (cgroup.cpu_seconds() or 0) < 0.2:
            time.sleep(0.05)
        assert len((cgroup.folder / "cgroup.procs").read_text().split()) >= 2
        cgroup.kill()
        assert process.wait() < 0
    finally:
        cgroup.kill()
        cgroup.remove()
    assert not cgroup.folder.exists()
