"""The formulas of the report, against numbers worked out by hand or by simulation."""

from __future__ import annotations

import numpy as np
import pytest

from harness.tuning.analysis import (
    Point,
    _parabola,
    _worse,
    best_so_far,
    expected_best,
    run_noise,
    smallest_difference,
)
from harness.tuning.protocol import Knob
from harness.tuning.trials import JUDGED, Job, Trial


def test_expected_best_of_two_values() -> None:
    # Of 3 and 4: one draw 3.5; two draws 3 with probability 3/4.
    assert expected_best([4.0, 3.0]).expected == pytest.approx([3.5, 3.25])


def test_expected_best_agrees_with_drawing() -> None:
    random = np.random.default_rng(0)
    losses = random.normal(3.4, 0.1, 20)
    drawn = random.choice(losses, (100_000, 5)).min(axis=1).mean()
    assert expected_best(list(losses)).expected[4] == pytest.approx(drawn, abs=0.001)


def test_a_failed_trial_counts_as_the_worst() -> None:
    assert expected_best([3.0, 4.0, None]).expected == pytest.approx(expected_best([3.0, 4.0, 4.0]).expected)
    with pytest.raises(ValueError, match="no trial finished"):
        expected_best([None])


def test_the_band_holds_the_expected_best_and_is_the_same_every_time() -> None:
    losses = list(np.random.default_rng(1).normal(3.4, 0.1, 30))
    first, second = expected_best(losses), expected_best(losses)
    assert (first.low == second.low).all() and (first.high == second.high).all()
    # At k = n the resampled lowest is never below the lowest there is.
    assert (first.low[:20] <= first.expected[:20]).all() and (first.expected[:20] <= first.high[:20]).all()


def test_best_so_far_begins_with_the_first_that_finished() -> None:
    losses = [None, 3.5, 3.6, 3.4]
    trials = [Trial(Job("search", i, 0, {}), x, JUDGED if x else "crash", 1.0, "") for i, x in enumerate(losses)]
    assert best_so_far(trials) == [float("inf"), 3.5, 3.5, 3.4]


@pytest.mark.parametrize(
    ("knob", "values", "lowest"),
    [
        (Knob(scale="log", step=2), [0.25, 0.5, 1.0, 2.0, 4.0], 2**0.3),
        (Knob(scale="linear", step=0.1), [0.3, 0.4, 0.5, 0.6, 0.7], 0.53),
        (Knob(scale="complement", step=2), [0.6, 0.8, 0.9, 0.95, 0.975], 1 - 0.1 * 2**-0.3),
    ],
)
def test_the_parabola_finds_the_lowest_point(knob: Knob, values: list[float], lowest: float) -> None:
    means = [3.3 + 0.5 * 0.02 * (x - 0.3) ** 2 for x in (-2, -1, 0, 1, 2)]  # in steps from the declared value
    found = _parabola(knob, list(values), list(means), here=2)
    assert found is not None
    assert (found.offset, found.curvature) == pytest.approx((0.3, 0.02))
    assert found.left == pytest.approx(0.5 * 0.02 * 0.3**2)
    assert found.value == pytest.approx(lowest, rel=0.01)


def test_there_is_no_parabola_without_both_neighbours_or_upside_down() -> None:
    knob, values = Knob(step=2), [0.5, 1.0, 2.0]
    assert _parabola(knob, list(values), [3.4, 3.3, None], here=1) is None
    assert _parabola(knob, list(values), [3.3, 3.4, 3.3], here=1) is None
    assert _parabola(knob, list(values), [3.3, 3.4, 3.5], here=0) is None


def test_a_parabola_is_not_drawn_out_beyond_its_points() -> None:
    assert _parabola(Knob(step=2), [0.5, 1.0, 2.0], [3.4, 3.3, 3.21], here=1) is None


def test_what_a_seed_does_to_all_points_alike_is_no_noise() -> None:
    random = np.random.default_rng(3)
    trials = []
    for point in range(80):
        for seed in (1, 2) if point % 2 else (2, 3, 4):
            loss = 3.2 + 0.001 * point + 0.05 * seed + 0.004 * random.standard_normal()
            trials.append(Trial(Job("curves", point, seed, {"lr": float(point)}), loss, JUDGED, 1.0, ""))
    assert run_noise(trials) == pytest.approx(0.004, rel=0.25)


def test_one_point_on_two_seeds_tells_nothing_of_noise() -> None:
    trials = [Trial(Job("curves", 0, seed, {"lr": 1.0}), 3.2 + seed, JUDGED, 1.0, "") for seed in (1, 2)]
    assert run_noise(trials) is None


def test_noise_makes_two_means_of_one_run_each_differ_by_this() -> None:
    random = np.random.default_rng(2)
    beyond = np.abs(random.normal(0, 0.01, 50_000) - random.normal(0, 0.01, 50_000)) > smallest_difference(0.01, 1)
    assert beyond.mean() == pytest.approx(0.0455, abs=0.005)


def test_a_point_with_a_failed_run_has_no_mean_and_one_with_a_missing_run_is_not_complete() -> None:
    assert Point({}, (3.3, None), 2).mean is None and Point({}, (3.3, None), 2).failed
    assert Point({}, (3.3,), 2).mean == 3.3 and not Point({}, (3.3,), 2).complete


def test_a_side_is_worse_when_a_point_of_it_fails_or_is_clearly_higher() -> None:
    near, far, failed = Point({}, (3.31,), 1), Point({}, (3.4,), 1), Point({}, (None,), 1)
    assert not _worse([near], here=3.3, difference=0.02)
    assert _worse([near, far], here=3.3, difference=0.02)
    assert _worse([failed], here=3.3, difference=0.02)
    assert not _worse([far], here=None, difference=0.02)
