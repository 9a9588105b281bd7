"""Variances of means over rows that may share units: names, places, templates.

Two rows that share a unit need not be independent, so every pair of them counts: with A the matrix that is 1 where two
rows share a unit (and on the diagonal) and e the residuals, the variance of a mean of n rows is eᵀAe / n², as for dyads
(Aronow, Samii & Assenova 2015) and for several ways of clustering (Cameron, Gelbach & Miller 2011).

Residuals are smaller than errors, the more so the more rows are dependent, so eᵀAe is divided by the value that it has
for independent rows of one variance, and its degrees of freedom are those of the χ² with the same first two moments
(Bell & McCaffrey 2002). With M the centring matrix these are tr(MAM) and tr(MAM)² / tr(MAMAM). For rows without common
units that is Student's interval with n − 1 degrees of freedom, and for equal groups Student's over the groups' means.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuroscope.errors import ArgumentError

Units = Sequence[frozenset[str]]
_Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Dependence:
    """Which rows depend on one another: related (rows, rows) is 1 where they do, scale and degrees as above."""

    related: _Numbers
    scale: float
    degrees: float

    def covariance(self, residuals: _Numbers) -> _Numbers:
        """The covariance (columns, columns) of the means of residuals (rows, columns), which may not be definite."""
        return np.asarray(residuals.T @ self.related @ residuals / (len(residuals) * self.scale))


def independent(rows: int) -> Dependence:
    """No two of the rows share a unit."""
    return Dependence(np.eye(rows), rows - 1.0, rows - 1.0)


def sharing(rows: int, units: Units | None) -> list[Dependence]:
    """The dependences to be reckoned with: that of independent rows, and the one by shared units where rows share any.

    Units that every row has make no two rows more alike than others and are left out: what is estimated is then the
    mean for that unit. Raises `ArgumentError` when there are not as many sets of units as rows.
    """
    if units is not None and len(units) != rows:
        raise ArgumentError(f"{rows} rows have {len(units)} sets of units.", remedy="Give one set of units a row.")
    found = [independent(rows)]
    if units is None or rows < 2:
        return found
    common = frozenset.intersection(*map(frozenset, units))
    members: dict[str, list[int]] = {}
    for row, mine in enumerate(units):
        for unit in mine - common:
            members.setdefault(unit, []).append(row)
    related = np.eye(rows)
    for shared in members.values():
        related[np.ix_(shared, shared)] = 1
    if related.sum() == rows:
        return found
    inner = related - related.mean(0) - related.mean(1)[:, None] + related.mean()
    scale, squares = float(np.trace(inner)), float((inner**2).sum())
    if scale < 1e-9 * rows:  # no two rows are independent: nothing tells how the mean varies
        return [*found, Dependence(related, 1.0, 0.0)]
    return [*found, Dependence(related, scale, scale**2 / squares)]
