"""The one exception for what the user can fix: printed as a line, exit code 1, no traceback."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError

FIELDS_SHOWN = 10
MESSAGE_CHARACTERS = 300


class UserError(Exception):
    """Something the user can put right. The message names the file and field; `remedy` says what to do."""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}\n  remedy: {self.remedy}" if self.remedy else self.message


def describe_validation(error: ValidationError, path: Path | str, remedy: str) -> UserError:
    """Turns pydantic's report into one UserError that names the file and the first wrong fields."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    lines = [f"{field_name(item['loc'])}: {item['msg'][:MESSAGE_CHARACTERS]}" for item in found[:FIELDS_SHOWN]]
    if len(found) > FIELDS_SHOWN:
        lines.append(f"and {len(found) - FIELDS_SHOWN:,} more")
    return UserError(f"{path}: " + "; ".join(lines), remedy)


def field_name(place: Sequence[object]) -> str:
    """A field by the names and indices that lead to it; names that could pass for something else are quoted."""
    parts = [str(part) for part in place]
    shown = [part if re.fullmatch(r"[\w-]{1,80}", part) else repr(part[:80]) for part in parts]
    return ".".join(shown) or "file"
