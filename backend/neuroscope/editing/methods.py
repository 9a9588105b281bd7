"""ROME, MEMIT and AlphaEdit: from keys and what is to be added at them to changes of output matrices, all by `kernel`.

    ROME       exactly, at the cost of E[kᵀk]: what text does not use is free (Meng et al. 2022)
    MEMIT      regularised by λ E[kᵀk], for many facts at once (Meng et al. 2023, in a single layer)
    AlphaEdit  regularised within the directions that text hardly uses (Fang et al. 2024)

With each of them what is kept does not move: the change is orthogonal to the kept keys. What is spared moves as little as it can: the
keys of the other tokens of the facts' prompts, at which the same change would write something else than at the subject, and those of
facts changed before. They are AlphaEdit's K_p; λ E[kᵀk] spares text likewise within the quiet directions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from neuroscope.editing.kernel import null_space, quiet_space, smallest_change
from neuroscope.editing.keys import Numbers
from neuroscope.errors import EditError
from neuroscope.names import only

METHODS = ("rome", "memit", "alphaedit")
NAMES = only("editing method", METHODS, listing="Methods")


@dataclass(frozen=True)
class Settings:
    """What the methods leave open.

    regularisation: λ, of MEMIT and AlphaEdit; the larger, the milder the change. threshold: AlphaEdit's: directions whose second moment is at most this share of the largest are quiet.
    ridge: added to E[kᵀk], as a share of its mean eigenvalue; it keeps the change small in directions that text does not use.
    """

    regularisation: float = 20.0
    threshold: float = 2e-2
    ridge: float = 0.3


class Solver:
    """The changes of an output matrix that add `added` (n, d_model) at `keys` (n, d_in), for different regards to text.

    moment: (d_in, d_in), E[kᵀk]. kept: (m, d_in), keys at which nothing may change. spared: (m, d_in), keys at which little may.
    Raises `EditError` where that leaves too little.
    """

    def __init__(
        self,
        method: str,
        keys: Numbers,
        added: Numbers,
        moment: Numbers,
        *,
        kept: Numbers | None = None,
        spared: Numbers | None = None,
        settings: Settings | None = None,
    ) -> None:
        self._exactly, self._settings, self._added = method == "rome", settings or Settings(), added
        width = keys.shape[1]
        spread = np.trace(moment) / width * np.eye(width)
        kept_rows = np.zeros((0, width)) if kept is None else kept
        if method == "alphaedit":
            quiet = quiet_space(moment, threshold=self._settings.threshold)
            basis = quiet @ null_space(kept_rows @ quiet) if len(kept_rows) else quiet
            inside = float(((keys @ basis) ** 2).sum(1).mean()) if basis.shape[1] else 0.0
            if inside < 1e-6 * float((keys**2).sum(1).mean()):
                raise EditError(
                    f"What is kept and what text uses leave {basis.shape[1]} of {width} directions, and none of them belongs to these facts.",
                    remedy="Keep fewer related facts, or raise the threshold.",
                )
        else:
            basis = null_space(kept_rows)
        regard = 1e-4 if self._exactly else self._settings.ridge  # directions that no text used would cost nothing
        text, rows = moment + regard * spread, np.zeros((0, width)) if spared is None else spared
        self._keys, self._basis, self._cost, self._text = keys, basis, rows.T @ rows, text
        if not self._exactly:  # several strengths are tried: what they share is computed once, in coordinates of the basis
            self._keys, self._cost, self._text = keys @ basis, (rows @ basis).T @ (rows @ basis), basis.T @ text @ basis

    def change(self, regularisation: float | None = None) -> Numbers:
        """(d_in, d_model). regularisation: λ, by default that of the settings; ROME has none."""
        if self._exactly:
            return smallest_change(self._keys, self._added, metric=self._cost + self._text, basis=self._basis)
        weight = self._settings.regularisation if regularisation is None else regularisation
        metric = self._cost + weight * self._text
        return self._basis @ smallest_change(self._keys, self._added, metric=metric, exactly=False)


def change(method: str, keys: Numbers, added: Numbers, moment: Numbers, **given: Any) -> Numbers:
    """The change of a `Solver`. Raises what it raises."""
    return Solver(method, keys, added, moment, **given).change()
