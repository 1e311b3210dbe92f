"""Hostile bytes: valid files with a wound, and structures that no honest writer makes. Two lengths of search."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.errors import UserError

# `make test` draws the first number for each of fifteen readers; `make test-all` more than 100,000 cases in all.
sizes = pytest.mark.parametrize("cases", [200, pytest.param(10_000, marks=pytest.mark.slow)])
sizes_of_commands = pytest.mark.parametrize("cases", [100, pytest.param(1000, marks=pytest.mark.slow)])  # 50 ms each

PIECES = [
    b"=", b"[", b"]", b"{", b"}", b'"', b"'''", b"\n", b"\r\n", b"\r", b"\0", b"\xef\xbb\xbf", b"\xff\xfe",
    b"\xed\xa0\x80", b"1e999", b"-1e999", b"nan", b"NaN", b"inf", b"Infinity", b"9" * 20, b"9" * 5000,
    b"0x" + b"f" * 5000, b"-1", b"true", b"null", b"1979-05-27", b"\\ud800", b"\\u0000", b"\x1b[2J", b"\xe2\x80\xae",
    b"../../etc/passwd", b"/dev/zero", b"[" * 2000, b'{"a":' * 2000, b"a." * 300, b"a." * 200 + b"a = 1\n",
    b"[[shards]]\n", b"[[x]]\n", b"__metadata__", b"#",
]  # fmt: skip

keys = st.text(max_size=8) | st.sampled_from(["", "..", "\ud800", "\x1b", "__metadata__", "kind", "name", "digests"])
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**63, -(2**63) - 1, 10**300, 10**4000, math.inf, math.nan, 1e308, -0.0])
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["\ud800", "\0", "\x1b]0;x\x07", "\u202e", "../x", "/dev/zero", "x" * 5000])
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4), max_leaves=12
)


def search(cases: int, strategy: st.SearchStrategy, read: Callable[[Any], object]) -> None:
    """Calls `read` on that many drawn cases; whatever it raises fails the test, with the smallest case found."""

    @settings(max_examples=cases, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(strategy)
    def each(case: Any) -> None:
        read(case)

    each()


def allowed(read: Callable[[], object], *also: type[Exception]) -> None:
    """The file is read, or refused with a message that a person can use."""
    try:
        read()
    except (UserError, *also) as error:
        assert str(error)


def wounded(content: bytes) -> st.SearchStrategy[bytes]:
    """Bytes near a valid file: one to three slices of it replaced by something else, doubled or cut off."""
    place = st.integers(0, len(content))
    wound = st.tuples(
        place, place, st.binary(max_size=12) | st.sampled_from(PIECES), st.sampled_from(["put", "double", "end"])
    )
    return st.lists(wound, min_size=1, max_size=3).map(lambda wounds: _apply(content, wounds))


def _apply(content: bytes, wounds: list[tuple[int, int, bytes, str]]) -> bytes:
    for first, second, piece, how in wounds:
        start, stop = sorted((first, second))
        if how == "double":
            content = content[:stop] + content[start:]
        elif how == "end":
            content = content[:start] + piece
        else:
            content = content[:start] + piece + content[min(stop, start + 40) :]
    return content


def retold(table: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A valid table with one to three of its fields, at any depth, left out, replaced or joined by others."""
    places = st.sampled_from(list(_places(table)))
    return st.lists(st.tuples(places, values, st.booleans()), min_size=1, max_size=3).map(
        lambda changes: _changed(table, changes)
    )


def _places(value: Any, before: tuple = ()) -> Any:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in items:
        yield (*before, name)
        yield from _places(inner, (*before, name))


def _changed(table: dict[str, Any], changes: list[tuple[tuple, Any, bool]]) -> dict[str, Any]:
    table = json.loads(json.dumps(table))
    for place, value, leave_out in changes:
        parent: Any = table
        try:
            for name in place[:-1]:
                parent = parent[name]
            if leave_out:
                del parent[place[-1]]
            else:
                parent[place[-1]] = value
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change took the place away
    return table


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


def as_toml(table: dict[str, Any]) -> bytes:
    """TOML where it can say the value; where it cannot, something near."""
    return "".join(f"{json.dumps(name)} = {_inline(value)}\n" for name, value in table.items()).encode(errors="replace")


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(name)} = {_inline(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_inline, value)) + "]"
    if isinstance(value, float):
        return str(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 2**64:
        return hex(value)  # has no limit on its digits
    return json.dumps(value)
