"""The one exception for what the user can fix: printed as a line, exit code 1, no traceback."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class UserError(Exception):
    """Something the user can put right. The message names the file and field; `remedy` says what to do."""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}\n  remedy: {self.remedy}" if self.remedy else self.message


def describe_validation(error: ValidationError, path: Path | str, remedy: str) -> UserError:
    """Turns pydantic's report into one UserError that names the file and each wrong field."""
    lines = [f"{'.'.join(str(part) for part in item['loc']) or 'file'}: {item['msg']}" for item in error.errors()]
    return UserError(f"{path}: " + "; ".join(lines), remedy)
