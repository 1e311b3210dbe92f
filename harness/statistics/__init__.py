"""Tests, intervals and plans: pure functions of numbers, no files, no clock.

`decide(RacePlan(CPU_MINIMUM_RATIO), pairs, target, slope)` is the whole of a race's statistics; the rest is what it is
made of (`target`, `ratio`, `sequential`) and what surrounds it (`calibration`, `chain`). Losses are nats per token,
times seconds, ratios reference over candidate: above 1 the candidate is faster. Bad input is a ValueError that
names the field. How the rules behave under noise of all sorts: benchmarks/results/statistics_simulation.md.
"""

from harness.statistics.calibration import (
    BudgetRuns,
    SlopeFit,
    Spread,
    estimate_slope,
    log_ratio_spread,
    loss_spread,
    pairs_to_resolve,
    t_test_power,
    time_variation,
)
from harness.statistics.chain import Disagreement, chain_product, compare_with_direct
from harness.statistics.decision import (
    CPU_MINIMUM_RATIO,
    GPU_MINIMUM_RATIO,
    Decision,
    Faster,
    RacePlan,
    Stop,
    Verdict,
    decide,
    decide_difference,
)
from harness.statistics.ratio import (
    Interval,
    Pair,
    RatioEstimate,
    Slope,
    Split,
    TimedRun,
    bootstrap_interval,
    estimate_ratio,
    split_ratio,
)
from harness.statistics.sequential import (
    LOOKS,
    Power,
    SequentialPlan,
    effect_for_power,
    fixed_plan,
    margin_for_power,
    sequential_plan,
    simulate_power,
)
from harness.statistics.target import TargetTest, reaches_target

__all__ = [
    "CPU_MINIMUM_RATIO",
    "GPU_MINIMUM_RATIO",
    "LOOKS",
    "BudgetRuns",
    "Decision",
    "Disagreement",
    "Faster",
    "Interval",
    "Pair",
    "Power",
    "RacePlan",
    "RatioEstimate",
    "SequentialPlan",
    "Slope",
    "SlopeFit",
    "Split",
    "Spread",
    "Stop",
    "TargetTest",
    "TimedRun",
    "Verdict",
    "bootstrap_interval",
    "chain_product",
    "compare_with_direct",
    "decide",
    "decide_difference",
    "effect_for_power",
    "estimate_ratio",
    "estimate_slope",
    "fixed_plan",
    "log_ratio_spread",
    "loss_spread",
    "margin_for_power",
    "pairs_to_resolve",
    "reaches_target",
    "sequential_plan",
    "simulate_power",
    "split_ratio",
    "t_test_power",
    "time_variation",
]
