"""Warnings before and after a run, from a made-up machine and its load."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.task import hardware_class
from harness.machine import MIB, Load, Machine, Process
from harness.machine_warnings import WARNING_IDS, warnings_after_run, warnings_before_run
from tests.test_machine import GIB, MACHINE

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


def test_a_quiet_machine_gets_no_warnings() -> None:
    assert ids_before() == []
    assert ids_before(trust="isolated") == []
    assert warnings_after_run(wall_seconds=60.0, lost_seconds=0.2, cores=1) == []


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
        (["machine-busy"], {"wall_seconds": 60.0, "lost_seconds": 2.0, "cores": 1}),
        ([], {"wall_seconds": 60.0, "lost_seconds": 1.7, "cores": 1}),
        ([], {"wall_seconds": 60.0, "lost_seconds": None, "cores": 1}),
        ([], {"wall_seconds": 60.0, "lost_seconds": 55.0, "cores": 0}),
        ([], {"wall_seconds": 60.0, "lost_seconds": 2.0, "cores": 2}),
        (["swapping"], {"wall_seconds": 60.0, "lost_seconds": 0.0, "cores": 1, "swapped_bytes": 9 * MIB}),
        (["clock-skew"], {"wall_seconds": 60.0, "lost_seconds": 0.0, "cores": 1, "clocks_apart_seconds": 30.0}),
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
