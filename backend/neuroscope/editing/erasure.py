"""Concept erasure: the affine map that takes a concept out of a vector and changes as little else as it can.

For vectors x with mean μ and a label z (two classes), s = Cov(x, z). The map

    r(x) = x − s wᵀ(x − μ),   wᵀs = 1

makes Cov(r(x), z) = 0, whatever w is: no linear reader finds the concept any more. What is left is to choose w:

    w = argmin wᵀ C w   with   wᵀs = 1   and   H w = 0

C says what a change costs. With C = Cov(x, x) and no H this is LEACE (Belrose et al. 2023), the erasing map nearest to x. Here C is
the second moment about μ over the concept's prompts, over text, and over the prompts of what is to be kept; along the rows of H nothing
moves at all. The solver is `kernel.smallest_change`.

The map of what a component writes, out = a @ W + b, belongs into its weights: W' = W − (W w) sᵀ, b' = b − (b·w − μ·w) s. Where there is
no bias for the constant, μ is one of the rows of H, and the constant is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from neuroscope.editing.kernel import Matrix, null_space, smallest_change
from neuroscope.errors import ArgumentError

#: What moving the kept prompts costs, against moving the concept's prompts or text by as much.
KEPT_COST = 3.0
#: What moving in any direction costs, in mean variances of the concept's prompts. They have few entities and the vectors many
#: dimensions, so that without it w is of those entities; far above it the map is the removal of the mean difference.
RIDGE = 10.0
#: A covariance with the label below this share of the vectors' spread is rounding.
_NOTHING = 1e-9


@dataclass(frozen=True)
class Eraser:
    """r(x) = x − s wᵀ(x − μ). written: s, (d,). read: w, (d,). centre: μ, (d,)."""

    written: Matrix
    read: Matrix
    centre: Matrix

    def __call__(self, x: Matrix) -> Matrix:
        """Vectors (n, d) without the concept."""
        return x - np.outer((x - self.centre) @ self.read, self.written)

    @property
    def constant(self) -> Matrix:
        """(d,): r(0)."""
        found: Matrix = (self.centre @ self.read) * self.written
        return found

    def change(self, matrix: Matrix) -> Matrix:
        """What folding the map adds to a matrix (…, d) whose rows write vectors, without the constant."""
        found: Matrix = -(matrix @ self.read)[..., None] * self.written
        return found

    def shift(self, x: Matrix) -> float:
        """How far vectors (n, d) move, root mean square, as a share of their own size."""
        size = float(np.sqrt((x**2).sum(1).mean()))
        moved = float(np.sqrt((((x - self.centre) @ self.read) ** 2).mean()) * np.linalg.norm(self.written))
        return moved / size if size else 0.0


def covariance_with(x: Matrix, z: Matrix) -> Matrix:
    """Cov(x, z), (d,), of vectors (n, d) and labels (n,). Raises `ArgumentError` where they do not fit or a class is missing."""
    if x.ndim != 2 or z.shape != (len(x),):
        raise ArgumentError(f"Vectors of shape {x.shape} do not go with labels of shape {z.shape}.")
    if not np.isfinite(x).all():
        raise ArgumentError("The vectors hold NaN or infinity.", remedy="Check the model's weights and hooks.")
    if len(np.unique(z)) != 2:
        raise ArgumentError(f"A concept has two classes of prompts, not {len(np.unique(z))}.")
    found: Matrix = (x - x.mean(0)).T @ (z - z.mean()) / len(x)
    return found


def leace(
    x: Matrix,
    z: Matrix,
    *,
    kept: Sequence[Matrix] = (),
    text: Matrix | None = None,
    exactly: int | None = None,
    centred: bool = True,
    kept_cost: float = 0.0,
    ridge: float = 0.0,
) -> Eraser | None:
    """The eraser of a concept; LEACE itself where nothing else is given. None where the vectors do not know the concept.

    x: (n, d). z: (n,), two values. kept: vectors (k, d) that must stay; of each, the span of the `exactly` leading directions about
    μ is not moved at all (None: of all directions), the rest at `kept_cost`. text: (t, d), vectors whose moving counts like that of x.
    centred: whether the map may have a constant. Raises `EditError` where what is kept leaves no way to erase the concept, and
    `ArgumentError` for vectors that are not finite or labels without two classes.
    """
    s = covariance_with(x, z)
    mu = x.mean(0)
    about = x - mu
    if np.linalg.norm(s) <= _NOTHING * max(float(np.sqrt((about**2).sum(1).mean()) * z.std()), np.finfo(float).tiny):
        return None
    cost = about.T @ about / len(x)
    floor = ridge * float(np.trace(cost)) / len(s)
    for rows, weight in [*((one, kept_cost) for one in kept), *(((text, 1.0),) if text is not None else ())]:
        if weight and len(rows):
            cost = cost + weight * (rows - mu).T @ (rows - mu) / len(rows)
    fixed = [_leading(rows - mu, exactly) for rows in kept if len(rows)]
    if not centred and mu.any():
        fixed.append(mu[None] / np.linalg.norm(mu))
    basis = null_space(np.concatenate(fixed)) if fixed else None
    w = smallest_change(s[None], np.ones((1, 1)), metric=cost + floor * np.eye(len(s)), basis=basis)[:, 0]
    return Eraser(s, w, mu)


def mean_difference(x: Matrix, z: Matrix) -> Eraser | None:
    """The orthogonal projection that removes the difference of the classes' means; None where there is none."""
    s = covariance_with(x, z)
    size = float(s @ s)
    return Eraser(s, s / size, x.mean(0)) if size else None


def random_like(eraser: Eraser, x: Matrix, random: np.random.Generator) -> Eraser:
    """A map along a random direction in which the vectors x (n, d) vary, that moves them as far as the given one does."""
    drawn = random.normal(size=len(x)) @ (x - x.mean(0))
    direction = drawn / max(float(np.linalg.norm(drawn)), np.finfo(float).tiny)
    plain = Eraser(direction, direction, eraser.centre)
    return Eraser(eraser.shift(x) / max(plain.shift(x), np.finfo(float).tiny) * direction, direction, eraser.centre)


def _leading(rows: Matrix, most: int | None) -> Matrix:
    """The leading right singular vectors of rows (k, d), as rows: at most `most`, and no more than their rank."""
    _, values, right = np.linalg.svd(rows, full_matrices=False)
    rank = int((values > 1e-10 * max(float(values[0]), np.finfo(float).tiny)).sum())
    found: Matrix = right[: rank if most is None else min(rank, most)]
    return found
