"""The product of a chain: sums of logs, the shared error of s, agreement with a direct race."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.statistics import RatioEstimate, Slope, chain_product, compare_with_direct
from tests.statistics.made_up import SLOPE

estimates = st.builds(
    RatioEstimate, st.floats(-0.2, 0.2), st.floats(-0.05, 0.05), st.floats(0.001, 0.05), st.integers(3, 15)
)


@given(st.lists(estimates, min_size=1, max_size=8), st.randoms())
def test_the_product_of_ratios_is_the_ratio_of_the_product_in_any_order(races, random) -> None:
    product = chain_product(races)
    ratios = [math.exp(race.log_at_equal_loss(SLOPE)) for race in races]
    assert math.exp(product.log_at_equal_loss(SLOPE)) == pytest.approx(math.prod(ratios))
    assert product.standard_error == pytest.approx(math.hypot(*(race.standard_error for race in races)))
    least = min(race.degrees_of_freedom for race in races)
    assert least <= product.degrees_of_freedom * (1 + 1e-9)
    shuffled = chain_product(random.sample(races, len(races)))
    assert shuffled.log_at_equal_loss(SLOPE) == pytest.approx(product.log_at_equal_loss(SLOPE))


@given(estimates)
def test_a_chain_of_one_is_itself(race: RatioEstimate) -> None:
    product = chain_product([race])
    assert product.log_ratio == race.log_ratio
    assert product.standard_error == pytest.approx(race.standard_error)
    assert product.degrees_of_freedom == pytest.approx(race.degrees_of_freedom)


def test_the_error_of_s_cancels_where_gains_of_loss_cancel_and_adds_where_they_add() -> None:
    up, down = RatioEstimate(0.1, 0.02, 0.01, 7), RatioEstimate(0.1, -0.02, 0.01, 7)
    assert chain_product([up, down]).error_of_slope(SLOPE) == 0
    assert chain_product([up, up]).error_of_slope(SLOPE) == pytest.approx(2 * up.error_of_slope(SLOPE))


def test_the_interval_of_a_product_covers_the_truth() -> None:
    generator = np.random.default_rng(6)
    level, count, races, repetitions = 0.05, 6, 4, 2000
    missed = 0
    for _ in range(repetitions):
        values = generator.normal(0.02, 0.03, (races, count))
        slope = Slope(float(generator.normal(0.15, 0.01)), 0.01, 1e6)
        gain = 0.005
        chain = chain_product(
            [
                RatioEstimate(
                    float(row.mean()) - gain / 0.15, gain, float(row.std(ddof=1)) / math.sqrt(count), count - 1
                )
                for row in values
            ]
        )
        missed += chain.interval(slope, level).low > math.exp(0.02 * races)
    assert missed / repetitions < level + 4 * math.sqrt(level * (1 - level) / repetitions)


def test_disagreement_is_noticed_and_agreement_is_not() -> None:
    chain = chain_product([RatioEstimate(0.05, 0.0, 0.005, 7)] * 4)
    agrees = compare_with_direct(chain, RatioEstimate(0.195, 0.0, 0.01, 7), SLOPE)
    differs = compare_with_direct(chain, RatioEstimate(0.10, 0.0, 0.01, 7), SLOPE)
    assert agrees.z == pytest.approx(0.005 / math.hypot(0.01, 0.01))
    assert agrees.p > 0.5
    assert differs.p < 0.001


@given(estimates, estimates)
def test_swapping_product_and_direct_changes_the_sign_only(first: RatioEstimate, second: RatioEstimate) -> None:
    one, other = compare_with_direct(first, second, SLOPE), compare_with_direct(second, first, SLOPE)
    assert one.z == pytest.approx(-other.z)
    assert one.p == pytest.approx(other.p)


def test_bad_input_names_the_field() -> None:
    with pytest.raises(ValueError, match="^races"):
        chain_product([])
    exact = RatioEstimate(0.1, 0.0, 0.0, 3)
    with pytest.raises(ValueError, match="^standard_error"):
        compare_with_direct(chain_product([exact, exact]), exact, SLOPE)
