"""Spreads, s, and the number of pairs: against known values, by simulation, and at bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from harness.statistics import (
    BudgetRuns,
    Slope,
    estimate_slope,
    log_ratio_spread,
    loss_spread,
    pairs_to_resolve,
    t_test_power,
    time_variation,
)

BUDGETS = (0.7, 1.0, 1.4)


def runs_at(slope: float, spread: float, count: int, generator: np.random.Generator) -> list[BudgetRuns]:
    return [
        BudgetRuns(one, tuple(3.4 - slope * math.log(one) + spread * generator.standard_normal(count)))
        for one in BUDGETS
    ]


def test_s_is_the_slope_that_made_the_losses() -> None:
    generator = np.random.default_rng(0)
    exact = estimate_slope(runs_at(0.15, 1e-9, 2, generator))
    assert exact.slope.nats_per_efold == pytest.approx(0.15)
    assert exact.slope.degrees_of_freedom == 3


def test_s_is_the_least_squares_line_of_scipy_whatever_the_numbers_of_runs() -> None:
    generator = np.random.default_rng(1)
    budgets = [
        BudgetRuns(one, tuple(3.4 - math.log(one) + generator.random(count)))
        for one, count in zip((0.5, 1, 3), (2, 5, 3), strict=True)
    ]
    logs = [math.log(one.multiple) for one in budgets for _ in one.losses]
    line = stats.linregress(logs, [loss for one in budgets for loss in one.losses])
    assert line.slope < 0
    assert estimate_slope(budgets).slope.nats_per_efold == pytest.approx(-line.slope)


def test_the_error_of_s_covers_the_truth() -> None:
    generator = np.random.default_rng(2)
    fits = [estimate_slope(runs_at(0.15, 0.008, 4, generator)) for _ in range(2000)]
    missed = np.mean([fit.slope.limits(0.05)[0] > 0.15 for fit in fits])
    assert missed == pytest.approx(0.05, abs=4 * math.sqrt(0.05 * 0.95 / 2000))
    lines = np.mean([fit.curvature_p is not None and fit.curvature_p < 0.05 for fit in fits])
    assert lines == pytest.approx(0.05, abs=4 * math.sqrt(0.05 * 0.95 / 2000))


def test_curvature_is_noticed_and_two_budgets_have_none() -> None:
    bent = [
        BudgetRuns(one, (3.4 - math.log(one) + math.log(one) ** 2, 3.401 - math.log(one) + math.log(one) ** 2))
        for one in (0.5, 1, 2)
    ]
    assert estimate_slope(bent).curvature_p < 0.001
    assert estimate_slope(bent[:2]).curvature_p is None


def test_the_spread_interval_covers_and_the_robust_one_ignores_an_outlier() -> None:
    generator = np.random.default_rng(3)
    found = [loss_spread(generator.normal(3.37, 0.008, 8)) for _ in range(4000)]
    covered = np.mean([one.low <= 0.008 <= one.high for one in found])
    assert covered == pytest.approx(0.95, abs=0.015)
    calm = generator.normal(3.37, 0.008, 30)
    wild = loss_spread([*calm, 3.9])
    assert wild.spread > 5 * loss_spread(calm).spread
    assert wild.robust == pytest.approx(0.008, rel=0.5)


@given(st.lists(st.floats(10, 1000), min_size=2, max_size=20), st.floats(0.01, 100))
def test_the_variation_of_times_does_not_depend_on_their_unit(seconds: list[float], unit: float) -> None:
    scaled = time_variation([second * unit for second in seconds]).spread
    assert scaled == pytest.approx(time_variation(seconds).spread, rel=1e-6, abs=1e-9)


def test_the_spread_of_a_pair_agrees_with_simulation() -> None:
    generator = np.random.default_rng(4)
    clock, losses = generator.normal(0, 0.02, (2, 200_000)), generator.normal(0, 0.006, (2, 200_000))
    simulated = (clock[0] - clock[1] + (losses[0] - losses[1]) / 0.15).std()
    assert log_ratio_spread(0.006, 0.02, Slope(0.15, 0.0, 9)) == pytest.approx(simulated, rel=0.01)


def test_the_power_of_the_t_test_agrees_with_simulation() -> None:
    values = np.random.default_rng(5).standard_normal((100_000, 8)) + 1.0
    accepted = stats.ttest_1samp(values, 0, axis=1, alternative="greater").pvalue <= 0.01
    assert t_test_power(1.0, 8, 0.01) == pytest.approx(accepted.mean(), abs=0.007)


@given(st.floats(0.005, 0.2), st.floats(0.001, 0.1), st.floats(0.001, 0.1))
def test_pairs_to_resolve_is_the_first_number_with_the_power(effect: float, spread: float, level: float) -> None:
    count = pairs_to_resolve(effect, spread, level)
    in_spreads = math.log1p(effect) / spread
    assert t_test_power(in_spreads, count, level) >= 0.9
    assert count == 2 or t_test_power(in_spreads, count - 1, level) < 0.9
    assert pairs_to_resolve(effect, 2 * spread, level) >= count
    assert pairs_to_resolve(2 * effect, spread, level) <= count


def test_the_power_is_continuous_where_the_approximation_takes_over() -> None:
    effect = 0.1
    assert t_test_power(effect, 1001, 0.01) == pytest.approx(t_test_power(effect, 1000, 0.01), abs=0.005)


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: loss_spread([3.3]), "losses"),
        (lambda: loss_spread([3.3, math.nan]), "losses"),
        (lambda: loss_spread([3.3, 3.4], confidence=95), "confidence"),
        (lambda: time_variation([80.0, 0.0]), "seconds"),
        (lambda: BudgetRuns(0.0, (3.3,)), "multiple"),
        (lambda: BudgetRuns(1.0, ()), "losses"),
        (lambda: estimate_slope([BudgetRuns(1.0, (3.3, 3.4))]), "budgets"),
        (lambda: estimate_slope([BudgetRuns(1.0, (3.3, 3.4)), BudgetRuns(1.0, (3.3,))]), "budgets"),
        (lambda: estimate_slope([BudgetRuns(0.7, (3.5,)), BudgetRuns(1.4, (3.3,))]), "budgets"),
        (lambda: estimate_slope([BudgetRuns(0.7, (3.3, 3.31)), BudgetRuns(1.4, (3.5, 3.51))]), "budgets"),
        (lambda: log_ratio_spread(-0.1, 0.01, Slope(0.15, 0.0, 9)), "loss_sd"),
        (lambda: pairs_to_resolve(0.0, 0.01, 0.01), "effect"),
        (lambda: pairs_to_resolve(1e-9, 0.1, 0.01), "effect"),
        (lambda: pairs_to_resolve(0.01, 0.0, 0.01), "spread"),
        (lambda: pairs_to_resolve(0.01, 0.01, 0.01, power=1.0), "power"),
    ],
)
def test_bad_input_names_the_field(make, field: str) -> None:
    with pytest.raises(ValueError, match=f"^{field}"):
        make()
