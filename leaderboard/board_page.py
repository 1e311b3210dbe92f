"""A board with all that its pages show."""

from __future__ import annotations

from dataclasses import dataclass

from leaderboard.lifelines import Lifeline, lifelines
from leaderboard.store import Board, Row, Store


@dataclass(frozen=True)
class BoardPage:
    """A board with all that its pages show; `folder` is its place in the site."""

    board: Board
    folder: str
    records: list[Row]
    best: Row | None
    lifelines: list[Lifeline]


def board_page(store: Store, board: Board) -> BoardPage:
    """A board of the store with its lifelines."""
    rows = store.records_of(board.name)
    lines = lifelines(store.methods_of(board.name), rows)
    return BoardPage(board, board.name.replace("/", "-"), rows, store.reigning(board.name), lines)
