"""Reading files that anybody may have written: nothing that can hang, nothing larger than agreed, parsed strictly."""

from __future__ import annotations

import errno
import json
import math
import os
import stat
from pathlib import Path
from typing import Any

from harness.errors import UserError, field_name

MAX_DEPTH = 32  # nesting of tables and lists; what we write ourselves has at most five levels
MAX_INTEGER = 2**63  # TOML promises 64 bits, and Python refuses to print a number of thousands of digits
READ_BYTES = 1 << 20


def open_regular(path: Path, follow_link: bool = True) -> int:
    """A descriptor to read a regular file. A pipe or device does not hang. Raises OSError with the path's name."""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    descriptor = os.open(path, flags if follow_link else flags | os.O_NOFOLLOW)
    kind = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(kind):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "a folder, not a file" if stat.S_ISDIR(kind) else "not a regular file", str(path))
    return descriptor


def read_file(path: Path, max_bytes: int, remedy: str, follow_link: bool = True) -> bytes:
    """The content of a regular file of at most `max_bytes`, whose size is looked at first. Raises UserError.

    What counts is what is read: a file that grows meanwhile, or that hides its size, is refused at the limit.
    """
    try:
        descriptor = open_regular(path, follow_link)
        try:
            if os.fstat(descriptor).st_size > max_bytes:
                raise _too_large(path, max_bytes)
            content = bytearray()
            while block := os.read(descriptor, READ_BYTES):
                content += block
                if len(content) > max_bytes:
                    raise _too_large(path, max_bytes)
        finally:
            os.close(descriptor)
    except OSError as error:
        is_link = error.errno == errno.ELOOP and not follow_link
        raise UserError(f"{path}: {'a link, not a file' if is_link else error.strerror}", remedy) from None
    return bytes(content)


def parse_json(content: bytes) -> Any:
    """One JSON value in UTF-8. Raises ValueError, in a line, also for what Python's parser lets pass.

    That is NaN, infinities, a name twice in one table, more than `MAX_DEPTH` levels, whole numbers over 64 bits.
    """
    try:
        value = json.loads(content.decode(), object_pairs_hook=_table, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    check_values(value)
    return value


def check_values(value: Any) -> None:
    """Raises ValueError for parsed JSON or TOML that is nested too deeply or holds an unusable number."""
    waiting: list[tuple[tuple[object, ...], Any]] = [((), value)]
    while waiting:
        place, item = waiting.pop()
        if len(place) > MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
        if isinstance(item, dict):
            waiting += [((*place, name), inner) for name, inner in item.items()]
        elif isinstance(item, list):
            waiting += [((*place, index), inner) for index, inner in enumerate(item)]
        elif isinstance(item, int) and not -MAX_INTEGER <= item < MAX_INTEGER:
            raise ValueError(f"{field_name(place)}: a whole number of more than 64 bits")
        elif isinstance(item, float) and not math.isfinite(item):
            raise ValueError(f"{field_name(place)}: not a finite number")


def _too_large(path: Path, max_bytes: int) -> UserError:
    return UserError(f"{path}: larger than {max_bytes:,} bytes", "remove what does not belong there")


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        raise ValueError("a table has a name twice")
    return table


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
