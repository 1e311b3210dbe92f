"""Student's t with the checks its users need. `scipy.special`, because `scipy.stats` takes half a second to import."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import special

FloatArray = NDArray[np.float64]


def require_finite(name: str, value: float) -> None:
    """Raises ValueError that names the field unless `value` is a finite number."""
    if not math.isfinite(value):
        raise ValueError(f"{name}: must be a finite number, not {value}")


def require_positive(name: str, value: float) -> None:
    """Raises ValueError that names the field unless `value` is finite and above zero."""
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name}: must be finite and above zero, not {value}")


def require_not_negative(name: str, value: float) -> None:
    """Raises ValueError that names the field unless `value` is finite and at least zero."""
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name}: must be finite and at least zero, not {value}")


def require_probability(name: str, value: float) -> None:
    """Raises ValueError that names the field unless 0 < value < 1."""
    if not 0 < value < 1:
        raise ValueError(f"{name}: must be between 0 and 1, not {value}")


def finite_array(name: str, values: Sequence[float] | FloatArray, at_least: int = 2) -> FloatArray:
    """`values` as float64 [n]. Raises ValueError that names the field on n < `at_least`, NaN or infinity."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size < at_least:
        raise ValueError(f"{name}: at least {at_least} values are needed, not {array.size}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: every value must be a finite number")
    return array


def critical_value(level: float, degrees_of_freedom: float) -> float:
    """The t that Student's distribution exceeds with probability `level` (one-sided)."""
    require_probability("level", level)
    require_positive("degrees_of_freedom", degrees_of_freedom)
    return float(-special.stdtrit(degrees_of_freedom, level))


def one_sided_p(difference: float, standard_error: float, degrees_of_freedom: float) -> float:
    """P(T >= difference / standard_error) under Student's t: small when `difference` is far above zero.

    Without any spread the sign of the difference decides: 0 above zero, 1 at zero and below.
    """
    if standard_error == 0:
        return 0.0 if difference > 0 else 1.0
    return float(special.stdtr(degrees_of_freedom, -difference / standard_error))


def mean_and_spread(values: FloatArray) -> tuple[float, float]:
    """Mean and sample standard deviation (n - 1) of a float64 [n], in the unit of the values."""
    return float(values.mean()), float(values.std(ddof=1))
