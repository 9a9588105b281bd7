"""Variances of means over rows that may share units: names, places, templates.

Rows that share a unit may be dependent. Their covariance is modelled by crossed random effects: with Z_k the indicator matrix
of rows and units of kind k, it is σ₀² I + Σ_k σ_k² Z_k Z_kᵀ. The components σ² are estimated by equating quadratic forms of the
residuals to their expectations (Henderson's analysis of variance, as in Searle, Casella & McCulloch 1992, ch. 5); a negative
one is set to 0, and the others are fitted again. The variance of the mean is then a quadratic form eᵀQe of the residuals, with
the degrees of freedom of the χ² with the same first two moments (Satterthwaite 1946; Bell & McCaffrey 2002). For rows in equal
groups this is Student's interval over the groups' means.

Summing the products of residuals over all pairs of rows that share a unit (Cameron, Gelbach & Miller 2011; Aronow, Samii &
Assenova 2015) needs no model but many units of every kind: with twenty pairs of two to six templates, as when a circuit is
judged, it has less than one degree of freedom.

A component that is not significant at 0.25 is pooled with the rest (Bozivich, Bancroft & Hartley 1956): otherwise a kind with
three values widens every interval several times, even if it has no effect.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from neuroscope.errors import ArgumentError

Units = Sequence[frozenset[str]]
_Numbers = NDArray[np.float64]

#: Significance level above which a component is pooled.
_POOLED_ABOVE = 0.25
_FEWEST_VALUES = 4


@dataclass(frozen=True)
class Kernel:
    """The variance of a mean as a quadratic form of the rows' residuals, with its degrees of freedom.

    matrix: (rows, rows), None for independent rows. degrees: 0 if the variance cannot be estimated.
    """

    degrees: float
    matrix: _Numbers | None = None

    def covariance(self, residuals: _Numbers) -> _Numbers:
        """The covariance (columns, columns) of the means of residuals (rows, columns), or the nearest definite matrix."""
        rows = len(residuals)
        weighted = residuals / (rows * max(rows - 1, 1)) if self.matrix is None else self.matrix @ residuals
        values, vectors = np.linalg.eigh(residuals.T @ weighted)
        return np.asarray((vectors * np.maximum(values, 0)) @ vectors.T)


class Dependence:
    """The units that rows share. Raises `ArgumentError` unless there is one set of units per row."""

    def __init__(self, rows: int, units: Units) -> None:
        if len(units) != rows:
            raise ArgumentError(f"{rows} rows have {len(units)} sets of units.", remedy="Give one set of units per row.")
        self.rows = rows
        similar = _similarities(units) if rows > 1 else []
        self._forms = [_centred(matrix) for matrix in [np.eye(rows), *similar]]
        self._shares = np.array([matrix.sum() / rows**2 for matrix in [np.eye(rows), *similar]])
        self._traces = np.array([np.trace(form) for form in self._forms])
        self._products = np.array([[float((one * other).sum()) for other in self._forms] for one in self._forms])

    def kernel(self, residuals: _Numbers) -> Kernel | None:
        """The variance of the mean of rows with these residuals (rows,), from shared units; None if none of them matters."""
        found = np.array([residuals @ form @ residuals for form in self._forms])
        if len(found) == 1 or found[0] <= 0:
            return None
        kept = [0, *self._significant(found)]
        if len(kept) == 1:
            return None
        if any(self._exchangeable(kind) for kind in kept[1:]):
            return Kernel(0.0)
        while True:
            inverse = np.linalg.pinv(self._products[np.ix_(kept, kept)], rcond=1e-10)
            components = inverse @ found[kept]
            if components.min() >= 0:
                break
            kept.pop(int(components.argmin()))
        matrix = sum(w * self._forms[kind] for w, kind in zip(self._shares[kept] @ inverse, kept, strict=True))
        model = sum(component * self._forms[kind] for component, kind in zip(components, kept, strict=True))
        product = np.asarray(matrix @ model)
        variance = float(self._shares[kept] @ components)
        degrees = variance**2 / float((product * product.T).sum())
        return Kernel(float(np.clip(degrees, 1, self.rows - 1)), np.asarray(matrix))

    def _significant(self, found: _Numbers) -> Iterable[int]:
        """The kinds whose rows are more similar than independent rows, at level `_POOLED_ABOVE`.

        Under independence q_k / σ̂² has mean tr G and variance 2 (tr G² − (tr G)² / (n − 1)) (n − 1) / (n + 1).
        """
        degrees = self.rows - 1
        for kind in range(1, len(found)):
            trace, square = self._traces[kind], self._products[kind, kind]
            spread = 2 * (square - trace**2 / degrees) * degrees / (degrees + 2)
            if spread < 1e-9 * square:
                yield kind
                continue
            scale = 2 * trace / spread
            if special.chdtrc(trace * scale, found[kind] / (found[0] / degrees) * scale) < _POOLED_ABOVE:
                yield kind

    def _exchangeable(self, kind: int) -> bool:
        """Whether every two rows are equally similar in this kind: then it is confounded with the mean."""
        return bool(self._products[0, kind] ** 2 > (1 - 1e-9) * self._products[0, 0] * self._products[kind, kind])


def kernels(residuals: _Numbers, units: Units | None) -> list[Kernel]:
    """The variance of the mean of rows with these residuals (rows,): for independent rows, and from shared units if they
    matter.
    """
    independent = Kernel(len(residuals) - 1.0)
    if units is None:
        return [independent]
    shared = _dependence(len(residuals), tuple(map(frozenset, units))).kernel(residuals)
    return [independent] if shared is None else [independent, shared]


@functools.lru_cache(maxsize=32)
def _dependence(rows: int, units: tuple[frozenset[str], ...]) -> Dependence:
    return Dependence(rows, units)


def _similarities(units: Units) -> list[_Numbers]:
    """For each kind of unit ("kind:value"), the number of units that two rows have in common: (rows, rows).

    Left out are: a unit that every row has (the estimate is then the mean for that unit); a kind with fewer than
    `_FEWEST_VALUES` values, too few to estimate their variance (the estimate is the mean over these); a kind without a shared
    unit; and a kind that groups the rows like another.
    """
    common = frozenset.intersection(*map(frozenset, units))
    members: dict[str, dict[str, list[int]]] = {}
    for row, mine in enumerate(units):
        for unit in mine - common:
            kind, colon, _ = unit.partition(":")
            members.setdefault(kind if colon else "", {}).setdefault(unit, []).append(row)
    found: list[_Numbers] = []
    for values in (members[kind] for kind in sorted(members)):
        if len(values) < _FEWEST_VALUES < len(units):
            continue
        matrix = np.zeros((len(units), len(units)))
        for rows in values.values():
            matrix[np.ix_(rows, rows)] += 1
        shared = (matrix - np.diag(np.diag(matrix))).any()
        if shared and not any(np.array_equal(matrix, other) for other in found):
            found.append(matrix)
    return found


def _centred(matrix: _Numbers) -> _Numbers:
    return np.asarray(matrix - matrix.mean(0) - matrix.mean(1)[:, None] + matrix.mean())
