"""The verdict of a race at its looks, and the simulation's copy of the rule against the rule itself."""

from __future__ import annotations

import math
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings

from harness.statistics import (
    CPU_MINIMUM_RATIO,
    GPU_MINIMUM_RATIO,
    LOOKS,
    Decision,
    Pair,
    RacePlan,
    Slope,
    Stop,
    TimedRun,
    Verdict,
    decide,
    decide_difference,
    sequential_plan,
)
from tests.benchmark_modules import benchmark_module
from tests.statistics.made_up import SLOPE, complete_races, race, slopes, swapped

PLAN = RacePlan(CPU_MINIMUM_RATIO)
TARGET = 3.38


def run_until_stopped(plan: RacePlan, pairs: list[Pair]) -> Decision:
    """Decides after every pair, as a campaign does, until there is a verdict."""
    for count in range(len(pairs) + 1):
        decision = decide(plan, pairs[:count], TARGET, SLOPE)
        if decision.verdict is not None:
            return decision
    raise AssertionError("a race of the maximum must have a verdict")


def test_a_clear_gain_is_a_record_at_the_first_look() -> None:
    decision = run_until_stopped(PLAN, race(1.10))
    assert (decision.verdict, decision.stop, decision.pairs, decision.final) == (Verdict.RECORD, Stop.PROVEN, 4, True)
    assert decision.faster.interval.low > CPU_MINIMUM_RATIO
    assert decision.target.p <= 0.01


def test_a_clear_loss_is_slower_whether_or_not_the_target_is_reached() -> None:
    reached = run_until_stopped(PLAN, race(0.9))
    open_target = run_until_stopped(PLAN, race(0.9, margin=0.0005))
    assert reached.verdict == open_target.verdict == Verdict.SLOWER
    assert not open_target.target.reached


def test_a_race_of_equals_is_valid_and_not_proven_faster() -> None:
    decision = run_until_stopped(PLAN, race(1.0, spread=0.01))
    assert decision.verdict == Verdict.NOT_PROVEN
    assert (decision.stop, decision.final) == (Stop.FUTILITY, False)


def test_a_faster_candidate_above_the_target_misses_it() -> None:
    decision = run_until_stopped(PLAN, race(1.2, margin=-0.01))
    assert (decision.verdict, decision.stop) == (Verdict.MISSES_TARGET, Stop.FUTILITY)


@pytest.mark.parametrize(
    ("ratio", "margin", "verdict"),
    [
        (1.1, 0.02, Verdict.RECORD),
        (0.9, 0.02, Verdict.SLOWER),
        (1.1, -0.02, Verdict.MISSES_TARGET),
        (0.9, -0.02, Verdict.MISSES_TARGET),
    ],
)
def test_an_ablation_stops_when_the_arms_differ_whatever_the_target(
    ratio: float, margin: float, verdict: Verdict
) -> None:
    decision = decide_difference(PLAN, race(ratio, 4, margin), TARGET, SLOPE)
    assert (decision.verdict, decision.stop, decision.final) == (verdict, Stop.PROVEN, True)


def test_an_ablation_of_equals_goes_on_to_its_maximum() -> None:
    pairs = race(1.0, spread=0.01)
    assert [decide_difference(PLAN, pairs[:count], TARGET, SLOPE).verdict for count in (4, 6, 8, 12)] == [None] * 4
    decision = decide_difference(PLAN, pairs, TARGET, SLOPE)
    assert (decision.verdict, decision.stop) == (Verdict.NOT_PROVEN, Stop.MAXIMUM)
    above = decide_difference(PLAN, race(1.0, margin=-0.02, spread=0.01), TARGET, SLOPE)
    assert (above.verdict, above.stop) == (Verdict.MISSES_TARGET, Stop.MAXIMUM)


def test_fewer_steps_at_a_worse_loss_are_no_record() -> None:
    """5% less time, and the loss that 5% less budget costs: faster by the clock, equal at equal loss."""
    pairs = [
        Pair(pair.reference, TimedRun(pair.candidate.time, pair.candidate.loss + 0.15 * np.log(1.05), 1e6))
        for pair in race(1.05, margin=0.03)
    ]
    decision = run_until_stopped(PLAN, pairs)
    assert decision.verdict == Verdict.NOT_PROVEN
    assert decision.faster.interval.low < 1 < decision.faster.interval.high


def longer(ratio: float = 1.2) -> list[Pair]:
    """The same method for so many times the budget, where the loss falls half as fast again as s says."""
    gain = 1.5 * SLOPE.nats_per_efold * math.log(ratio)
    return [
        Pair(pair.reference, TimedRun(pair.candidate.time, pair.candidate.loss - gain, 1e6))
        for pair in race(1 / ratio, margin=0.03)
    ]


def test_more_steps_at_a_better_loss_are_no_record() -> None:
    """At equal loss they look faster where s is too small; plain time says that nothing was gained."""
    assert run_until_stopped(PLAN, longer()).verdict == Verdict.RECORD
    decision = run_until_stopped(replace(PLAN, plain_time=True), longer())
    assert (decision.verdict, decision.stop, decision.final) == (Verdict.NOT_PROVEN, Stop.FUTILITY, False)
    assert decision.reason.startswith("faster at equal loss, in plain time 0.83")
    assert decision.faster.interval.low > CPU_MINIMUM_RATIO and decision.faster.plain.high < 1


def test_what_is_faster_either_way_is_a_record_as_before() -> None:
    plainly = replace(PLAN, plain_time=True)
    assert run_until_stopped(plainly, race(1.10)).verdict == Verdict.RECORD
    assert run_until_stopped(plainly, race(1.10)).pairs == run_until_stopped(PLAN, race(1.10)).pairs
    for ratio in (1.0, 0.9):
        pairs = race(ratio, spread=0.01)
        assert run_until_stopped(plainly, pairs).verdict == run_until_stopped(PLAN, pairs).verdict


def test_a_few_clocks_that_agree_do_not_show_plain_time() -> None:
    """0.5% in plain seconds, a worse reference: its spread is taken for no less than 0.7 of the calibrated one."""
    clocked = replace(PLAN, time_ratio_spread=0.02, plain_time=True)
    pairs = [
        Pair(TimedRun(pair.reference.time, pair.reference.loss + 0.05, 1e6), pair.candidate)
        for pair in race(1.005, spread=0.0001)
    ]
    assert run_until_stopped(replace(clocked, time_ratio_spread=0.0), pairs).verdict == Verdict.RECORD
    assert run_until_stopped(clocked, pairs).verdict == Verdict.NOT_PROVEN


def test_a_gain_below_the_minimum_is_a_record_on_a_gpu_only() -> None:
    pairs = race(1.006, spread=0.0003)
    assert run_until_stopped(PLAN, pairs).verdict == Verdict.NOT_PROVEN
    assert run_until_stopped(RacePlan(GPU_MINIMUM_RATIO), pairs).verdict == Verdict.RECORD


def test_a_second_failed_run_of_the_candidate_misses_the_target_at_once() -> None:
    pairs = race(1.10)
    one = [Pair(pairs[0].reference, None), *pairs[1:]]
    assert run_until_stopped(PLAN, one).verdict == Verdict.RECORD
    two = decide(PLAN, [Pair(pairs[0].reference, None), pairs[1], Pair(pairs[2].reference, None)], TARGET, SLOPE)
    assert (two.verdict, two.stop, two.pairs) == (Verdict.MISSES_TARGET, Stop.FAILED_RUNS, 3)
    assert two.reason == "2 of 3 runs of the candidate diverged or timed out"


def test_a_reference_that_fails_twice_makes_the_race_invalid() -> None:
    decision = decide(PLAN, [Pair(None, pair.candidate) for pair in race(1.1, 2)], TARGET, SLOPE)
    assert (decision.verdict, decision.reason) == (
        Verdict.INVALID,
        "2 of 2 runs of the reference diverged or timed out",
    )


def test_one_failed_run_in_each_arm_leaves_too_little_at_the_first_look() -> None:
    pairs = race(1.10, 4)
    broken = [Pair(None, pairs[0].candidate), Pair(pairs[1].reference, None), *pairs[2:]]
    decision = decide(PLAN, broken, TARGET, SLOPE)
    assert decision.verdict is None
    assert decision.faster.estimate.degrees_of_freedom == 1


def test_the_floors_hold_back_a_race_whose_spread_is_small_by_luck() -> None:
    pairs = race(1.03, 4, spread=0.0005)
    careful = RacePlan(CPU_MINIMUM_RATIO, loss_spread=0.008, log_ratio_spread=0.08)
    assert decide(PLAN, pairs, TARGET, SLOPE).verdict == Verdict.RECORD
    assert decide(careful, pairs, TARGET, SLOPE).verdict is None


def at_the_same_loss(pairs: list[Pair]) -> list[Pair]:
    """The pairs with the reference's loss in both runs, as after a change of the system alone."""
    assert all(pair.reference and pair.candidate for pair in pairs)
    return [Pair(pair.reference, replace(pair.candidate, loss=pair.reference.loss)) for pair in pairs]


def test_where_the_losses_of_every_pair_are_the_same_the_clock_alone_is_noisy() -> None:
    pairs = at_the_same_loss(race(1.03, 4, spread=0.0005))
    clocked = RacePlan(CPU_MINIMUM_RATIO, log_ratio_spread=0.08, time_ratio_spread=0.002)
    assert clocked.spread_floor(pairs) == pytest.approx(0.7 * 0.002)
    assert decide(clocked, pairs, TARGET, SLOPE).verdict == Verdict.RECORD
    assert replace(clocked, time_ratio_spread=None).spread_floor(pairs) == pytest.approx(0.7 * 0.08)


def test_one_pair_of_unequal_losses_brings_the_whole_floor_back() -> None:
    pairs = at_the_same_loss(race(1.03, 4, spread=0.0005))
    clocked = RacePlan(CPU_MINIMUM_RATIO, log_ratio_spread=0.08, time_ratio_spread=0.002)
    candidate = pairs[-1].candidate
    pairs[-1] = replace(pairs[-1], candidate=replace(candidate, loss=candidate.loss + 1e-8))
    assert clocked.spread_floor(pairs) == pytest.approx(0.7 * 0.08)
    assert decide(clocked, pairs, TARGET, SLOPE).verdict is None


def test_losses_that_differ_by_the_order_of_their_sum_are_the_same() -> None:
    """As in a race of the baseline against a copy that wastes time: one pair of sixteen differed in the last bit."""
    pairs = at_the_same_loss(race(1.03, 4, spread=0.0005))
    clocked = RacePlan(CPU_MINIMUM_RATIO, log_ratio_spread=0.08, time_ratio_spread=0.002)
    candidate = pairs[-1].candidate
    pairs[-1] = replace(pairs[-1], candidate=replace(candidate, loss=math.nextafter(candidate.loss, 9)))
    assert clocked.spread_floor(pairs) == pytest.approx(0.7 * 0.002)


@pytest.mark.parametrize("count", [count for count in range(17) if count not in LOOKS])
def test_between_looks_nothing_is_decided_but_numbers_are_shown(count: int) -> None:
    decision = decide(PLAN, race(1.10)[:count], TARGET, SLOPE)
    assert decision.verdict is None
    assert decision.next_look == min(look for look in LOOKS if look > count)
    assert decision.looks_left == sum(look > count for look in LOOKS)
    assert (decision.faster is not None) == (count >= 2)


@settings(max_examples=50, deadline=None)
@given(complete_races, slopes)
def test_the_maximum_always_gives_a_verdict_and_equal_input_an_equal_one(pairs: list[Pair], slope: Slope) -> None:
    full = (pairs * 16)[:16]
    decision = decide(PLAN, full, TARGET, slope)
    assert decision.verdict is not None
    assert (decision.next_look, decision.looks_left) == (None, 0)
    assert decision == decide(PLAN, full, TARGET, slope)


@settings(max_examples=50, deadline=None)
@given(complete_races, slopes)
def test_no_race_is_a_record_in_both_directions(pairs: list[Pair], slope: Slope) -> None:
    full = (pairs * 8)[:4]
    verdicts = [decide(PLAN, race, TARGET, slope).verdict for race in (full, swapped(full))]
    assert verdicts != [Verdict.RECORD, Verdict.RECORD]


def test_a_shorter_race_ends_at_its_maximum() -> None:
    plan = RacePlan(CPU_MINIMUM_RATIO, sequence=sequential_plan(6))
    decision = decide(plan, race(1.012, 6, spread=0.01), TARGET, SLOPE)
    assert decision.stop == Stop.MAXIMUM
    with pytest.raises(ValueError, match="^pairs"):
        decide(plan, race(1.0, 7), TARGET, SLOPE)


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: RacePlan(0.0), "minimum_ratio"),
        (lambda: RacePlan(1.01, loss_spread=-1.0), "loss_spread"),
        (lambda: RacePlan(1.01, log_ratio_spread=float("nan")), "log_ratio_spread"),
        (lambda: decide(PLAN, race(1.0, 4), float("nan"), SLOPE), "target"),
        (lambda: decide(PLAN, race(1.0, 4), TARGET, Slope(0.1, 0.09, 5)), "standard_error"),
    ],
)
def test_bad_input_names_the_field(make, field: str) -> None:
    with pytest.raises(ValueError, match=f"^{field}"):
        make()


@pytest.fixture(scope="module")
def simulation() -> ModuleType:
    return benchmark_module("simulated_races")


@pytest.mark.parametrize("plain_time", [False, True])
@pytest.mark.parametrize("loss_gain", [-0.001, 0.006])
@pytest.mark.parametrize("ratio", [0.98, 1.0, 1.02, 1.05])
def test_the_simulation_follows_the_same_rule(
    simulation: ModuleType, ratio: float, loss_gain: float, plain_time: bool
) -> None:
    """Every verdict and every number of pairs of the vectorized copy, race by race."""
    world = simulation.World(ratio=ratio, margin=0.002, loss_gain=loss_gain, slope_error=0.05)
    drawn = simulation.simulate(world, 40, np.random.default_rng(4))
    found, look = simulation.verdicts(drawn, world, plain_time)
    spreads = world.loss_sd, world.log_ratio_spread, world.time_ratio_spread
    plan = RacePlan(CPU_MINIMUM_RATIO, sequential_plan(), *spreads, plain_time=plain_time)
    for row in range(40):
        pairs = [
            Pair(TimedRun(float(np.exp(log)), float(loss + gain), 1.0), TimedRun(1.0, float(loss), 1.0))
            for log, gain, loss in zip(
                drawn.log_ratio[row], drawn.loss_gain[row], drawn.candidate_loss[row], strict=True
            )
        ]
        slope = Slope(float(drawn.slope[row]), float(drawn.slope_standard_error[row]), world.slope_freedom)
        decisions = (decide(plan, pairs[:count], 0.0, slope) for count in LOOKS)
        decision = next(one for one in decisions if one.verdict is not None)
        assert (decision.verdict, decision.pairs) == (simulation.VERDICTS[found[row]], LOOKS[look[row]])
