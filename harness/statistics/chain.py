"""The board's number: the product of the races along a chain of records, and how it agrees with a direct race."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import special

from harness.statistics.ratio import RatioEstimate, Slope


@dataclass(frozen=True)
class Disagreement:
    """Product of a chain against a direct race: log(product / direct), its standard error, z, and the two-sided p."""

    log_difference: float
    standard_error: float
    z: float
    p: float


def chain_product(races: Sequence[RatioEstimate]) -> RatioEstimate:
    """The ratio of the last record to the first reference: sums of logs, errors in squares; `.interval` gives limits.

    Assumes that every race has its own runs (independent pair noise) and that all share the same s, whose error
    therefore adds up before it is squared: that is why loss gains are kept apart. Degrees of freedom after Welch
    (Biometrika 34, 1947) and Satterthwaite (Biometrics 2, 1946). Races that were kept because they succeeded and
    stopped when they did are biased upward, a product of them more so; only a direct race shows by how much.
    Raises ValueError on no races.
    """
    if not races:
        raise ValueError("races: at least one is needed")
    variances = [race.standard_error**2 for race in races]
    freedoms = [race.degrees_of_freedom for race in races]
    return RatioEstimate(
        log_ratio=math.fsum(race.log_ratio for race in races),
        loss_gain=math.fsum(race.loss_gain for race in races),
        standard_error=math.sqrt(math.fsum(variances)),
        degrees_of_freedom=_pooled_freedom(variances, freedoms),
    )


def compare_with_direct(product: RatioEstimate, direct: RatioEstimate, slope: Slope) -> Disagreement:
    """z and two-sided p of the difference between the product of a chain and a direct race of the same two ends.

    The error of s enters by the difference of the loss gains only (delta method), as both use the same s.
    p is from Student's t with pooled degrees of freedom.
    """
    variances = [product.standard_error**2, direct.standard_error**2]
    difference = RatioEstimate(
        log_ratio=product.log_ratio - direct.log_ratio,
        loss_gain=product.loss_gain - direct.loss_gain,
        standard_error=math.sqrt(sum(variances)),
        degrees_of_freedom=_pooled_freedom(variances, [product.degrees_of_freedom, direct.degrees_of_freedom]),
    )
    error = math.hypot(difference.standard_error, difference.error_of_slope(slope))
    if error == 0:
        raise ValueError("standard_error: product and direct race have no spread to compare with")
    z = difference.log_at_equal_loss(slope) / error
    p = 2 * float(special.stdtr(difference.degrees_of_freedom, -abs(z)))
    return Disagreement(difference.log_at_equal_loss(slope), error, z, p)


def _pooled_freedom(variances: Sequence[float], freedoms: Sequence[float]) -> float:
    """Degrees of freedom of a sum of estimated variances; the smallest one where there is no variance at all."""
    total = math.fsum(variances)
    if total == 0:
        return min(freedoms)
    return total**2 / math.fsum(v**2 / freedom for v, freedom in zip(variances, freedoms, strict=True))
