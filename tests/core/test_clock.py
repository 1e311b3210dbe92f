"""What the kernel's counters say about a run's time."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from harness.core import clock
from harness.core.clock import Clock, Counters, read_counters

TICKS = os.sysconf("SC_CLK_TCK")


@pytest.fixture
def stat(tmp_path: Path) -> Path:
    """CPUs 0 and 1, in ticks: user nice system idle iowait irq softirq steal guest guest_nice."""
    path = tmp_path / "stat"
    path.write_text("cpu  9 9 9 9 9 9 9 9 0 0\ncpu0 5 0 1 700 30 0 0 40 0 0\ncpu1 5 0 1 100 0 0 0 7 0 0\nintr 1 2\n")
    return path


class Kernel:
    """Counters, clock and CPU time that say what a test wants, before and after."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, before: Counters | None, after: Counters | None) -> None:
        counters, times, cpu = iter([before, after]), iter([0, 10 * 10**9]), iter([1.0, 5.0])
        monkeypatch.setattr(clock, "read_counters", lambda cpus: next(counters))
        monkeypatch.setattr(clock, "nanoseconds", lambda: next(times))
        self.clock = Clock([0], lambda: next(cpu))


def test_idle_counts_waiting_for_the_disk_and_only_the_cpus_asked_for(stat: Path) -> None:
    assert read_counters([0], stat) == Counters(730 / TICKS, 40 / TICKS)
    assert read_counters([0, 1], stat) == Counters(830 / TICKS, 47 / TICKS)


@pytest.mark.parametrize("text", ["", "cpu0 1 2\n", "cpu0 a b c d e f g h\n"])
def test_a_kernel_that_shows_no_counters_is_no_error(stat: Path, text: str) -> None:
    stat.write_text(text)
    assert read_counters([0], stat) is None
    assert read_counters([0], stat / "nowhere") is None


def test_this_kernel_counts_the_cpus_of_this_process() -> None:
    if not clock.STAT.exists():
        pytest.skip("no /proc/stat")
    assert read_counters(sorted(os.sched_getaffinity(0))) is not None


def test_time_that_was_neither_idle_nor_the_runs_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    timing = Kernel(monkeypatch, Counters(100.0, 3.0), Counters(104.0, 4.5)).clock.read()
    assert (timing.wall, timing.cpu, timing.lost, timing.stolen) == (10.0, 4.0, 2.0, 1.5)


def test_a_run_that_only_idles_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    timing = Kernel(monkeypatch, Counters(100.0, 0.0), Counters(106.0, 0.0)).clock.read()
    assert timing.wall - timing.cpu == 6.0 and timing.lost == 0.0


def test_a_machine_that_stood_still_lost_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Kernel(monkeypatch, Counters(100.0, 0.0), Counters(100.0, 0.0)).clock.share_lost() == 0.6


def test_without_counters_nothing_is_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(monkeypatch, None, Counters(100.0, 0.0))
    assert kernel.clock.read().lost is None


def test_the_clock_is_the_one_that_no_date_corrects() -> None:
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
    assert before <= clock.nanoseconds() <= time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
