"""Estimates with intervals, and tests.

Everything is two-sided and at 95 %. Rows that share units (`tasks.dependence`) do not count as independent: an interval is the
wider of Student's over rows and Student's over shared units.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

from neuroscope.errors import ArgumentError
from neuroscope.tasks.dependence import Kernel, Units, kernels

_LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval and number of items. A bound is infinite if there are too few items.

    >>> str(Estimate(0.5, 0.25, 0.75, 40))
    '0.500 [0.250, 0.750]'
    """

    value: float
    low: float
    high: float
    n: int

    @classmethod
    def from_dictionary(cls, data: Mapping[str, Any]) -> Estimate:
        """The inverse of `as_dictionary`: a bound of None is infinite, since JSON has no infinities."""
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
        """The four figures; None for infinities and NaN."""
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
        raise ArgumentError(f"{successes} of {n} is not a rate.")
    interval = stats.binomtest(successes, n).proportion_ci(method="wilson")
    return Estimate(successes / n, float(interval.low), float(interval.high), n)


def rate(values: ArrayLike, units: Units | None = None) -> Estimate:
    """The share of ones among values (rows,), with the wider of Wilson's interval and Student's over shared units, within 0 and 1.

    Raises `ArgumentError` for values other than 0 and 1, and without any.
    """
    rows = outcomes(values)
    independent, shared = wilson(int(rows.sum()), len(rows)), mean_of(rows, units)
    return Estimate(
        independent.value, max(0.0, min(independent.low, shared.low)), min(1.0, max(independent.high, shared.high)), len(rows)
    )


def outcomes(values: ArrayLike) -> NDArray[np.float64]:
    """Values (rows,) that are 0 or 1. Raises `ArgumentError` for others, and without any."""
    rows = np.asarray(values, dtype=np.float64)
    if rows.ndim != 1 or not len(rows):
        raise ArgumentError(f"Outcomes of shape {rows.shape} are no rows.", remedy="Give one outcome a row, and at least one.")
    if not np.isin(rows, (0.0, 1.0)).all():
        raise ArgumentError("An outcome is neither right nor wrong.", remedy="Give 1 for right and 0 for wrong.")
    return rows


def mean_of(values: ArrayLike, units: Units | None = None) -> Estimate:
    """The mean of values (rows,) with Student's interval; rows that share units are not independent.

    The interval of one row is infinite. Raises `ArgumentError` without values, for values that are not finite, and for another
    number of units.
    """
    rows = _rows(values)
    value = float(rows.mean())
    half = max(_half(rows - value, kernel) for kernel in kernels(rows - value, units))
    return Estimate(value, value - half, value + half, len(rows))


def difference_test(values: ArrayLike, units: Units | None = None) -> Test:
    """Whether paired differences (rows,) have mean 0, two-sided; rows that share units are not independent.

    The p-value is the largest of Student's (1908) and of Hall's (1992), which corrects for the sample's skewness, with half a
    standard error of the skewness added or subtracted: otherwise the test is too liberal for few skewed values. The interval is
    the widest of these. Raises `ArgumentError` without values, for values that are not finite, and for another number of units.
    """
    rows = _rows(values)
    mean = float(rows.mean())
    found = mean_of(rows, units)
    if not math.isfinite(found.low):
        return Test(found, 1.0)
    p_values = [
        _p_value(mean / error if error else math.copysign(math.inf, mean) if mean else 0.0, degrees)
        for error, degrees in _errors(rows, units)
    ]
    low, high = found.low, found.high
    for skewness in _skewnesses(rows):
        p_value, bounds = _corrected(rows, skewness)
        p_values.append(p_value)
        low, high = min(low, bounds[0]), max(high, bounds[1])
    return Test(Estimate(mean, low, high, len(rows)), max(p_values))


def ratio_of(numerators: ArrayLike, denominators: ArrayLike, units: Units | None = None) -> Estimate:
    """mean(numerators) / mean(denominators), both (rows,), with Fieller's interval (Fieller 1954).

    It contains the ratios ρ for which mean(numerators − ρ denominators) does not differ significantly from 0, for independent
    rows and for shared units. It is unbounded if the denominators' mean does not differ from 0 for independent rows; if only
    with shared units, the second interval is that of the delta method. Raises `ArgumentError` for a denominator of mean 0,
    without values, for values that are not finite, and for different numbers of rows.
    """
    above, below = _rows(numerators), _rows(denominators)
    if len(above) != len(below):
        raise ArgumentError(f"{len(above)} numerators have {len(below)} denominators.", remedy="Give one of each per row.")
    whole = mean_of(below)
    if whole.value == 0:
        raise ArgumentError("The denominators have mean 0, so there is no ratio.")
    value = float(above.mean() / below.mean())
    if whole.low <= 0 <= whole.high:
        return Estimate(value, -math.inf, math.inf, len(above))
    means = np.array([above.mean(), below.mean()])
    residuals = np.stack([above, below], 1) - means
    low, high = value, value
    for kernel in kernels(above - value * below, units):
        bounds = _fieller(means, residuals, kernel)
        if not math.isfinite(bounds[0]):
            half = _half(above - value * below, kernel) / abs(whole.value)
            bounds = value - half, value + half
        low, high = min(low, bounds[0]), max(high, bounds[1])
    return Estimate(value, low, high, len(above))


def mean_over_groups(values: Sequence[float], groups: Sequence[Hashable]) -> Estimate:
    """A mean with Student's interval over the groups' means: items of one group are not independent. n counts items."""
    if not values or len(values) != len(groups):
        raise ArgumentError(f"{len(values)} values have {len(groups)} groups.")
    members: dict[Hashable, list[float]] = {}
    for value, group in zip(values, groups, strict=True):
        members.setdefault(group, []).append(value)
    found = mean_of([float(np.mean(member)) for member in members.values()])
    return Estimate(found.value, found.low, found.high, len(values))


def _rows(values: ArrayLike) -> NDArray[np.float64]:
    rows = np.asarray(values, dtype=np.float64)
    if rows.ndim != 1 or not len(rows):
        raise ArgumentError(
            f"Values of shape {rows.shape} are not rows.", remedy="Give one number per row, and at least one row."
        )
    if not np.isfinite(rows).all():
        raise ArgumentError("A value is not a finite number.", remedy="Leave out the rows without a value.")
    return rows


def _errors(rows: NDArray[np.float64], units: Units | None) -> list[tuple[float, float]]:
    """Standard errors of the mean with their degrees of freedom; infinite without any."""
    residuals = rows - rows.mean()
    return [
        (math.sqrt(kernel.covariance(residuals[:, None])[0, 0]) if kernel.degrees > 0 else math.inf, kernel.degrees)
        for kernel in kernels(residuals, units)
    ]


def _half(residuals: NDArray[np.float64], kernel: Kernel) -> float:
    """Half the width of Student's interval of a mean whose rows have these residuals; infinite without degrees of freedom."""
    if kernel.degrees <= 0:
        return math.inf
    return _quantile(kernel.degrees) * math.sqrt(kernel.covariance(residuals[:, None])[0, 0])


def _quantile(degrees: float) -> float:
    return float(special.stdtrit(degrees, (1 + _LEVEL) / 2)) if degrees > 0 else 1.0


def _p_value(ratio: float, degrees: float) -> float:
    return min(1.0, float(2 * special.stdtr(degrees, -abs(ratio))))


def _skewnesses(rows: NDArray[np.float64]) -> list[float]:
    """The sample's skewness (Fisher's G₁), alone and minus and plus half its standard error (for Gaussian values)."""
    n = len(rows)
    if n < 3 or not rows.std():
        return []
    skewness = float(((rows - rows.mean()) ** 3).mean() / rows.std() ** 3) * math.sqrt(n * (n - 1)) / (n - 2)
    error = math.sqrt(6 * n * (n - 1) / ((n - 2) * (n + 1) * (n + 3)))
    return [skewness - error / 2, skewness, skewness + error / 2]


def _corrected(rows: NDArray[np.float64], skewness: float) -> tuple[float, tuple[float, float]]:
    """The p-value of mean 0 and the mean's bounds by Hall's monotone transformation (Hall 1992, J. R. Stat. Soc. B 54).

    With S the mean over the standard deviation (divisor n), √(n − 1) (S + γS²/3 + γ²S³/27 + γ/(6n)) is compared with Student's
    distribution.
    """
    n, mean, deviation = len(rows), float(rows.mean()), float(rows.std())
    shift = skewness / (6 * n)
    ratio = mean / deviation
    transformed = ratio + skewness * ratio**2 / 3 + skewness**2 * ratio**3 / 27 + shift
    quantile = _quantile(n - 1) / math.sqrt(n - 1)

    def back(value: float) -> float:
        if abs(skewness) < 1e-6:
            return value - shift
        return float(3 / skewness * (np.cbrt(1 + skewness * (value - shift)) - 1))

    bounds = mean - deviation * back(quantile), mean - deviation * back(-quantile)
    return _p_value(math.sqrt(n - 1) * transformed, n - 1), bounds


def _fieller(means: NDArray[np.float64], residuals: NDArray[np.float64], kernel: Kernel) -> tuple[float, float]:
    """The bounds of the ρ with (m₀ − ρ m₁)² ≤ t² (v₀₀ − 2 ρ v₀₁ + ρ² v₁₁)."""
    if kernel.degrees <= 0:
        return -math.inf, math.inf
    moments = np.outer(means, means) - _quantile(kernel.degrees) ** 2 * kernel.covariance(residuals)
    square, middle, constant = moments[1, 1], moments[0, 1], moments[0, 0]
    if square <= 0:
        return -math.inf, math.inf
    root = math.sqrt(max(middle**2 - square * constant, 0.0))
    return float((middle - root) / square), float((middle + root) / square)
