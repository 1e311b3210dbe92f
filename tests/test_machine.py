"""Fingerprint, hardware classes and warnings, from made-up machines; the real one only has to be readable."""

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
    Load,
    Machine,
    Process,
    cpu_model,
    cpu_quota,
    fingerprint,
    gpu_class,
    hardware_classes,
    memory_limits,
    parse_gpus,
    sample_load,
)
from harness.machine_warnings import WARNING_IDS, warnings_after_run, warnings_before_run

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
QUIET = Load(
    average=(0.5, 0.5, 0.5),
    other_cores=0.05,
    others=(),
    free_bytes=32 * GIB,
    swap_used_bytes=0,
    swapped_bytes=0,
    gpu_used_bytes=(),
    gpu_processes=(),
    clock_synchronized=True,
)
CPU = hardware_class("cpu-1thread")
GPU = hardware_class("1xH200")


def ids_before(machine: Machine = MACHINE, load: Load = QUIET, name: str = "cpu-1thread", **more: str) -> list[str]:
    return [warning.id for warning in warnings_before_run(machine, load, hardware_class(name), **more)]


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


def test_a_quiet_machine_gets_no_warnings() -> None:
    assert ids_before() == []
    assert ids_before(trust="isolated") == []
    assert warnings_after_run(wall_seconds=60.0, cpu_seconds=59.8, cores=1) == []


@pytest.mark.parametrize(
    ("expected", "machine", "load"),
    [
        ("machine-busy", {}, {"other_cores": 2.0, "others": (Process(7, "cc1plus", 1.9),)}),
        ("machine-busy", {"logical_cores": 2}, {"other_cores": 0.3}),
        ("swapping", {}, {"swapped_bytes": 8 * MIB}),
        ("clock-skew", {}, {"clock_synchronized": False}),
        ("governor-not-performance", {"governor": "powersave"}, {}),
        ("few-cores", {"affinity_cores": 1}, {}),
        ("few-cores", {"quota_cores": 1.5}, {}),
        ("low-memory", {}, {"free_bytes": GIB}),
        ("low-memory", {"memory_bytes": GIB}, {}),
    ],
)
def test_each_disturbance_before_a_run_gives_its_own_warning(expected: str, machine: dict, load: dict) -> None:
    assert ids_before(replace(MACHINE, **machine), replace(QUIET, **load)) == [expected]


def test_what_cannot_be_read_is_no_warning() -> None:
    assert ids_before(replace(MACHINE, governor=None), replace(QUIET, clock_synchronized=None)) == []


def test_swap_that_is_only_in_use_is_no_warning() -> None:
    assert ids_before(load=replace(QUIET, swap_used_bytes=4 * GIB)) == []


@pytest.mark.parametrize("load", [{"gpu_used_bytes": (0, 9 * GIB)}, {"gpu_processes": ("python (pid 7)",)}])
def test_a_gpu_in_use_matters_only_to_a_gpu_class(load: dict) -> None:
    assert ids_before(load=replace(QUIET, **load)) == []
    assert ids_before(load=replace(QUIET, **load), name="1xH200") == ["other-processes-on-gpu"]


@pytest.mark.parametrize("level", ["partial", "open"])
def test_a_run_without_isolation_is_warned_of(level: str) -> None:
    assert ids_before(trust=level) == ["no-sandbox"]


@pytest.mark.parametrize(
    ("expected", "numbers"),
    [
        (["machine-busy"], {"wall_seconds": 60.0, "cpu_seconds": 58.0, "cores": 1}),
        ([], {"wall_seconds": 60.0, "cpu_seconds": 58.3, "cores": 1}),
        (["machine-busy"], {"wall_seconds": 60.0, "cpu_seconds": 0.0, "cores": 1}),
        ([], {"wall_seconds": 60.0, "cpu_seconds": 5.0, "cores": 0}),
        ([], {"wall_seconds": 60.0, "cpu_seconds": 119.0, "cores": 2}),
        (["swapping"], {"wall_seconds": 60.0, "cpu_seconds": 60.0, "cores": 1, "swapped_bytes": 9 * MIB}),
        (
            ["clock-skew"],
            {"wall_seconds": 60.0, "cpu_seconds": 60.0, "cores": 1, "clocks_apart_seconds": 30.0},
        ),
    ],
)
def test_warnings_after_a_run(expected: list[str], numbers: dict) -> None:
    assert [warning.id for warning in warnings_after_run(**numbers)] == expected


@given(
    st.builds(
        Load,
        average=st.just((0.0, 0.0, 0.0)),
        other_cores=st.floats(0, 1000),
        others=st.lists(st.builds(Process, st.integers(), st.text(), st.floats(0, 8)), max_size=3).map(tuple),
        free_bytes=st.integers(0, 2**50),
        swap_used_bytes=st.integers(0, 2**50),
        swapped_bytes=st.integers(0, 2**50),
        gpu_used_bytes=st.lists(st.integers(0, 2**40), max_size=3).map(tuple),
        gpu_processes=st.lists(st.text(), max_size=2).map(tuple),
        clock_synchronized=st.sampled_from([True, False, None]),
    ),
    st.sampled_from([None, "isolated", "partial", "open"]),
)
def test_every_warning_is_of_the_closed_list_and_has_a_sentence_and_a_remedy(load: Load, trust: str | None) -> None:
    for hardware in (CPU, GPU):
        for warning in warnings_before_run(replace(MACHINE, governor="{ondemand}"), load, hardware, trust):
            assert warning.id in WARNING_IDS
            assert warning.text
            assert warning.remedy
