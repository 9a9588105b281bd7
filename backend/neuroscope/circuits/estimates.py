"""Figures of circuits with their intervals, from per-pair metrics.

Faithfulness and similar figures are ratios of means over the same pairs, with Fieller's intervals
(`tasks.statistics.ratio_of`), which are infinite if clean and corrupt prompts do not differ significantly.
"""

from __future__ import annotations

from neuroscope.circuits.pair_runs import Numbers
from neuroscope.errors import CircuitError, joined
from neuroscope.remedies import MEASURED
from neuroscope.tasks.dependence import Units
from neuroscope.tasks.statistics import Estimate, mean_of, ratio_of


def normalised(values: Numbers, low: Numbers, high: Numbers, *, units: Units | None = None) -> Estimate:
    """(mean(values) − mean(low)) / (mean(high) − mean(low)) over pairs, with a 95 % interval.

    All (rows,). Raises `CircuitError` if `high` and `low` have the same mean.
    """
    if abs(float(high.mean() - low.mean())) < 1e-9:
        raise CircuitError(
            "Clean and corrupt prompts give the same metric on average, so there is no effect to explain.",
            remedy=joined("Check that the pairs differ in the answer, and that the model can do the task:", MEASURED),
        )
    return ratio_of(values - low, high - low, units or None)


def mean(values: Numbers, *, units: Units | None = None) -> Estimate:
    """The mean over pairs (rows,) with a 95 % interval."""
    return mean_of(values, units or None)
