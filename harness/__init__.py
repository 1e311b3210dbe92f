"""A frozen data, clock and evaluation harness for language-model training. A submission needs `connect`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.core.run import Run

__all__ = ["connect"]


def connect() -> Run:
    """Connects a training script to the harness that launched it: see harness/core/run.py."""
    from harness.core.run import connect_run

    return connect_run()
