"""The ledger of methods: who brought each, what it took the place of, who dropped it; all out of the records."""

from __future__ import annotations

from harness.evidence.records import history, load_record
from leaderboard import frames
from tests.evidence.board import Board
from tests.toy_submission import SCRIPT


def test_a_method_takes_the_place_of_those_of_its_kind_that_go(board: Board) -> None:
    board.submit(board.submission("first", 1.0))
    board.submit(board.submission("second", 0.8, SCRIPT.replace("momentum", "nesterov"), momentum="nesterov"))
    methods = frames.methods(board.where.records).query("history == 'toy/cpu-1thread'").set_index("method")
    assert methods.introduced.to_dict() == {"momentum": 1, "nesterov": 2}
    assert methods.dropped.fillna(0).to_dict() == {"momentum": 2, "nesterov": 0}
    assert methods.replaces.to_dict() == {"momentum": [], "nesterov": ["momentum"]}
    assert set(methods.kind) == {"optimizer"} and set(methods.source) == {"Polyak, 1964"}
    attempts = frames.attempts(board.where.records).set_index("title")
    assert attempts.methods_added.to_dict() == {"speed 1.0": ["momentum"], "speed 0.8": ["nesterov"]}
    assert attempts.methods_dropped.to_dict() == {"speed 1.0": [], "speed 0.8": ["momentum"]}


def test_a_method_that_is_off_by_default_is_dropped(board: Board) -> None:
    board.submit(board.submission("first", 1.0))
    board.submit(board.submission("second", 0.8, **{'kind = "optimizer"': 'kind = "optimizer"\ndefault = false'}))
    second = load_record(history(board.where)[1])
    assert (second.methods, second.methods_added, second.methods_dropped) == ({}, [], ["momentum"])


def test_a_method_that_is_off_by_default_is_not_introduced(board: Board) -> None:
    board.submit(board.submission("first", 1.0, **{'kind = "optimizer"': 'kind = "optimizer"\ndefault = false'}))
    assert load_record(history(board.where)[0]).methods_added == []
