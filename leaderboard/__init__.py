"""The board: the history of records and what can be learnt from it.

    import leaderboard
    leaderboard.records()                       # a pandas frame; columns and units in leaderboard.columns
    leaderboard.runs(), .curves(), .methods(), .verifications(), .attempts(), .ablations()

Reads `records/` and the imported public history; never runs anything. pandas is imported by the first call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

FRAMES = ("ablations", "attempts", "curves", "methods", "records", "runs", "verifications")

if TYPE_CHECKING:
    from leaderboard.frames import ablations, attempts, curves, methods, records, runs, verifications

__all__ = ["ablations", "attempts", "curves", "methods", "records", "runs", "verifications"]


def __getattr__(name: str) -> Any:
    if name not in FRAMES:
        raise AttributeError(f"module 'leaderboard' has no attribute {name!r}")
    from leaderboard import frames

    return getattr(frames, name)
