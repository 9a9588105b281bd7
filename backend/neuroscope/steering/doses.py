"""The dependence of values on the strength of steering, compared with random directions.

growth           the least-squares slope of value on strength
dose–response    Spearman's correlation of strength and value (Tan et al. 2024)

Both are computed per item, so their intervals are over items, which may be dependent, not over strengths. A random direction
has the vector's length. With K of them, p = (1 + number that change values at least as much, in either direction) / (1 + K):
exact if the vector is one more random direction (Phipson & Smyth 2010).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from neuroscope.steering.vectors import Vector

Numbers = NDArray[np.float64]


def growths(strengths: Sequence[float], values: Numbers) -> Numbers:
    """The slope of each item's finite values (strengths, items); NaN with fewer than two strengths."""
    return _by_item(strengths, values, _slope)


def dose_responses(strengths: Sequence[float], values: Numbers) -> Numbers:
    """Each item's rank correlation with strength (items,): 0 if nothing changes, NaN with fewer than two strengths."""
    return _by_item(strengths, values, _rank_correlation)


def p_beyond(value: float, random: Sequence[float] | Numbers) -> float:
    """The probability that a random direction changes values as much as `value`, in either direction; 1 without any."""
    if not np.isfinite(value) or not len(random):
        return 1.0
    at_least = np.abs(np.asarray(random)) >= abs(value) - 1e-12
    return float((1 + at_least.sum()) / (1 + len(random)))


def random_directions(count: int, width: int, length: float, seed: int) -> Vector:
    """Directions (count, width), uniform on the sphere of that radius."""
    drawn = np.random.default_rng(seed).normal(size=(count, width))
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True) * length, dtype=np.float32)


def _by_item(strengths: Sequence[float], values: Numbers, measure: Callable[[Numbers, Numbers], float]) -> Numbers:
    doses = np.asarray(strengths, dtype=np.float64)
    found = []
    for item in values.T:
        counted = np.isfinite(item)
        enough = len(set(doses[counted].tolist())) >= 2
        found.append(measure(doses[counted], item[counted]) if enough else np.nan)
    return np.array(found)


def _slope(doses: Numbers, item: Numbers) -> float:
    centred = doses - doses.mean()
    return float(centred @ item / (centred @ centred))


def _rank_correlation(doses: Numbers, item: Numbers) -> float:
    return float(stats.spearmanr(doses, item).statistic) if np.ptp(item) > 1e-9 else 0.0
