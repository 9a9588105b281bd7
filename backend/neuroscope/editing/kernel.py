"""The one computation behind every edit: the smallest linear change that does what is wanted and leaves alone what is kept.

For keys k (n, d_in) and targets t (n, d_out), with a metric M (d_in, d_in) that says what a change costs, and rows H (m, d_in) that
must not notice it, in the orientation x @ W:

    exactly      Δ = argmin tr(Δᵀ M Δ)                     with  k Δ = t  and  H Δ = 0
    regularised  Δ = argmin ‖k Δ − t‖² + tr(Δᵀ M Δ)        with  H Δ = 0

With B an orthonormal basis of the null space of H and Δ = B X, both are closed forms in X. Concept erasure (LEACE, Belrose et al.
2023) is the exact one with t = 1 and M the covariance; ROME (Meng et al. 2022) the exact one with M = E[kᵀk]; MEMIT (Meng et al. 2023)
the regularised one with M = λ E[kᵀk]; AlphaEdit (Fang et al. 2024) the regularised one in the null space of what is kept, and
AlphaSteer (Sheng et al. 2025) the same with activations for keys. Everything is float64, on the host.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuroscope.errors import ArgumentError, EditError

Matrix = NDArray[np.float64]

#: Singular values and eigenvalues below this share of the largest are rounding.
ROUNDING = 1e-10
#: How far an exact change may miss its targets, relative to them, before it counts as impossible.
MISS = 1e-6


def smallest_change(
    keys: ArrayLike, targets: ArrayLike, *, metric: ArrayLike | None = None, basis: Matrix | None = None, exactly: bool = True
) -> Matrix:
    """The change Δ (d_in, d_out) of this module's head.

    keys: (n, d_in). targets: (n, d_out). metric: (d_in, d_in), symmetric and without negative eigenvalues; None for the identity.
    basis: (d_in, r), orthonormal columns that Δ may use (`null_space`); None for all of the space.
    Raises `EditError` where the targets cannot be met exactly, because the keys depend on one another or lie within what is kept, and
    `ArgumentError` for shapes that do not fit and for what is not finite.
    """
    k, t = _matrix("keys", keys), _matrix("targets", targets)
    if len(k) != len(t):
        raise ArgumentError(f"There are {len(k)} keys and {len(t)} targets.", remedy="Give one target for each key.")
    width = k.shape[1]
    m = np.eye(width) if metric is None else _matrix("metric", metric)
    if m.shape != (width, width):
        raise ArgumentError(f"The metric is {m.shape}, and keys are {width} wide.", remedy=f"Give it as ({width}, {width}).")
    b = None if basis is None else _matrix("basis", basis)
    if b is not None and b.shape[0] != width:
        raise ArgumentError(f"The basis has {b.shape[0]} rows, and keys are {width} wide.")
    if 0 in (width, width if b is None else b.shape[1]):
        raise EditError("What is kept fills the whole space: nothing can change.", remedy="Keep less.")
    kb, mb = (k, m) if b is None else (k @ b, b.T @ m @ b)
    if exactly:
        free = kb @ _inverse(mb)  # (n, r)
        within = free.T @ np.linalg.lstsq(free @ kb.T, t, rcond=ROUNDING)[0]
    else:
        within = np.linalg.solve(kb.T @ kb + mb, kb.T @ t)
    found: Matrix = np.asarray(within if b is None else b @ within)
    if not exactly:
        return found
    miss = float(np.linalg.norm(k @ found - t) / max(np.linalg.norm(t), np.finfo(float).tiny))
    if miss > MISS:
        left = float(np.min(np.linalg.norm(kb, axis=1) / np.maximum(np.linalg.norm(k, axis=1), np.finfo(float).tiny)))
        raise EditError(
            f"The change cannot be made without touching what is kept, or its keys contradict one another: {miss:.2g} of the targets "
            f"is missed, and {left:.2g} of a key lies outside what is kept.",
            remedy="Keep less, or change fewer things at once.",
        )
    return found


def null_space(rows: ArrayLike, *, tolerance: float = ROUNDING) -> Matrix:
    """Orthonormal basis (d, r) of what is orthogonal to every row (m, d), but for singular values below `tolerance` of the largest."""
    h = _matrix("rows", rows)
    if not len(h) or not h.any():
        return np.eye(h.shape[1])
    _, values, right = np.linalg.svd(h, full_matrices=True)
    rank = int((values > tolerance * values[0]).sum())
    return np.ascontiguousarray(right[rank:].T)


def quiet_space(moment: ArrayLike, *, threshold: float) -> Matrix:
    """Orthonormal basis (d, r) of the eigenvectors of a second moment E[kᵀk] (d, d) whose eigenvalues are at most `threshold` of the largest.

    What AlphaEdit takes for the null space of kept keys: directions along which they hardly vary.
    """
    c = _matrix("moment", moment)
    values, vectors = np.linalg.eigh((c + c.T) / 2)
    return np.ascontiguousarray(vectors[:, values <= threshold * values[-1]])


def _inverse(metric: Matrix) -> Matrix:
    """Pseudo-inverse of a symmetric metric. Raises `ArgumentError` where it has negative eigenvalues."""
    values, vectors = np.linalg.eigh((metric + metric.T) / 2)
    largest = float(np.abs(values).max())
    if values.min() < -1e-8 * largest:
        raise ArgumentError("The metric has negative eigenvalues: a change could cost less than nothing.")
    kept = values > ROUNDING * largest
    found: Matrix = (vectors[:, kept] / values[kept]) @ vectors[:, kept].T
    return found


def _matrix(what: str, values: ArrayLike) -> Matrix:
    found = np.atleast_2d(np.asarray(values, dtype=np.float64))
    if found.ndim != 2:
        raise ArgumentError(f"The {what} are rows × width, not {found.shape}.")
    if not np.isfinite(found).all():
        raise ArgumentError(f"The {what} hold NaN or infinity.", remedy="Check how they were computed.")
    return found
