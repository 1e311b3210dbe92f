"""Own records of these tests are filed by the real commands, over runs that cost nothing."""

from __future__ import annotations

from tests.evidence.conftest import board, chain, own_machine_lock

__all__ = ["board", "chain", "own_machine_lock"]
