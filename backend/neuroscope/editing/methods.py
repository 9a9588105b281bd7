"""ROME, MEMIT and AlphaEdit: from keys and what is to be added at them to changes of output matrices, all by `kernel`.

    ROME       exactly, at the cost of E[kᵀk]: what text does not use is free (Meng et al. 2022)
    MEMIT      regularised by λ E[kᵀk], for many facts at once (Meng et al. 2023, in a single layer)
    AlphaEdit  regularised within the directions that text hardly uses (Fang et al. 2024)

With each of them what is kept does not move: the change is orthogonal to the kept keys.
"""

from __future__ import annotations

from dataclasses import dataclass

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

    regularisation: MEMIT's λ. threshold: AlphaEdit's: directions whose second moment is at most this share of the largest are quiet.
    ridge: AlphaEdit's, as a share of the keys' mean squared norm within the quiet directions.
    """

    regularisation: float = 2.0
    threshold: float = 2e-2
    ridge: float = 1e-2


def change(
    method: str,
    keys: Numbers,
    added: Numbers,
    moment: Numbers,
    *,
    kept: Numbers | None = None,
    settings: Settings | None = None,
) -> Numbers:
    """The change (d_in, d_model) of an output matrix that adds `added` (n, d_model) at `keys` (n, d_in).

    moment: (d_in, d_in), E[kᵀk]. kept: (m, d_in), keys at which nothing may change. Raises `EditError` where that leaves too little.
    """
    chosen, width = settings or Settings(), keys.shape[1]
    rows = np.zeros((0, width)) if kept is None else kept
    if method == "alphaedit":
        quiet = quiet_space(moment, threshold=chosen.threshold * float(np.linalg.eigvalsh(moment)[-1]))
        basis = quiet @ null_space(rows @ quiet) if len(rows) else quiet
        inside = float(((keys @ basis) ** 2).sum(1).mean()) if basis.shape[1] else 0.0
        if inside < 1e-6 * float((keys**2).sum(1).mean()):
            raise EditError(
                f"What is kept and what text uses leave {basis.shape[1]} of {width} directions, and none of them belongs to these facts.",
                remedy="Keep fewer related facts, or raise the threshold.",
            )
        metric = chosen.ridge * inside * np.eye(width)
        return smallest_change(keys, added, metric=metric, basis=basis, exactly=False)
    basis = null_space(rows)
    if method == "memit":
        return smallest_change(keys, added, metric=chosen.regularisation * moment, basis=basis, exactly=False)
    ridge = 1e-4 * np.trace(moment) / width * np.eye(width)  # directions that no text used would cost nothing
    return smallest_change(keys, added, metric=moment + ridge, basis=basis)
