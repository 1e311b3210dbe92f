"""The plan: its constants agree with a new simulation, p-values are corrected rightly, power behaves."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from harness.statistics import (
    LOOKS,
    SequentialPlan,
    effect_for_power,
    fixed_plan,
    margin_for_power,
    sequential_plan,
    simulate_power,
)
from harness.statistics.sequential import FUTILITY, LEVELS, look_p_values, simulate_futility, simulate_levels

PLAN = sequential_plan()


def test_the_levels_agree_with_a_new_simulation() -> None:
    repetitions = 400_000
    alphas = [alpha for alpha, _ in LEVELS if alpha >= 0.001]
    found = simulate_levels(alphas, LOOKS, repetitions, seed=99)
    for alpha, level in zip(alphas, found, strict=True):
        five_errors = 5 * math.sqrt(alpha * (1 - alpha) / repetitions) / alpha
        assert level == pytest.approx(dict(LEVELS)[alpha], rel=five_errors)


def test_the_constants_are_those_that_the_command_printed() -> None:
    printed = (Path(__file__).parents[2] / "benchmarks" / "results" / "sequential_bounds.md").read_text()
    for alpha, level in LEVELS:
        assert f"| {alpha:g} | {level:.4g} |" in printed
    for look, bound in zip(LOOKS, FUTILITY, strict=False):
        assert f"| {look} | {bound:.3f} |" in printed


def test_the_futility_bounds_agree_with_a_new_simulation() -> None:
    assert simulate_futility(PLAN.level, LOOKS, 200_000, seed=99) == pytest.approx(FUTILITY, rel=0.1)


def test_futility_costs_two_points_of_power_and_no_error() -> None:
    effect = effect_for_power(PLAN, 0.9)
    with_stops, without = (simulate_power(PLAN, effect, 100_000, obey_futility=obey) for obey in (True, False))
    assert without.power == pytest.approx(0.9, abs=0.005)
    assert with_stops.power == pytest.approx(0.88, abs=0.005)
    assert with_stops.mean_runs < without.mean_runs
    null = simulate_power(PLAN, 0.0, 100_000)
    assert null.power <= 0.01 + 4 * null.standard_error


def test_a_shorter_maximum_keeps_the_level_and_errs_less() -> None:
    plan = sequential_plan(8)
    assert plan.looks == (4, 6, 8)
    assert plan.level == PLAN.level
    assert simulate_power(plan, 0.0, 100_000, obey_futility=False).power < 0.0085


@pytest.mark.parametrize(("level", "alpha"), [(level, alpha) for alpha, level in LEVELS])
def test_the_corrected_p_at_a_simulated_level_is_its_error(level: float, alpha: float) -> None:
    assert PLAN.corrected_p(level) == pytest.approx(alpha)


@given(st.floats(0, 1), st.floats(0, 1))
def test_the_corrected_p_is_monotone_and_between_p_and_bonferroni(first: float, second: float) -> None:
    low, high = sorted((first, second))
    assert PLAN.corrected_p(low) <= PLAN.corrected_p(high)
    assert low <= PLAN.corrected_p(low) * (1 + 1e-9)
    assert PLAN.corrected_p(low) <= min(len(LOOKS) * low, 1.0) * (1 + 1e-9)


@given(st.floats(1e-10, 1))
def test_one_look_needs_no_correction(p: float) -> None:
    assert fixed_plan(16).corrected_p(p) == pytest.approx(p)


def test_p_values_at_a_look_are_those_of_scipy() -> None:
    values = np.random.default_rng(3).standard_normal((5, 16)) + 0.4
    found = look_p_values(values, LOOKS)
    for row, series in enumerate(values):
        for column, look in enumerate(LOOKS):
            expected = stats.ttest_1samp(series[:look], 0, alternative="greater").pvalue
            assert found[row, column] == pytest.approx(expected)


def test_the_margin_for_power_delivers_it_and_scales_with_sigma() -> None:
    margin = margin_for_power(0.008, runs=8, power=0.9)
    power = simulate_power(sequential_plan(8), margin / 0.008, 100_000, seed=5, obey_futility=False)
    assert power.power == pytest.approx(0.9, abs=0.006)
    assert margin_for_power(0.004) == pytest.approx(margin_for_power(0.008) / 2)
    assert margin_for_power(0.008, runs=6) > margin > margin_for_power(0.008, runs=16)


def test_power_grows_with_the_effect_and_is_deterministic() -> None:
    powers = [simulate_power(PLAN, effect, 5_000).power for effect in (0.0, 0.5, 1.0, 2.0)]
    assert powers == sorted(powers)
    assert simulate_power(PLAN, 1.0, 5_000) == simulate_power(PLAN, 1.0, 5_000)


def test_the_next_look() -> None:
    assert [PLAN.next_look(runs) for runs in (0, 4, 5, 12, 16)] == [4, 6, 6, 16, None]


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: sequential_plan(10), "maximum"),
        (lambda: fixed_plan(1), "looks"),
        (lambda: fixed_plan(4, alpha=1.0), "alpha"),
        (lambda: SequentialPlan((6, 4), 0.01, 0.003, (0.5,), ((1e-12, 1e-12), (1.0, 1.0))), "looks"),
        (lambda: SequentialPlan((4, 6), 0.01, 0.003, (), ((1e-12, 1e-12), (1.0, 1.0))), "futility"),
        (lambda: effect_for_power(PLAN, 1.5), "power"),
        (lambda: margin_for_power(0.0), "sigma"),
    ],
)
def test_bad_input_names_the_field(make, field: str) -> None:
    with pytest.raises(ValueError, match=f"^{field}"):
        make()
