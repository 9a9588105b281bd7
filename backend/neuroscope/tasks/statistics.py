"""Estimates with intervals, and the tests that stand behind claims."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from neuroscope.errors import ArgumentError


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval and the number of items it rests on."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        value, low, high = (f"{round(number, 3) + 0.0:.3f}" for number in (self.value, self.low, self.high))  # no -0.000
        return f"{value} [{low}, {high}]"

    def as_dictionary(self) -> dict[str, float | int]:
        return {"value": self.value, "low": self.low, "high": self.high, "n": self.n}


def wilson(successes: int, n: int) -> Estimate:
    """A rate with Wilson's score interval (Wilson 1927). Raises `ArgumentError` without items."""
    if n < 1 or not 0 <= successes <= n:
        raise ArgumentError(f"{successes} of {n} is no rate.")
    interval = stats.binomtest(successes, n).proportion_ci(method="wilson")
    return Estimate(successes / n, float(interval.low), float(interval.high), n)


def mean_over_groups(values: Sequence[float], groups: Sequence[Hashable]) -> Estimate:
    """A mean with Student's interval over the groups' means: items of one group are not independent. n counts items."""
    if not values or len(values) != len(groups):
        raise ArgumentError(f"{len(values)} values in {len(groups)} groups have no mean.")
    members: dict[Hashable, list[float]] = {}
    for value, group in zip(values, groups, strict=True):
        members.setdefault(group, []).append(value)
    means = np.array([np.mean(member) for member in members.values()])
    half = float(stats.t.ppf(0.975, len(means) - 1) * means.std(ddof=1) / np.sqrt(len(means))) if len(means) > 1 else np.inf
    return Estimate(float(means.mean()), float(means.mean()) - half, float(means.mean()) + half, len(values))
