"""Tunings of these tests take a machine lock of their own: a campaign may be timed on this machine."""

from tests.evidence.conftest import own_machine_lock

__all__ = ["own_machine_lock"]
