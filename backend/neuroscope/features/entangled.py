"""Statistics of units that respond in several domains.

A unit responds in a domain if it is larger on the domain's texts than on background texts of other domains: AUROC over groups
of texts (templates), with its exact p-value (`features.ranks`). That it responds in at least two of k domains is tested by the
partial conjunction of Benjamini & Heller (2008): of the unit's k p-values, p₍₁₎ ≤ … ≤ p₍ₖ₎, the bound (k − 1) · p₍₂₎ is a
p-value for "at most one domain" under any dependence of the domains (they share the background). Benjamini & Hochberg (1995)
over all units then controls the false-discovery rate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from neuroscope.features.ranks import aurocs, p_values


@dataclass(frozen=True)
class Judged:
    """aurocs, p_values, responds: (domains, units). q_values, found: (units,). A found unit responds in two domains or more."""

    aurocs: NDArray[np.float64]
    p_values: NDArray[np.float64]
    responds: NDArray[np.bool_]
    q_values: NDArray[np.float64]
    found: NDArray[np.bool_]


def second_largest(values: NDArray[Any]) -> NDArray[Any]:
    """The second largest value of each unit: (domains, units) → (units,)."""
    found: NDArray[Any] = np.sort(values, axis=0)[-2]
    return found


def responses(domains: Sequence[NDArray[Any]], background: NDArray[Any]) -> NDArray[np.float64]:
    """AUROC (domains, units) of each domain's groups (groups, units) against the background's."""
    return np.stack([aurocs(*_labelled(values, background)) for values in domains])


def judge(domains: Sequence[NDArray[Any]], background: NDArray[Any], *, level: float) -> Judged:
    """Test every unit; all arrays are (groups, units)."""
    others = len(domains) - 1
    p = np.stack([p_values(*_labelled(values, background)) for values in domains])
    both = np.minimum(others * np.sort(p, axis=0)[1], 1.0)
    q_values = np.asarray(stats.false_discovery_control(both, method="bh"))
    found = q_values <= level
    # The domains of a found unit must pass the same threshold as the units.
    bar = both[found].max() if found.any() else 0.0
    responds = (others * p <= bar) & found
    return Judged(responses(domains, background), p, responds, q_values, found)


def selectivity(aurocs: NDArray[np.float64]) -> float:
    """(μ_max − μ_rest) / (μ_max + μ_rest) of responses 2 · AUROC − 1, at least 0 (Morcos et al. 2018).

    1: the unit responds in only one domain; 0: equally in all.
    """
    strength = np.sort(np.maximum(2 * aurocs - 1, 0.0))
    most, rest = float(strength[-1]), float(strength[:-1].mean())
    return (most - rest) / (most + rest) if most + rest else 0.0


def _labelled(values: NDArray[Any], background: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    return np.concatenate([values, background]), np.arange(len(values) + len(background)) < len(values)
