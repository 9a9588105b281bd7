"""How large weights become by edits, and when that is too much.

Edits that follow one another make the norm of the weights they touch grow, faster and faster, and at some point the model falls apart
(Gupta et al. 2024, "Model editing at scale leads to gradual and catastrophic forgetting"): the norm is what can be watched beforehand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from neuroscope.editing import transactions
from neuroscope.errors import EditError
from neuroscope.remedies import Remedy

if TYPE_CHECKING:
    from neuroscope.editing.edit import WeightEdit
    from neuroscope.models.model import TransformerModel

#: The largest norm of a weight after edits, in norms that it was loaded with.
LARGEST = 8.0


def growth(model: TransformerModel, edit: WeightEdit) -> dict[str, float]:
    """For each weight that the edit touches: its norm with this edit and those on the model, over its norm as it was loaded."""
    found = {}
    applied = [entry.edit.deltas for entry in transactions.ledger(model)]
    for name, delta in edit.deltas.items():
        now = model.weights(name).read().astype(np.float64)
        loaded = now - sum(deltas[name].astype(np.float64) for deltas in applied if name in deltas)
        found[name] = float(np.linalg.norm(now + delta) / max(np.linalg.norm(loaded), np.finfo(float).tiny))
    return found


def checked_growth(model: TransformerModel, edit: WeightEdit, largest: float) -> float:
    """The largest growth of a weight. Raises `EditError` where it is above `largest`."""
    found = growth(model, edit)
    name = max(found, key=lambda one: found[one])
    if found[name] <= largest:
        return found[name]
    count = sum(name in entry.edit.deltas for entry in transactions.ledger(model))
    raise EditError(
        f"With {edit.title!r} the norm of {name} would be {found[name]:.2f} times what it was loaded with ({count} edits are on it already), "
        f"and models whose weights grow beyond {largest:g} times fall apart. Nothing was changed.",
        site=name,
        remedy=Remedy(
            "Take edits back (model.revert_edits()) and change the facts in one edit (update_facts), edit another layer (layer=), "
            "or raise largest_growth of the editor.",
            smalltalk="Take edits back (`model revertEdits`) and change the facts in one edit (`updateFacts:`), edit another layer "
            "(`layer:`), or raise `largestGrowth` of the editor.",
        ),
    )
