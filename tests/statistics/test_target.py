"""Reaches the target: the t-test of scipy at a fixed number of runs, the floor, failed runs, invariances."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from harness.statistics import fixed_plan, reaches_target, sequential_plan

PLAN = sequential_plan()
losses = st.lists(st.floats(3.0, 4.0).map(lambda loss: round(loss, 6)), min_size=2, max_size=16)


@given(losses, st.floats(3.0, 4.0))
def test_it_is_the_one_sided_t_test_of_scipy(values: list[float], target: float) -> None:
    assume(len(set(values)) > 1)
    result = reaches_target(fixed_plan(len(values)), values, target)
    expected = stats.ttest_1samp(values, target, alternative="less").pvalue
    assert result.nominal_p == pytest.approx(expected, rel=1e-6, abs=1e-12)
    assert result.reached == (result.nominal_p <= 0.01)


@given(losses, st.randoms(), st.floats(-1, 1))
def test_the_order_and_the_origin_of_losses_do_not_matter(values: list[float], random, shift: float) -> None:
    assume(max(values) - min(values) > 1e-4)
    shuffled = random.sample(values, len(values))
    moved = reaches_target(PLAN, [loss + shift for loss in shuffled], 3.5 + shift)
    assert moved.nominal_p == pytest.approx(reaches_target(PLAN, values, 3.5).nominal_p, rel=1e-4, abs=1e-9)


@given(losses, st.floats(3.0, 4.0), st.floats(0, 0.5))
def test_a_higher_target_is_easier(values: list[float], target: float, more: float) -> None:
    assert reaches_target(PLAN, values, target + more).nominal_p <= reaches_target(PLAN, values, target).nominal_p


@given(losses, st.floats(0, 0.1), st.floats(0, 0.1))
def test_a_higher_floor_is_harder_below_the_target(values: list[float], floor: float, more: float) -> None:
    lower, higher = (reaches_target(PLAN, values, 4.1, one).nominal_p for one in (floor, floor + more))
    assert lower <= higher


def test_the_floor_stands_in_for_a_spread_that_is_small_by_luck() -> None:
    values = [3.3700, 3.3701, 3.3699, 3.3700]
    assert reaches_target(PLAN, values, 3.38).reached
    assert not reaches_target(PLAN, values, 3.38, spread_floor=0.008).reached


def test_one_failed_run_is_left_out_and_counted_a_second_fails_the_arm() -> None:
    good = [3.360, 3.361, 3.359, 3.362, 3.360]
    one = reaches_target(PLAN, [*good, None], 3.38)
    assert (one.runs, one.failed, one.reached) == (6, 1, True)
    assert one.nominal_p == reaches_target(PLAN, good, 3.38).nominal_p
    two = reaches_target(PLAN, [None, *good, None], 3.38)
    assert (two.failed, two.reached, two.hopeless) == (2, False, True)
    assert two.mean == one.mean


def test_without_two_losses_nothing_is_shown() -> None:
    result = reaches_target(PLAN, [3.3, None], 3.38)
    assert (result.mean, result.p, result.reached, result.hopeless) == (None, 1.0, False, False)


def test_equal_losses_are_decided_by_their_sign() -> None:
    assert reaches_target(PLAN, [3.25] * 4, 3.5).nominal_p == 0
    assert reaches_target(PLAN, [3.5] * 4, 3.5).nominal_p == 1


def test_hopeless_is_judged_at_looks_only() -> None:
    values = [3.39, 3.40, 3.395, 3.41, 3.39]
    assert reaches_target(PLAN, values[:4], 3.38).hopeless
    assert not reaches_target(PLAN, values, 3.38).hopeless


@pytest.mark.parametrize(
    ("values", "target", "floor", "field"),
    [
        ([], 3.38, 0.0, "losses"),
        ([3.3, math.nan], 3.38, 0.0, "losses"),
        ([3.3, math.inf], 3.38, 0.0, "losses"),
        ([3.3, 3.4], math.nan, 0.0, "target"),
        ([3.3, 3.4], 3.38, -1.0, "spread_floor"),
    ],
)
def test_bad_input_names_the_field(values: list[float], target: float, floor: float, field: str) -> None:
    with pytest.raises(ValueError, match=f"^{field}"):
        reaches_target(PLAN, values, target, floor)
