"""The lock of the machine: timed campaigns one at a time, and no tuning beside them."""

from __future__ import annotations

import pytest

from harness.core.task import hardware_class
from harness.errors import UserError
from harness.evidence.locks import require_ready_machine, timing_alone, untimed


def test_tunings_run_side_by_side() -> None:
    with untimed("one"), untimed("another"):
        pass


def test_no_campaign_is_timed_during_a_tuning() -> None:
    with untimed("tuning my-attempt"), pytest.raises(UserError, match="slow the other: process .* tuning my-attempt"):
        require_ready_machine(hardware_class("cpu-1thread"))


def test_no_tuning_begins_while_a_campaign_is_timed() -> None:
    refused = pytest.raises(UserError, match="would be slowed: process .* campaign 7")
    with timing_alone("campaign 7"), refused as raised, untimed("a tuning"):
        pass
    assert "wait until it has ended" in raised.value.remedy


def test_the_machine_is_free_when_the_last_tuning_has_ended() -> None:
    with untimed("one"):
        with untimed("another"):
            pass
        with pytest.raises(UserError):
            require_ready_machine(hardware_class("cpu-1thread"))
    require_ready_machine(hardware_class("cpu-1thread"))


def test_no_campaign_is_planned_for_a_class_of_other_machines() -> None:
    with pytest.raises(UserError, match="64xZ9: a run takes 64 Z9 of this machine"):
        require_ready_machine(hardware_class("64xZ9"))
