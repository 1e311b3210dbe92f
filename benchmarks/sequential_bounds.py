"""The bounds of the group-sequential plan in harness/statistics/sequential.py, simulated, and why they have this shape.

    python benchmarks/sequential_bounds.py > benchmarks/results/sequential_bounds.md

A minute on one core. The constants LEVELS and FUTILITY are copied from the output into that module.
"""

from __future__ import annotations

import argparse

import numpy as np

from harness.statistics.sequential import (
    ALPHA,
    FUTILITY_LOSS,
    LOOKS,
    effect_for_power,
    fixed_plan,
    look_p_values,
    simulate_futility,
    simulate_levels,
)

ALPHAS = (0.0001, 0.001, 0.005, ALPHA, 0.025, 0.05, 0.1, 0.25, 0.5, 0.9)
EXPONENTS = (0.0, 0.5, 1.0, 2.0, 3.0)
SHAPE_REPETITIONS = 1_000_000


def shape_row(exponent: float, seed: int) -> str:
    """One shape: the nominal level at n runs grows as n to the power `exponent` (0 is constant)."""
    weights = (np.asarray(LOOKS) / LOOKS[-1]) ** exponent
    noise = np.random.default_rng(seed).standard_normal((SHAPE_REPETITIONS, LOOKS[-1]))
    levels = np.quantile((look_p_values(noise, LOOKS) / weights).min(1), ALPHA) * weights
    sample = np.random.default_rng(seed + 1).standard_normal((SHAPE_REPETITIONS // 5, LOOKS[-1]))
    low, high = 0.0, 4.0
    while high - low > 1e-3:
        middle = (low + high) / 2
        accepted = (look_p_values(sample + middle, LOOKS) <= levels).any(1).mean()
        low, high = (middle, high) if accepted < 0.9 else (low, middle)
    runs = [mean_runs(look_p_values(sample + effect, LOOKS) <= levels) for effect in (high, 1.5, 2.0, 3.0)]
    cells = [f"{exponent:g}", " / ".join(f"{level:.5f}" for level in levels), f"{high:.2f}"]
    return "| " + " | ".join([*cells, *(f"{value:.1f}" for value in runs)]) + " |"


def mean_runs(accepted: np.ndarray) -> float:
    """Mean number of runs to acceptance or to the maximum, without futility stops."""
    first = np.where(accepted.any(1), accepted.argmax(1), len(LOOKS) - 1)
    return float(np.asarray(LOOKS)[first].mean())


def main() -> None:
    """Prints the constants and the comparison of shapes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=20_000_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    levels = simulate_levels(ALPHAS, LOOKS, arguments.repetitions, arguments.seed)
    level = levels[ALPHAS.index(ALPHA)]
    futility = simulate_futility(level, LOOKS, arguments.repetitions // 10, arguments.seed)
    error = (ALPHA * (1 - ALPHA) / arguments.repetitions) ** 0.5
    print("# Bounds of the group-sequential plan\n")
    print(
        f"`python benchmarks/sequential_bounds.py --repetitions {arguments.repetitions} --seed {arguments.seed}`, "
        f"numpy {np.__version__}.\nLooks at {', '.join(map(str, LOOKS))} runs. Simulated under H0, standard normal; "
        f"the overall error of 0.01 is known to {error:.5f}\n(one standard error). The machine does not matter.\n"
    )
    print("| overall one-sided error | nominal level at every look | error / level |")
    print("|---|---|---|")
    for alpha, nominal in zip(ALPHAS, levels, strict=True):
        print(f"| {alpha:g} | {nominal:.4g} | {alpha / nominal:.2f} |")
    print(f"\nFutility: stop when the nominal p is above these; costs {FUTILITY_LOSS:g} of a power of 0.9.\n")
    print("| look | nominal p |")
    print("|---|---|")
    for look, bound in zip(LOOKS, futility, strict=False):
        print(f"| {look} | {bound:.3f} |")
    print(
        "\nWhy a constant level: nominal level proportional to runs^exponent, overall error 0.01, no futility. Mean "
        "number of\nruns at the effect (in standard deviations) found with power 0.9, and at larger effects.\n"
    )
    print("| exponent | nominal levels | effect with power 0.9 | runs at it | at 1.5 | at 2 | at 3 |")
    print("|---|---|---|---|---|---|---|")
    for exponent in EXPONENTS:
        print(shape_row(exponent, arguments.seed), flush=True)
    print(f"\nOne look at 16 without any correction has power 0.9 at {effect_for_power(fixed_plan(LOOKS[-1])):.2f}.")


if __name__ == "__main__":
    main()
