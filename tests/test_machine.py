"""Fingerprint and hardware classes, from made-up machines; the real one only has to be readable."""

from __future__ import annotations

import itertools
import json
import os
import signal
import stat
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.task import hardware_class
from harness.machine import (
    MIB,
    Gpu,
    Machine,
    cpu_model,
    cpu_quota,
    fingerprint,
    gpu_class,
    hardware_classes,
    memory_limits,
    parse_gpus,
    sample_load,
)

GIB = 1024 * MIB
H200 = Gpu("NVIDIA H200", 141 * GIB, "570.86", split=False)
MACHINE = Machine(
    platform="Linux-x86_64",
    kernel="6.1.0",
    cpu="AMD EPYC 9654",
    logical_cores=16,
    affinity_cores=16,
    quota_cores=None,
    memory_bytes=64 * GIB,
    gpus=(),
    python="3.11.7",
    packages={"torch": "2.13.0", "numpy": "2.4.6"},
    cuda_build="12.8",
    governor="performance",
    virtual=False,
)


def test_this_machine_can_be_read_and_its_fingerprint_is_json() -> None:
    machine = fingerprint()
    assert json.loads(json.dumps(machine.to_json()))["digest"] == machine.digest
    assert machine.cpu
    assert machine.memory_bytes > GIB
    assert 1 <= machine.allowed_cores <= machine.logical_cores
    assert "cpu-1thread" in hardware_classes(machine)


def test_two_fingerprints_of_one_machine_agree() -> None:
    assert fingerprint() == fingerprint()


def test_the_fingerprint_follows_the_affinity_but_the_digest_does_not() -> None:
    allowed = os.sched_getaffinity(0)
    before = fingerprint()
    os.sched_setaffinity(0, {min(allowed)})
    try:
        pinned = fingerprint()
    finally:
        os.sched_setaffinity(0, allowed)
    assert pinned.allowed_cores == 1
    assert pinned.digest == before.digest


def test_the_fingerprint_does_not_import_torch() -> None:
    code = "import sys; from harness.machine import fingerprint; fingerprint(); print('torch' in sys.modules)"
    root = Path(__file__).parents[1]
    answer = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"


@pytest.mark.parametrize(
    "change",
    [
        {"cpu": "Intel Xeon"},
        {"logical_cores": 8},
        {"gpus": (H200,)},
        {"platform": "Linux-aarch64"},
        {"python": "3.12.7"},
        {"packages": {"torch": "2.12.0"}},
        {"cuda_build": "13.0"},
    ],
)
def test_the_digest_changes_with_what_seconds_depend_on(change: dict) -> None:
    assert replace(MACHINE, **change).digest != MACHINE.digest


@pytest.mark.parametrize("change", [{"name": "NVIDIA H100 80GB HBM3"}, {"driver": "580.1"}])
def test_the_digest_changes_with_the_gpu_and_its_driver(change: dict) -> None:
    machine = replace(MACHINE, gpus=(H200,))
    assert replace(machine, gpus=(replace(H200, **change),)).digest != machine.digest


@pytest.mark.parametrize(
    "change",
    [
        {"python": "3.11.9"},
        {"kernel": "6.2.0"},
        {"governor": "powersave"},
        {"memory_bytes": GIB},
        {"affinity_cores": 2},
        {"packages": {"torch": "2.13.0", "numpy": "2.5.0"}},
    ],
)
def test_the_digest_stays_when_only_other_things_change(change: dict) -> None:
    assert replace(MACHINE, **change).digest == MACHINE.digest


@pytest.mark.parametrize(
    ("product", "name"),
    [
        ("NVIDIA H200", "H200"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100PCIe"),
        ("NVIDIA H100 NVL", "H100NVL"),
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("NVIDIA A100-PCIE-40GB", "A100PCIE"),
        ("Tesla V100-SXM2-16GB", "V100"),
        ("Tesla T4", "T4"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA GeForce RTX 4090", "RTX4090"),
        ("NVIDIA GeForce RTX 4070 Ti SUPER", "RTX4070TiSUPER"),
        ("NVIDIA RTX 6000 Ada Generation", "RTX6000Ada"),
        ("NVIDIA GeForce RTX 3080 Laptop GPU", "RTX3080Laptop"),
        ("NVIDIA GH200 480GB", "GH200"),
        ("", None),
        ("weird/name", None),
    ],
)
def test_short_names_of_gpus(product: str, name: str | None) -> None:
    assert gpu_class(product) == name


@given(st.text(max_size=40))
def test_every_class_offered_can_be_parsed_whatever_the_gpu_is_called(product: str) -> None:
    machine = replace(MACHINE, gpus=(replace(H200, name=product),) * 3)
    for name in hardware_classes(machine):
        assert hardware_class(name).name == name


@pytest.mark.parametrize(
    ("machine", "classes"),
    [
        (MACHINE, ["cpu-1thread"]),
        (replace(MACHINE, gpus=(H200,)), ["cpu-1thread", "1xH200"]),
        (replace(MACHINE, gpus=(H200,) * 8), ["cpu-1thread", "1xH200", "2xH200", "4xH200", "8xH200"]),
        (replace(MACHINE, gpus=(H200,) * 3), ["cpu-1thread", "1xH200", "2xH200", "3xH200"]),
        (replace(MACHINE, gpus=(H200,), cuda_build=None), ["cpu-1thread"]),
        (replace(MACHINE, gpus=(replace(H200, split=True),)), ["cpu-1thread"]),
    ],
)
def test_hardware_classes_follow_the_gpus_torch_can_use(machine: Machine, classes: list[str]) -> None:
    assert hardware_classes(machine) == classes


def test_gpus_are_read_from_what_nvidia_smi_says() -> None:
    rows = [
        ["NVIDIA H200", "143771", "570.86", "Disabled"],
        ["NVIDIA GB10", "[N/A]", "580.1", "[N/A]"],
        ["junk"],
    ]
    assert parse_gpus(rows) == (
        Gpu("NVIDIA H200", 143771 * MIB, "570.86", split=False),
        Gpu("NVIDIA GB10", None, "580.1", split=False),
    )


@pytest.mark.parametrize(
    ("script", "names"),
    [
        ("echo 'NVIDIA H200, 143771, 570.86, Disabled'", ["NVIDIA H200"]),
        ("echo 'NVIDIA-SMI has failed because it could not talk to the driver'; exit 9", []),
        ("printf '\\377\\376, 1, 2, 3\\n'", ["\ufffd\ufffd"]),
        ("true", []),
    ],
)
def test_a_fingerprint_comes_whatever_nvidia_smi_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, names: list[str]
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert [gpu.name for gpu in fingerprint().gpus] == names


@pytest.mark.parametrize(
    ("cpuinfo", "name"),
    [
        ("processor : 0\nmodel name\t: AMD EPYC 9654\nprocessor : 1\nmodel name : other\n", "AMD EPYC 9654"),
        ("processor : 0\nCPU implementer : 0x41\nCPU part : 0xd40\n", "ARM implementer 0x41 part 0xd40"),
    ],
)
def test_the_cpu_is_named_from_cpuinfo(cpuinfo: str, name: str) -> None:
    assert cpu_model(cpuinfo) == name


def test_the_cpu_has_some_name_without_cpuinfo() -> None:
    assert cpu_model("")


@pytest.mark.parametrize(
    ("line", "build"),
    [("cuda: Optional[str] = '12.8'", "12.8"), ("cuda = '13.0'", "13.0"), ("cuda = None", None)],
)
def test_the_cuda_build_is_read_without_importing_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, build: str | None
) -> None:
    package = tmp_path / "torch"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('torch was imported')\n")
    (package / "version.py").write_text(f"__version__ = '2.13.0'\n{line}\nhip: Optional[str] = '6.0'\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert fingerprint().cuda_build == build


@pytest.mark.parametrize(
    ("governors", "name"),
    [
        ([], None),
        (["performance"] * 2, "performance"),
        (["powersave", "performance"], "performance, powersave"),
    ],
)
def test_the_governor_names_every_policy_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, governors: list[str], name: str | None
) -> None:
    write(tmp_path, {f"cpu{core}/cpufreq/scaling_governor": text + "\n" for core, text in enumerate(governors)})
    monkeypatch.setattr("harness.machine.CPUFREQ", tmp_path)
    assert fingerprint().governor == name


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.mark.parametrize(
    ("files", "membership", "cores"),
    [
        ({"cpu.max": "150000 100000\n"}, "0::/\n", 1.5),
        ({"cpu.max": "150000 50000\n"}, "0::/\n", 3.0),
        ({"cpu.max": "max 100000\n"}, "0::/\n", None),
        ({"a/cpu.max": "200000 100000\n", "a/b/cpu.max": "max 100000\n"}, "0::/a/b\n", 2.0),
        ({"a/cpu.max": "200000 100000\n", "a/b/cpu.max": "50000 100000\n"}, "0::/a/b\n", 0.5),
        (
            {"cpu/job/cpu.cfs_quota_us": "300000\n", "cpu/job/cpu.cfs_period_us": "100000\n"},
            "4:cpu,cpuacct:/job\n0::/\n",
            3.0,
        ),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, "1:cpu:/\n", None),
        ({"cpu.max": "100000 0\n"}, "0::/\n", None),
        ({}, "", None),
        ({}, "nonsense\n::\n", None),
    ],
)
def test_the_tightest_cpu_quota_of_the_cgroups_counts(
    tmp_path: Path, files: dict[str, str], membership: str, cores: float | None
) -> None:
    write(tmp_path, files)
    assert cpu_quota(tmp_path, membership) == cores


def test_memory_limits_of_both_cgroup_versions_are_read(tmp_path: Path) -> None:
    write(tmp_path, {"a/memory.max": "1000\n", "memory.max": "max\n", "memory/memory.limit_in_bytes": "2000\n"})
    assert memory_limits(tmp_path, "0::/a\n2:memory:/\n") == [1000, 2000]


@pytest.mark.parametrize(
    ("affinity", "quota", "allowed"), [(4, None, 4), (4, 2.5, 2), (1, 8.0, 1), (4, 0.5, 1), (2, 64.0, 2)]
)
def test_allowed_cores_are_the_smaller_of_affinity_and_quota(affinity: int, quota: float | None, allowed: int) -> None:
    assert replace(MACHINE, affinity_cores=affinity, quota_cores=quota).allowed_cores == allowed


def test_a_load_sample_sees_work_of_others_but_not_its_own() -> None:
    spin = "import os\nif os.fork() == 0:\n os.setsid()\n print(os.getpid(), flush=True)\n while True: pass\n"
    parent = subprocess.Popen([sys.executable, "-c", spin], stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    spinning = int(parent.stdout.readline())
    # Its parent ends, so the spinning process is nobody's child here.
    parent.wait()
    stop = threading.Event()
    own_work = threading.Thread(target=lambda: all(not stop.is_set() for _ in itertools.count()))
    own_work.start()
    try:
        pids = [process.pid for process in sample_load(0.2, top=100).others]
    finally:
        stop.set()
        own_work.join()
        os.kill(spinning, signal.SIGKILL)
        parent.stdout.close()
    assert spinning in pids
    assert os.getpid() not in pids
