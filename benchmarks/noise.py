"""Noise of many sorts for simulated races: each of mean 0 and standard deviation 1 unless it says otherwise."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from harness.statistics.student import FloatArray

Noise = Callable[[np.random.Generator, tuple[int, int]], FloatArray]


def heavy(generator: np.random.Generator, shape: tuple[int, int]) -> FloatArray:
    """Student's t with 3 degrees of freedom, standard deviation 1."""
    return generator.standard_t(3, shape) / math.sqrt(3)


def gamma(generator: np.random.Generator, shape: tuple[int, int]) -> FloatArray:
    """Gamma of shape 4: skewness 1 to the right, mean 0, standard deviation 1."""
    return (generator.gamma(4, size=shape) - 4) / 2


def exponential(generator: np.random.Generator, shape: tuple[int, int]) -> FloatArray:
    """Exponential: skewness 2 to the right, mean 0, standard deviation 1."""
    return generator.exponential(size=shape) - 1


def outliers(generator: np.random.Generator, shape: tuple[int, int]) -> FloatArray:
    """Normal, but one run in ten is three standard deviations worse; mean 0, standard deviation 1."""
    bad = (generator.random(shape) < 0.1) - 0.1
    return (generator.standard_normal(shape) + 3 * bad) / math.sqrt(1 + 9 * 0.09)


def normal(generator: np.random.Generator, shape: tuple[int, int]) -> FloatArray:
    """Standard normal."""
    return generator.standard_normal(shape)


def independent(noise: Noise) -> Callable[[np.random.Generator, int, int], FloatArray]:
    """Noise of one sort in every run, standard deviation 1."""
    return lambda generator, races, runs: noise(generator, (races, runs))


def autoregressive(coefficient: float) -> Callable[[np.random.Generator, int, int], FloatArray]:
    """Stationary first-order noise over the runs, standard deviation 1."""

    def draw(generator: np.random.Generator, races: int, runs: int) -> FloatArray:
        state = generator.standard_normal(races)
        series = [state]
        for _ in range(runs - 1):
            state = coefficient * state + math.sqrt(1 - coefficient**2) * generator.standard_normal(races)
            series.append(state)
        return np.stack(series, 1)

    return draw


def random_walk(generator: np.random.Generator, races: int, runs: int) -> FloatArray:
    """Steps of standard deviation 1."""
    return generator.standard_normal((races, runs)).cumsum(1)


def linear(generator: np.random.Generator, races: int, runs: int) -> FloatArray:
    """Noise of standard deviation 1 on a machine that gets faster by 0.5 in every run."""
    return generator.standard_normal((races, runs)) - 0.5 * np.arange(runs)
