"""Figures of circuits with their intervals, from per-pair metrics.

Faithfulness and its relatives are ratios of means over the same pairs, so their intervals come from resampling pairs
(Efron's percentile bootstrap), numerator and denominator together.
"""

from __future__ import annotations

import numpy as np

from neuroscope.circuits.reference import Numbers
from neuroscope.errors import CircuitError
from neuroscope.tasks.statistics import Estimate

_RESAMPLES = 2000


def normalised(values: Numbers, low: Numbers, high: Numbers, *, seed: int = 0) -> Estimate:
    """(mean(values) − mean(low)) / (mean(high) − mean(low)) over pairs, with a 95 % bootstrap interval.

    All (rows,). Raises `CircuitError` when `high` and `low` have the same mean: the pairs show no effect to share out.
    """
    span = float(high.mean() - low.mean())
    if abs(span) < 1e-9:
        raise CircuitError(
            "Clean and corrupt prompts give the same metric on average, so there is no effect to explain.",
            remedy="Check that the model can do the task (`neuroscope evaluate`) and that the pairs differ in the answer.",
        )
    rows = len(values)
    picks = np.random.default_rng(seed).integers(0, rows, (_RESAMPLES, rows))
    spans = (high - low)[picks].mean(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = (values - low)[picks].mean(1) / spans
    ratios = ratios[np.isfinite(ratios)]
    low_bound, high_bound = np.quantile(ratios, [0.025, 0.975]) if len(ratios) else (float("nan"), float("nan"))
    return Estimate(float((values - low).mean() / span), float(low_bound), float(high_bound), rows)


def mean(values: Numbers, *, seed: int = 0) -> Estimate:
    """The mean over pairs (rows,) with a 95 % bootstrap interval."""
    picks = np.random.default_rng(seed).integers(0, len(values), (_RESAMPLES, len(values)))
    low, high = np.quantile(values[picks].mean(1), [0.025, 0.975])
    return Estimate(float(values.mean()), float(low), float(high), len(values))
