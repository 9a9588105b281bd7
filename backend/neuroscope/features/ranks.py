"""AUROC of units for one kind of texts against another, and its exact p-value.

Under the null hypothesis whole groups are exchangeable: the texts of one word, or of one template. So a unit has one value per
group, the mean over its texts, and the null distribution is that of the rank sum under permutations of the groups' labels (Mann
& Whitney 1947), two-sided. It is counted exactly: with a and b groups the smallest p-value is 2 / C(a + b, a). Ties between the
kinds count against the unit, which keeps the p-value valid.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

#: Largest number of pairs of groups for exact counting; beyond, a Gaussian is used, which has a heavier tail.
_COUNTED = 20_000

Labels = NDArray[np.bool_]


def aurocs(values: NDArray[Any], labels: Labels) -> NDArray[np.float64]:
    """The AUROC (units,) of each column of values (rows, units) for the labels (rows,); ties count half."""
    ranks = stats.rankdata(values, axis=0)
    positive = int(labels.sum())
    negative = len(labels) - positive
    u = ranks[labels].sum(0) - positive * (positive + 1) / 2
    return np.asarray(u / (positive * negative), dtype=np.float64)


def p_values(values: NDArray[Any], labels: Labels) -> NDArray[np.float64]:
    """Two-sided p-values (units,) that values (groups, units) are larger where labels (groups,) are true.

    A unit that is smaller there has a p-value near 1.
    """
    high = np.sort(values[labels], axis=0)
    low = np.sort(values[~labels], axis=0)
    above = np.zeros(values.shape[1], dtype=np.int64)
    for unit in range(values.shape[1]):
        above[unit] = np.searchsorted(low[:, unit], high[:, unit], side="left").sum()
    return np.minimum(1.0, 2 * upper_tail(len(high), len(low))[above])


def smallest_p(positive: int, negative: int) -> float:
    """The p-value of a unit that separates these numbers of groups without error."""
    return min(1.0, 2 / math.comb(positive + negative, positive))


@functools.lru_cache(maxsize=64)
def upper_tail(positive: int, negative: int) -> NDArray[np.float64]:
    """P(U ≥ u) for u = 0 … positive · negative, U the number of pairs in which the positive is larger, without ties."""
    pairs = positive * negative
    if pairs > _COUNTED:
        deviation = math.sqrt(pairs * (positive + negative + 1) / 12)
        return np.asarray(stats.norm.sf((np.arange(pairs + 1) - 0.5 - pairs / 2) / deviation))
    # ways[k, u]: number of subsets of k of the ranks so far with U = u. A rank r added to k others adds r − 1 − k.
    ways = np.zeros((positive + 1, pairs + 1))
    ways[0, 0] = 1
    for rank in range(1, positive + negative + 1):
        for count in range(min(rank, positive), 0, -1):
            added = rank - count
            if added <= negative:
                ways[count, added:] += ways[count - 1, : pairs + 1 - added]
    tail = np.cumsum(ways[positive][::-1])[::-1]
    return np.asarray(np.minimum(tail / tail[0], 1.0))


def separations(values: NDArray[Any], labels: Labels) -> NDArray[np.float64]:
    """Welch's t (units,), to order units with equal AUROCs, which are common with few groups."""
    high, low = values[labels].astype(np.float64), values[~labels].astype(np.float64)
    spread = np.sqrt(high.var(0) / len(high) + low.var(0) / len(low))
    return np.asarray((high.mean(0) - low.mean(0)) / (spread + 1e-9 * (1 + np.abs(values).max(0))))


def strongest(values: NDArray[Any], labels: Labels, count: int) -> NDArray[np.int64]:
    """The `count` columns of values (groups, units) with the largest AUROC, best first."""
    order = np.lexsort((-separations(values, labels), -aurocs(values, labels)))
    return np.asarray(order[:count], dtype=np.int64)


def grouped(values: NDArray[Any], groups: Sequence[Hashable]) -> NDArray[np.float64]:
    """Means (…, groups, units) of values (…, texts, units) over the texts of each group, in the order of `distinct`."""
    number = {group: index for index, group in enumerate(distinct(groups))}
    members = np.zeros((len(number), len(groups)), dtype=np.float64)
    members[[number[group] for group in groups], np.arange(len(groups))] = 1
    members /= members.sum(1, keepdims=True)
    return np.asarray(members @ values)


def distinct(groups: Sequence[Hashable]) -> list[Hashable]:
    """The distinct groups, in the order of their first texts."""
    return list(dict.fromkeys(groups))
