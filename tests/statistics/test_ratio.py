"""The equal-loss ratio: the paired t-test of scipy, invariances, the error of s, coverage, the split."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from harness.statistics import (
    Interval,
    Pair,
    RatioEstimate,
    Slope,
    TimedRun,
    bootstrap_interval,
    estimate_ratio,
    split_ratio,
)
from tests.statistics.made_up import EXACT_SLOPE, SLOPE, complete_races, race, slopes, swapped

LEVEL = 0.01


def interval(pairs: list[Pair], slope: Slope, level: float = LEVEL) -> Interval:
    return estimate_ratio(pairs, slope).interval(slope, level)


@given(complete_races)
def test_with_s_known_it_is_the_paired_t_interval_of_scipy(pairs: list[Pair]) -> None:
    reference = [math.log(pair.reference.time) + pair.reference.loss / 0.15 for pair in pairs]
    candidate = [math.log(pair.candidate.time) + pair.candidate.loss / 0.15 for pair in pairs]
    assume(np.ptp(np.subtract(reference, candidate)) > 1e-6)
    expected = stats.ttest_rel(reference, candidate).confidence_interval(1 - 2 * LEVEL)
    found = interval(pairs, EXACT_SLOPE)
    assert math.log(found.low) == pytest.approx(expected.low, rel=1e-6, abs=1e-9)
    assert math.log(found.high) == pytest.approx(expected.high, rel=1e-6, abs=1e-9)


@given(complete_races, slopes)
def test_swapping_the_arms_inverts_the_ratio_and_its_limits(pairs: list[Pair], slope: Slope) -> None:
    one, other = interval(pairs, slope), interval(swapped(pairs), slope)
    assert math.log(other.ratio) == pytest.approx(-math.log(one.ratio), abs=1e-9)
    assert math.log(other.low) == pytest.approx(-math.log(one.high), abs=1e-9)
    assert math.log(other.high) == pytest.approx(-math.log(one.low), abs=1e-9)


@given(complete_races, slopes, st.randoms(), st.floats(0.1, 10), st.floats(-1, 1))
def test_order_unit_of_time_and_origin_of_loss_do_not_matter(pairs, slope, random, unit, shift) -> None:
    def moved(run: TimedRun) -> TimedRun:
        return replace(run, time=run.time * unit, loss=run.loss + shift)

    changed = [Pair(moved(pair.reference), moved(pair.candidate)) for pair in random.sample(pairs, len(pairs))]
    one, other = interval(pairs, slope), interval(changed, slope)
    assert [math.log(v) for v in (other.ratio, other.low, other.high)] == pytest.approx(
        [math.log(v) for v in (one.ratio, one.low, one.high)], rel=1e-6, abs=1e-6
    )


@given(complete_races, slopes, st.floats(1.001, 2))
def test_a_faster_candidate_has_a_larger_ratio_by_just_that_factor(pairs, slope, factor: float) -> None:
    faster = [Pair(pair.reference, replace(pair.candidate, time=pair.candidate.time / factor)) for pair in pairs]
    assert interval(faster, slope).ratio == pytest.approx(factor * interval(pairs, slope).ratio)


@given(complete_races, slopes, st.floats(2e-3, 0.4))
def test_a_stricter_level_and_a_worse_known_s_widen_the_interval(pairs, slope: Slope, level: float) -> None:
    usual, strict = interval(pairs, slope, level), interval(pairs, slope, level / 2)
    assert strict.low <= usual.low <= usual.ratio <= usual.high <= strict.high
    known = interval(pairs, replace(slope, standard_error=0.0), level)
    assert usual.low <= known.low * (1 + 1e-12)
    assert known.high <= usual.high * (1 + 1e-12)


def test_the_formula_by_hand() -> None:
    pairs = [Pair(TimedRun(100, 3.37, 1e6), TimedRun(90, 3.38, 1e6))] * 4
    expected = 100 / 90 * math.exp((3.37 - 3.38) / 0.15)
    assert interval(pairs, EXACT_SLOPE).ratio == pytest.approx(expected)


def test_the_error_of_s_agrees_with_the_delta_method_to_first_order() -> None:
    slope = Slope(0.15, 0.0015, 1e6)
    estimate = RatioEstimate(0.05, -0.0075, 0.0, 10)
    found = estimate.interval(slope, LEVEL)
    distance = float(stats.norm.isf(LEVEL)) * estimate.error_of_slope(slope)
    center = estimate.log_at_equal_loss(slope)
    assert center - math.log(found.low) == pytest.approx(distance, rel=0.05)
    assert math.log(found.high) - center == pytest.approx(distance, rel=0.05)


@pytest.mark.parametrize("loss_gain", [-0.03, 0.0, 0.03])
@pytest.mark.parametrize("relative_error", [0.05, 0.15])
def test_the_limits_cover_the_truth_when_s_is_estimated(loss_gain: float, relative_error: float) -> None:
    generator = np.random.default_rng(1)
    level, true_slope, freedom, count, races = 0.05, 0.15, 10, 6, 4000
    missed = np.zeros(2)
    for _ in range(races):
        y = generator.normal(0.02 - loss_gain / true_slope, 0.01, count)
        gains = generator.normal(loss_gain, 0.002, count)
        error = relative_error * true_slope
        slope = Slope(
            float(generator.normal(true_slope, error)),
            error * math.sqrt(generator.chisquare(freedom) / freedom),
            freedom,
        )
        values = y + gains / slope.nats_per_efold
        standard_error = float(values.std(ddof=1)) / math.sqrt(count)
        found = RatioEstimate(float(y.mean()), float(gains.mean()), standard_error, count - 1).interval(slope, level)
        missed += [found.low > math.exp(0.02), found.high < math.exp(0.02)]
    allowance = 4 * math.sqrt(level * (1 - level) / races)
    assert (missed / races < level + allowance).all()
    assert (missed / races > level / 4).all()


def test_two_pairs_without_agreement_have_limits_that_are_numbers() -> None:
    run, better = TimedRun(50, 3.5, 1e6), TimedRun(50, 3.0, 1e6)
    found = interval([Pair(run, run), Pair(run, better)], Slope(0.1, 0.0, 9), 1e-4)
    assert 0 <= found.low < found.ratio < found.high < math.inf


@given(complete_races, slopes, st.floats(1e3, 1e38), st.booleans())
def test_a_loss_that_has_blown_up_leaves_ratio_and_limits_numbers(pairs, slope, huge: float, in_reference) -> None:
    blown = replace(pairs[0].reference, loss=huge)
    first = Pair(blown, pairs[0].candidate) if in_reference else Pair(pairs[0].reference, blown)
    found = interval([first, *pairs[1:]], slope)
    assert 0 < found.low <= found.ratio <= found.high < math.inf


@given(complete_races, slopes)
def test_the_split_multiplies_to_the_ratio(pairs: list[Pair], slope: Slope) -> None:
    split = split_ratio(pairs, slope, LEVEL)
    assert split.tokens.ratio * split.speed.ratio == pytest.approx(interval(pairs, slope).ratio)


def test_the_split_says_why() -> None:
    reference, leaner = TimedRun(100, 3.37, 2e6), TimedRun(50, 3.37, 1e6)
    quicker = TimedRun(50, 3.37, 2e6)
    fewer_tokens = split_ratio([Pair(reference, leaner)] * 2, SLOPE, LEVEL)
    more_speed = split_ratio([Pair(reference, quicker)] * 2, SLOPE, LEVEL)
    assert (fewer_tokens.tokens.ratio, fewer_tokens.speed.ratio) == pytest.approx((2, 1))
    assert (more_speed.tokens.ratio, more_speed.speed.ratio) == pytest.approx((1, 2))


def test_a_pair_with_a_failed_run_is_left_out() -> None:
    pairs = race(1.05, 6)
    broken = [*pairs, Pair(None, pairs[0].candidate), Pair(pairs[0].reference, None)]
    assert estimate_ratio(broken, SLOPE) == estimate_ratio(pairs, SLOPE)


def test_the_bootstrap_agrees_roughly_on_normal_noise_and_is_deterministic() -> None:
    pairs = race(1.05, 16)
    student, bootstrap = interval(pairs, SLOPE), bootstrap_interval(pairs, SLOPE, LEVEL)
    assert bootstrap is not None
    assert bootstrap == bootstrap_interval(pairs, SLOPE, LEVEL)
    assert bootstrap.ratio == pytest.approx(student.ratio)
    width = math.log(student.high / student.low)
    assert math.log(bootstrap.low) == pytest.approx(math.log(student.low), abs=0.25 * width)
    assert math.log(bootstrap.high) == pytest.approx(math.log(student.high), abs=0.25 * width)


def test_there_is_no_bootstrap_of_few_or_equal_pairs() -> None:
    assert bootstrap_interval(race(1.05, 5), SLOPE, LEVEL) is None
    assert bootstrap_interval(race(1.05, 1) * 8, SLOPE, LEVEL) is None


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: TimedRun(0, 3.3, 1e6), "time"),
        (lambda: TimedRun(80, math.nan, 1e6), "loss"),
        (lambda: TimedRun(80, 3.3, -1), "tokens"),
        (lambda: Slope(0, 0.01, 9), "nats_per_efold"),
        (lambda: Slope(-0.1, 0.01, 9), "nats_per_efold"),
        (lambda: Slope(0.1, -0.01, 9), "standard_error"),
        (lambda: Slope(0.1, 0.01, 0), "degrees_of_freedom"),
        (lambda: Slope(0.1, 0.05, 9).limits(LEVEL), "standard_error"),
        (lambda: Slope(0.1, 0.01, 9).limits(1.0), "level"),
        (lambda: estimate_ratio(race(1.05, 1), SLOPE), "pairs"),
        (lambda: estimate_ratio(race(1.05, 4), SLOPE, spread_floor=math.nan), "spread_floor"),
        (lambda: bootstrap_interval([], SLOPE, LEVEL), "pairs"),
        (lambda: split_ratio([], SLOPE, LEVEL), "pairs"),
    ],
)
def test_bad_input_names_the_field(make, field: str) -> None:
    with pytest.raises(ValueError, match=f"^{field}"):
        make()
