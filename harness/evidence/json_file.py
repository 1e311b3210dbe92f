"""One JSON object in a file, read strictly into its model: what verdicts, verifications and the like are kept as."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from harness.core.files import parse_json, read_file
from harness.core.task import Strict
from harness.errors import UserError, describe_validation

Kept = TypeVar("Kept", bound=Strict)


def read_object(
    path: Path, kind: type[Kept], max_bytes: int, remedy: str, unreadable: str | None = None, follow_link: bool = False
) -> Kept:
    """The object of a file. Raises UserError with file, field and `remedy`; `unreadable` where the file cannot be read.

    A key that stands twice is refused too, of which the model would see only the last.
    """
    content = read_file(path, max_bytes, unreadable or remedy, follow_link=follow_link)
    try:
        parse_json(content)
        return kind.model_validate_json(content, strict=True)
    except ValidationError as error:
        raise describe_validation(error, path, remedy) from None
    except ValueError as error:
        raise UserError(f"{path}: {error}", remedy) from None
