"""Estimates with intervals, and the tests that stand behind claims."""

from __future__ import annotations

from dataclasses import dataclass

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
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def as_dictionary(self) -> dict[str, float | int]:
        return {"value": self.value, "low": self.low, "high": self.high, "n": self.n}


def wilson(successes: int, n: int) -> Estimate:
    """A rate with Wilson's score interval (Wilson 1927). Raises `ArgumentError` without items."""
    if n < 1 or not 0 <= successes <= n:
        raise ArgumentError(f"{successes} of {n} is no rate.")
    interval = stats.binomtest(successes, n).proportion_ci(method="wilson")
    return Estimate(successes / n, float(interval.low), float(interval.high), n)
