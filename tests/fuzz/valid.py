"""A valid run.json made from the schema itself, so that a new field is fuzzed without a change here."""

from __future__ import annotations

from types import UnionType
from typing import Any, get_args, get_origin

from harness.bundle import RunRecord

SAMPLES: dict[Any, Any] = {str: "text", int: 1, float: 1.5, bool: True, Any: 2}


def sample(kind: Any) -> Any:
    """A value of a field's type."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is dict:
        return {"name": sample(inner[1])}
    if origin is list:
        return [sample(inner[0])]
    return sample(inner[0]) if origin is UnionType else SAMPLES[kind]


RUN_JSON: dict[str, Any] = {name: sample(field.annotation) for name, field in RunRecord.model_fields.items()}
RunRecord.model_validate(RUN_JSON, strict=True)
