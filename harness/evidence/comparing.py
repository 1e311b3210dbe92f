"""Is a kept value what was computed again?"""

from __future__ import annotations

import math
from dataclasses import asdict, is_dataclass
from typing import Any

from harness.core.task import Strict

ROUNDING = 1e-6
RESAMPLED = {"bootstrap": 0.02}  # by other versions of numpy and scipy drawn otherwise; these fields decide nothing


def same(kept: Any, due: Any, rounding: float = ROUNDING) -> bool:
    """Whether a kept value is what was computed again; other machines round the last digits differently."""
    if isinstance(kept, float) and isinstance(due, float):
        return math.isclose(kept, due, rel_tol=rounding)
    if is_dataclass(kept) and is_dataclass(due):
        return same(asdict(kept), asdict(due), rounding)  # type: ignore[arg-type]
    if isinstance(kept, Strict) and isinstance(due, Strict):
        return same(kept.model_dump(), due.model_dump(), rounding)
    if isinstance(kept, dict) and isinstance(due, dict):
        roundings = {name: RESAMPLED.get(name, rounding) for name in kept}
        return kept.keys() == due.keys() and all(same(kept[name], due[name], roundings[name]) for name in kept)
    return bool(kept == due)
