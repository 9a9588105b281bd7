"""The redirect: a matrix that leaves harmless activations alone and moves harmful ones towards the refusal direction.

With the refusal direction r = mean(harmful) − mean(harmless) at the ends of requests (Arditi et al. 2024), harmful activations H, kept
harmless ones K, and E the second moment of all harmless ones, the matrix is h' = h + s hΔ with (AlphaSteer, Sheng et al. 2025)

    Δ = argmin ‖HΔ − 1 rᵀ‖² + tr(Δᵀ (E + αI) Δ)     with  KΔ = 0

which `editing.kernel` solves. All targets are one vector, so Δ = a rᵀ: `amount` hᵀa says how far an activation is moved, exactly 0 on
the kept ones, and as little as the second moment allows on other harmless ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from neuroscope.editing.kernel import Matrix, null_space, smallest_change
from neuroscope.safety.readings import Numbers

#: Ridge, as a share of the mean square of harmful activations.
_RIDGE = 1e-3


@dataclass(frozen=True)
class Redirect:
    """amount (width,): a. direction (width,): r. strength: s. kept (n, width): harmless activations that stay as they are.

    moved: mean |hᵀa| of harmless activations that are not kept; reached: mean hᵀa of harmful ones.
    """

    layer: int
    amount: Numbers
    direction: Numbers
    strength: float
    kept: Numbers = field(repr=False)
    moved: float = 0.0
    reached: float = 0.0

    @property
    def matrix(self) -> Matrix:
        """(width, width): I + s a rᵀ, for rows h."""
        return np.eye(len(self.amount)) + self.strength * np.outer(self.amount, self.direction)

    def step(self, activations: Numbers) -> Numbers:
        """What is added to activations (…, width)."""
        return np.asarray(self.strength * (activations @ self.amount)[..., None] * self.direction)


def metric(harmful: Numbers, harmless: Numbers) -> Matrix:
    """(width, width): E + αI, with the harmless activations counting as much as the harmful ones together."""
    width = harmful.shape[1]
    return (
        harmless.T @ harmless * (len(harmful) / len(harmless)) + _RIDGE * np.eye(width) * np.trace(harmful.T @ harmful) / width
    )


def redirect(layer: int, harmful: Numbers, harmless: Numbers, kept: Numbers, direction: Numbers, strength: float) -> Redirect:
    """The redirect of a layer. All activations are (n, width). Raises `EditError` where what is kept leaves no room."""
    change = smallest_change(
        harmful, np.tile(direction, (len(harmful), 1)), metric=metric(harmful, harmless), basis=null_space(kept), exactly=False
    )
    amount = change @ direction / (direction @ direction)
    moved, reached = float(np.abs(harmless @ amount).mean()), float((harmful @ amount).mean())
    return Redirect(layer, amount, direction, strength, kept, moved, reached)
