"""Rates with intervals, and paired differences between two models that were asked the same items.

A difference is paired: d = gains − losses over n items, where a gain is an item that only the new model has right and a loss
one that only the baseline has right. Items that share units (a template, a name) are not independent, so two intervals are
taken and the wider one is told:

1. of independent items, Tango's score interval for a difference of paired proportions (Tango 1998, Stat. Med. 17), which has
   a width even where no item differs; its test is McNemar's, here exact (McNemar 1947);
2. of dependent ones, Student's over what the items share (`tasks.dependence`), task by task; tasks are strata, since nobody
   draws them at random, and their degrees of freedom are combined after Welch and Satterthwaite.

The p-value is the larger one. For means that are no rates (a loss per token) the first of the two is a percentile bootstrap
over units (Efron & Tibshirani 1993): a unit's items are drawn together, and both models' outcomes of an item stay paired.

The verdict asks two things. *Is a loss of `margin` excluded?* If the interval lies above −margin: pass (non-inferior). *Is there
a loss at all?* If not excluded and p ≤ 0.05: fail. Else the items cannot tell, which is a verdict of its own. A loss that
is certain, but smaller than the margin, passes.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special, stats

from neuroscope.errors import ArgumentError
from neuroscope.tasks.dependence import Units, kernels
from neuroscope.tasks.statistics import Estimate, outcomes
from neuroscope.vocabulary import public

K = TypeVar("K", bound=Hashable)

LEVEL = 0.05
#: The power at which a loss counts as detectable.
POWER = 0.8
_DRAWS = 4000
_Numbers = NDArray[np.float64]

PASS, FAIL, INCONCLUSIVE = "pass", "fail", "inconclusive"


@public
@dataclass(frozen=True)
class Difference:
    """How a model differs from its baseline on the same items; above 0 the model is better.

    baseline: the baseline's own score. improved, worsened: how many items went either way. margin: the loss that is still
    put up with. detectable: the smallest loss that these items would show with a power of 0.8, where that can be told.
    adjusted_p_value: after Holm (1979), over all differences of a report; None before.
    """

    baseline: Estimate
    estimate: Estimate
    improved: int
    worsened: int
    p_value: float
    margin: float
    detectable: float | None
    method: str
    adjusted_p_value: float | None = None

    @property
    def verdict(self) -> str:
        """pass, fail or inconclusive."""
        if self.estimate.low > -self.margin:
            return PASS
        p_value = self.p_value if self.adjusted_p_value is None else self.adjusted_p_value
        return FAIL if self.estimate.value < 0 and p_value <= LEVEL else INCONCLUSIVE

    def print_string(self) -> str:
        return f"a Difference({self.estimate}, {self.verdict})"

    def as_dictionary(self) -> dict[str, Any]:
        return {
            "baseline": self.baseline.as_dictionary(),
            "estimate": self.estimate.as_dictionary(),
            "improved": self.improved,
            "worsened": self.worsened,
            "pValue": self.p_value,
            "adjustedPValue": self.adjusted_p_value,
            "margin": self.margin,
            "detectable": self.detectable,
            "method": self.method,
            "verdict": self.verdict,
        }


def pooled(parts: Sequence[Estimate]) -> Estimate:
    """The mean over all items of several strata, whose intervals are combined by squared distances (Zou & Donner 2008).

    Strata are weighted by their numbers of items. A bound that a stratum cannot set is infinite here too.
    """
    n = sum(part.n for part in parts)
    if not n:
        raise ArgumentError("There are no items to average.")
    weights = [part.n / n for part in parts]
    value = sum(weight * part.value for weight, part in zip(weights, parts, strict=True))
    below = math.sqrt(sum((weight * (part.value - part.low)) ** 2 for weight, part in zip(weights, parts, strict=True)))
    above = math.sqrt(sum((weight * (part.high - part.value)) ** 2 for weight, part in zip(weights, parts, strict=True)))
    return Estimate(value, value - below, value + above, n)


def paired_rates(
    new: ArrayLike, old: ArrayLike, strata: Sequence[Hashable], units: Units | None, *, margin: float, baseline: Estimate
) -> Difference:
    """The difference of two rates from outcomes (rows,) of 0 and 1, the same item in the same row.

    strata: each row's task. units: what rows share. Raises `ArgumentError` for other values, for rows that do not go
    together, and for a margin that is not between 0 and 1.
    """
    ours, theirs = outcomes(new), outcomes(old)
    _check(ours, theirs, margin)
    rows = ours - theirs
    gains, losses = int((rows > 0).sum()), int((rows < 0).sum())
    low, high = tango(gains, losses, len(rows))
    shared, p_shared, inflation = _by_units(rows, strata, units)
    estimate = Estimate(float(rows.mean()), max(-1.0, min(low, shared.low)), min(1.0, max(high, shared.high)), len(rows))
    effective = max(2, round(len(rows) / inflation)) if math.isfinite(inflation) else 2
    return Difference(
        baseline,
        estimate,
        gains,
        losses,
        max(mcnemar(gains, losses), p_shared),
        margin,
        detectable_loss(effective, 2 * min(gains, losses) / len(rows)),
        "McNemar, exact; Tango's interval; Student's over shared units",
    )


def paired_means(
    new: ArrayLike,
    old: ArrayLike,
    weights: ArrayLike,
    groups: Sequence[Hashable],
    units: Units | None,
    *,
    margin: float,
    baseline: Estimate,
    seed: int = 0,
) -> Difference:
    """The difference of two weighted means from totals (rows,), such as losses of texts, each over its number of tokens.

    The lower total is the better one: above 0 the new model has less. weights: (rows,), tokens. groups: what is drawn
    together by the bootstrap. Raises `ArgumentError` for rows that do not go together.
    """
    ours, theirs, sizes = (np.asarray(values, dtype=np.float64) for values in (new, old, weights))
    _check(ours, theirs, margin)
    if len(sizes) != len(ours) or len(groups) != len(ours) or (sizes <= 0).any():
        raise ArgumentError(f"{len(ours)} rows have {len(sizes)} weights and {len(groups)} groups.", remedy="Give one a row.")
    rows = theirs - ours
    value = float(rows.sum() / sizes.sum())
    # Residuals of the ratio, so that rows of many tokens are not taken for rows that differ more.
    spread = value + (rows - value * sizes) / sizes.mean()
    shared, p_shared, _ = _by_units(spread, [0] * len(rows), units)
    drawn = bootstrapped(rows, sizes, groups, seed)
    low, high = (float(bound) for bound in np.quantile(drawn, [LEVEL / 2, 1 - LEVEL / 2]))
    beyond = min((drawn <= 0).sum(), (drawn >= 0).sum())
    p_drawn = min(1.0, 2 * float(beyond + 1) / (len(drawn) + 1))
    estimate = Estimate(value, min(low, shared.low), max(high, shared.high), len(rows))
    error = max(float(drawn.std()), (shared.high - shared.low) / 2 / 1.96 if math.isfinite(shared.high) else 0.0)
    reach = float(special.ndtri(1 - LEVEL / 2) + special.ndtri(POWER))
    return Difference(
        baseline,
        estimate,
        int((rows > 0).sum()),
        int((rows < 0).sum()),
        max(p_drawn, p_shared),
        margin,
        reach * error if error else None,
        f"bootstrap of {_DRAWS} draws over units; Student's over shared units",
    )


def bootstrapped(totals: ArrayLike, sizes: ArrayLike, groups: Sequence[Hashable], seed: int = 0) -> _Numbers:
    """Σ totals / Σ sizes of resampled groups (draws,): as many groups as there are, drawn with replacement."""
    rows, counts = np.asarray(totals, dtype=np.float64), np.asarray(sizes, dtype=np.float64)
    names = {group: index for index, group in enumerate(dict.fromkeys(groups))}
    members = np.array([names[group] for group in groups])
    sums, widths = (np.bincount(members, weights=values, minlength=len(names)) for values in (rows, counts))
    chosen = np.random.default_rng(seed).integers(len(names), size=(_DRAWS, len(names)))
    return np.asarray(sums[chosen].sum(1) / widths[chosen].sum(1))


def mcnemar(gains: int, losses: int) -> float:
    """The exact two-sided p-value that gains and losses are equally likely (McNemar 1947); 1 where there are none.

    >>> round(mcnemar(1, 9), 4)
    0.0215
    """
    return float(stats.binomtest(min(gains, losses), gains + losses).pvalue) if gains + losses else 1.0


def tango(gains: float, losses: float, n: float) -> tuple[float, float]:
    """The score interval of (gains − losses) / n for paired proportions (Tango 1998), at 95 %.

    >>> [round(bound, 4) for bound in tango(0, 0, 100)]
    [-0.037, 0.037]
    """
    quantile = float(special.ndtri(1 - LEVEL / 2))

    def statistic(difference: float) -> float:
        middle = (2 * n - gains + losses) * difference - gains - losses
        constant = -losses * difference * (1 - difference)
        nuisance = (math.sqrt(max(middle**2 - 8 * n * constant, 0.0)) - middle) / (4 * n)
        variance = n * (2 * nuisance + difference * (1 - difference))
        distance = gains - losses - n * difference
        return distance / math.sqrt(variance) if variance > 1e-12 else math.copysign(math.inf, distance) if distance else 0.0

    value, edge = (gains - losses) / n, 1 - 1e-9
    bounds = []
    for end, target in ((-edge, quantile), (edge, -quantile)):
        inside = min(max(value, -edge), edge)
        reached = statistic(end)
        if inside == end or (reached - target) * (statistic(inside) - target) > 0:
            bounds.append(math.copysign(1.0, end))
            continue
        bounds.append(
            float(optimize.brentq(lambda at, target=target: _finite(statistic(at)) - target, inside, end, xtol=1e-10))
        )
    return bounds[0], bounds[1]


def detectable_loss(n: int, flips: float = 0.0, *, level: float = LEVEL, power: float = POWER) -> float | None:
    """The smallest loss of a rate that McNemar's exact test on `n` independent items finds with that power; None if none is.

    flips: the share of items on which the models differ besides, half of them either way.

    >>> round(detectable_loss(200), 3)
    0.039
    """
    most = 1 - flips
    if power_to_find(most, n, flips, level=level) < power:
        return None
    return float(optimize.brentq(lambda loss: power_to_find(loss, n, flips, level=level) - power, 0.0, most, xtol=1e-5))


def power_to_find(loss: float, n: int, flips: float = 0.0, *, level: float = LEVEL) -> float:
    """The probability that McNemar's exact test on `n` independent items calls a loss of that size a loss.

    Items get lost at the rate flips/2 + loss and gained at flips/2; gains and losses are binomial given how many differ.
    """
    differing = flips + loss
    if differing <= 0:
        return 0.0
    counts = np.arange(n + 1)
    needed = stats.binom.isf(level / 2, counts, 0.5) + 1  # P(losses ≥ needed) ≤ level / 2 if both are equally likely
    found = stats.binom.sf(needed - 1, counts, (flips / 2 + loss) / differing)
    return float((stats.binom.pmf(counts, n, min(differing, 1.0)) * found).sum())


def holm(p_values: Mapping[K, float]) -> dict[K, float]:
    """p-values adjusted so that the chance of any false claim among all stays at the level (Holm 1979).

    >>> holm({"a": 0.01, "b": 0.04, "c": 0.03})
    {'a': 0.03, 'c': 0.06, 'b': 0.06}
    """
    found: dict[K, float] = {}
    highest = 0.0
    ordered = sorted(p_values.items(), key=lambda item: item[1])
    for place, (name, p_value) in enumerate(ordered):
        highest = max(highest, min(1.0, (len(ordered) - place) * p_value))
        found[name] = highest
    return found


def judged(estimate: Estimate, least: float) -> str:
    """Whether a score reaches a threshold: pass if all of its interval does, fail if none of it, else inconclusive."""
    return PASS if estimate.low >= least else FAIL if estimate.high < least else INCONCLUSIVE


def worst(verdicts: Sequence[str]) -> str | None:
    """The worst of several verdicts; None of none."""
    return max(verdicts, key=[PASS, INCONCLUSIVE, FAIL].index, default=None)


def _by_units(rows: _Numbers, strata: Sequence[Hashable], units: Units | None) -> tuple[Estimate, float, float]:
    """Mean, interval and p-value of rows over what they share, task by task; and by how much that widens the variance."""
    members: dict[Hashable, list[int]] = {}
    for row, stratum in enumerate(strata):
        members.setdefault(stratum, []).append(row)
    variance = plain = freedom = 0.0
    for mine in members.values():
        residuals = rows[mine] - rows[mine].mean()
        weight = (len(mine) / len(rows)) ** 2
        choices = kernels(residuals, None if units is None else [units[row] for row in mine])
        plain += weight * float(residuals @ residuals) / len(mine) / max(len(mine) - 1, 1)
        if any(kernel.degrees <= 0 for kernel in choices):
            if not residuals.any() and len(mine) == 1 and rows[mine[0]] == 0:
                continue
            return Estimate(float(rows.mean()), -math.inf, math.inf, len(rows)), 1.0, math.inf
        spread, degrees = max(
            ((float(kernel.covariance(residuals[:, None])[0, 0]), kernel.degrees) for kernel in choices),
            key=lambda one: one[0] * float(special.stdtrit(one[1], 1 - LEVEL / 2)) ** 2,
        )
        variance += weight * spread
        freedom += (weight * spread) ** 2 / degrees
    value = float(rows.mean())
    if variance <= 0:
        return Estimate(value, value, value, len(rows)), 1.0 if value == 0 else 0.0, 1.0
    degrees = variance**2 / freedom
    half = float(special.stdtrit(degrees, 1 - LEVEL / 2)) * math.sqrt(variance)
    p_value = min(1.0, float(2 * special.stdtr(degrees, -abs(value) / math.sqrt(variance))))
    return Estimate(value, value - half, value + half, len(rows)), p_value, max(1.0, variance / plain) if plain else 1.0


def _check(ours: _Numbers, theirs: _Numbers, margin: float) -> None:
    if ours.shape != theirs.shape:
        raise ArgumentError(
            f"{len(ours)} outcomes have {len(theirs)} of the baseline.", remedy="Measure both on the same items."
        )
    checked_margin(margin)


def checked_margin(margin: float) -> float:
    """The margin as a number; `ArgumentError` for one that is not between 0 and 1."""
    if not isinstance(margin, (int, float)) or isinstance(margin, bool) or not 0 < margin < 1:
        raise ArgumentError(f"A margin is above 0 and below 1, not {margin!r}.", remedy="0.05 puts up with five points.")
    return float(margin)


def _finite(value: float) -> float:
    return max(-1e12, min(1e12, value))
