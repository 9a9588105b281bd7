"""Estimates with intervals, and the tests that stand behind claims.

Everything is two-sided and at 95 %. Rows that share units (`tasks.dependence`) are not taken for independent: an interval
is the wider one of Student's over rows and Student's over what the rows share.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from neuroscope.errors import ArgumentError
from neuroscope.tasks.dependence import Dependence, Units, sharing

_LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval and the number of items it rests on. A bound that the items cannot set is infinite."""

    value: float
    low: float
    high: float
    n: int

    @classmethod
    def from_dictionary(cls, data: Mapping[str, Any]) -> Estimate:
        """The estimate that `as_dictionary` wrote: JSON has no infinities, so a bound that is None was infinite."""
        value, low, high = (data[name] for name in ("value", "low", "high"))
        return cls(
            math.nan if value is None else float(value),
            -math.inf if low is None else float(low),
            math.inf if high is None else float(high),
            int(data["n"]),
        )

    def __str__(self) -> str:
        value, low, high = map(_printed, (self.value, self.low, self.high))
        return f"{value} [{low}, {high}]"

    def as_dictionary(self) -> dict[str, float | int | None]:
        """The four figures; None for what JSON cannot carry."""
        bounds = {"value": self.value, "low": self.low, "high": self.high}
        return {**{name: figure if math.isfinite(figure) else None for name, figure in bounds.items()}, "n": self.n}


@dataclass(frozen=True)
class Test:
    """A two-sided test that a mean is 0: the mean with its interval, and the p-value.

    The interval leaves out 0 exactly when the p-value is below .05.
    """

    __test__: ClassVar[bool] = False  # pytest would collect it

    estimate: Estimate
    p_value: float


def _printed(number: float) -> str:
    if math.isinf(number):
        return "∞" if number > 0 else "-∞"
    return f"{round(number, 3) + 0.0:.3f}"  # no -0.000


def wilson(successes: int, n: int) -> Estimate:
    """A rate with Wilson's score interval (Wilson 1927). Raises `ArgumentError` without items."""
    if n < 1 or not 0 <= successes <= n:
        raise ArgumentError(f"{successes} of {n} is no rate.")
    interval = stats.binomtest(successes, n).proportion_ci(method="wilson")
    return Estimate(successes / n, float(interval.low), float(interval.high), n)


def mean_of(values: ArrayLike, units: Units | None = None) -> Estimate:
    """The mean of values (rows,) with Student's interval; rows that share units are not independent.

    One row has a mean without bounds. Raises `ArgumentError` for values that are none or not finite, and for another
    number of units.
    """
    rows = _rows(values)
    found = [_student(rows, dependence) for dependence in sharing(len(rows), units)]
    half = max(quantile * error for error, quantile, _ in found)
    value = float(rows.mean())
    return Estimate(value, value - half, value + half, len(rows))


def difference_test(values: ArrayLike, units: Units | None = None) -> Test:
    """Whether paired differences (rows,) have mean 0, two-sided (Student 1908); rows that share units are not independent.

    Raises `ArgumentError` for values that are none or not finite, and for another number of units.
    """
    rows = _rows(values)
    mean = float(rows.mean())
    p_value = 0.0
    for error, _, degrees in (_student(rows, dependence) for dependence in sharing(len(rows), units)):
        if not math.isfinite(error):
            return Test(mean_of(rows, units), 1.0)
        with np.errstate(divide="ignore"):
            ratio = np.float64(abs(mean)) / error if mean else 0.0
        p_value = max(p_value, float(2 * stats.t.sf(ratio, degrees)))
    return Test(mean_of(rows, units), min(1.0, p_value))


def ratio_of(numerators: ArrayLike, denominators: ArrayLike, units: Units | None = None) -> Estimate:
    """mean(numerators) / mean(denominators), both (rows,), with Fieller's interval (Fieller 1954).

    It holds the ratios ρ for which mean(numerators − ρ denominators) cannot be told from 0. Where the denominators' mean
    cannot be told from 0, that is a ratio without bounds. Raises `ArgumentError` for a denominator of mean 0, for values
    that are none or not finite, and for other numbers of rows.
    """
    above, below = _rows(numerators), _rows(denominators)
    if len(above) != len(below):
        raise ArgumentError(f"{len(above)} numerators have {len(below)} denominators.", remedy="Give one of each a row.")
    if below.mean() == 0:
        raise ArgumentError("The denominators have mean 0, so there is no ratio.")
    value = float(above.mean() / below.mean())
    means = np.array([above.mean(), below.mean()])
    residuals = np.stack([above, below], 1) - means
    low, high = value, value
    for dependence in sharing(len(above), units):
        bounds = _fieller(means, residuals, dependence)
        low, high = min(low, bounds[0]), max(high, bounds[1])
    return Estimate(value, low, high, len(above))


def mean_over_groups(values: Sequence[float], groups: Sequence[Hashable]) -> Estimate:
    """A mean with Student's interval over the groups' means: items of one group are not independent. n counts items."""
    if not values or len(values) != len(groups):
        raise ArgumentError(f"{len(values)} values in {len(groups)} groups have no mean.")
    members: dict[Hashable, list[float]] = {}
    for value, group in zip(values, groups, strict=True):
        members.setdefault(group, []).append(value)
    found = mean_of([float(np.mean(member)) for member in members.values()])
    return Estimate(found.value, found.low, found.high, len(values))


def _rows(values: ArrayLike) -> NDArray[np.float64]:
    rows = np.asarray(values, dtype=np.float64)
    if rows.ndim != 1 or not len(rows):
        raise ArgumentError(f"Values of shape {rows.shape} are no rows.", remedy="Give one number a row, and at least one.")
    if not np.isfinite(rows).all():
        raise ArgumentError("A value is not a finite number.", remedy="Leave out the rows that have no value.")
    return rows


def _student(rows: NDArray[np.float64], dependence: Dependence) -> tuple[float, float, float]:
    """The mean's standard error, Student's quantile and the degrees of freedom; the first is infinite without any."""
    if dependence.degrees <= 0:
        return math.inf, 1.0, 0.0
    variance = float(dependence.covariance((rows - rows.mean())[:, None])[0, 0])
    return math.sqrt(max(variance, 0.0)), _quantile(dependence.degrees), dependence.degrees


def _quantile(degrees: float) -> float:
    return float(stats.t.ppf((1 + _LEVEL) / 2, degrees))


def _fieller(means: NDArray[np.float64], residuals: NDArray[np.float64], dependence: Dependence) -> tuple[float, float]:
    """The bounds of the ρ with (m₀ − ρ m₁)² ≤ t² (v₀₀ − 2 ρ v₀₁ + ρ² v₁₁)."""
    if dependence.degrees <= 0:
        return -math.inf, math.inf
    moments = np.outer(means, means) - _quantile(dependence.degrees) ** 2 * definite(dependence.covariance(residuals))
    square, middle, constant = moments[1, 1], moments[0, 1], moments[0, 0]
    if square <= 0:
        return -math.inf, math.inf
    root = math.sqrt(max(middle**2 - square * constant, 0.0))
    return float((middle - root) / square), float((middle + root) / square)


def definite(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """The nearest positive semidefinite matrix: negative eigenvalues become 0 (Cameron, Gelbach & Miller 2011)."""
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray((vectors * np.maximum(values, 0)) @ vectors.T)
