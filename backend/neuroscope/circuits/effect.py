"""The test for an effect: the paired gap between clean and corrupt prompts, tested before the search for a circuit.

A circuit explains why the metric is higher on clean prompts than on corrupt ones. Without a significant gap there is nothing to
explain, and figures that are shares of the gap are ratios of noise. The test is two-sided and paired, on separate pairs, and
exchanges clean and corrupt at random (Fisher's randomisation test, which assumes no distribution). Its level is strict, because
pairs that share a name are slightly dependent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from neuroscope.circuits.pair_runs import Numbers
from neuroscope.tasks.statistics import Estimate, mean_of

LEVEL = 0.02
#: With fewer pairs the test cannot pass, even if all gaps have one sign: 2 / 2⁷ < 0.02.
FEWEST_PAIRS = 7
_EXACT, _EXCHANGES = 14, 20_000


@dataclass(frozen=True)
class Effect:
    """gap: clean minus corrupt metric, mean over pairs. exists: whether it is above zero. reason: why not."""

    gap: Estimate
    p_value: float
    exists: bool
    reason: str | None = None


def paired_effect(clean: Numbers, corrupt: Numbers, units: Sequence[frozenset[str]] | None = None) -> Effect:
    """Test clean − corrupt (rows,) against zero. units: as in `PairBatch.units`, for the gap's interval."""
    differences = clean - corrupt
    gap, p_value = mean_of(differences, units or None), exchange_test(differences)
    if len(differences) < FEWEST_PAIRS:
        return Effect(
            gap,
            p_value,
            False,
            f"{len(differences)} pairs are too few to test clean against corrupt prompts; {FEWEST_PAIRS} are needed",
        )
    found = f"clean − corrupt {gap}, p = {p_value:.2g}, {len(differences)} pairs"
    if p_value >= LEVEL:
        return Effect(gap, p_value, False, f"clean and corrupt prompts do not differ significantly ({found})")
    if gap.value < 0:
        return Effect(gap, p_value, False, f"the metric is higher on corrupt prompts than on clean ones ({found})")
    return Effect(gap, p_value, True)


def confirmed(effect: Effect, clean: Numbers, corrupt: Numbers, units: Sequence[frozenset[str]] | None = None) -> Effect:
    """`effect` if it replicates on other pairs; else a negative one. Too few pairs decide nothing.

    At level α one null model in 2/α passes a single test, and its figures are then shares of noise.
    """
    if not effect.exists or len(clean) < FEWEST_PAIRS:
        return effect
    again = paired_effect(clean, corrupt, units)
    if again.exists:
        return effect
    first = f"{effect.gap}, p = {effect.p_value:.2g}, {effect.gap.n} pairs"
    return Effect(effect.gap, again.p_value, False, f"the gap of {first}, does not replicate on other pairs: {again.reason}")


def exchange_test(differences: Numbers) -> float:
    """Two-sided p-value of paired differences (rows,) under exchange within pairs: all exchanges, or 20,000 random ones."""
    rows = len(differences)
    if rows <= _EXACT:
        signs = 1.0 - 2.0 * ((np.arange(1 << rows)[:, None] >> np.arange(rows)) & 1)
        exchanged = np.abs(signs @ differences)
        return float((exchanged >= exchanged[0] * (1 - 1e-9)).mean())
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (_EXCHANGES, rows))
    reached = int((np.abs(signs @ differences) >= abs(differences.sum()) * (1 - 1e-9)).sum())
    return (reached + 1) / (_EXCHANGES + 1)
