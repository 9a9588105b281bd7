"""What editing gives to models: edits that apply, are listed, and revert."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from neuroscope.editing import transactions
from neuroscope.editing.edit import WeightEdit
from neuroscope.extensions import extends
from neuroscope.models.model import TransformerModel

if TYPE_CHECKING:
    pass


@extends(TransformerModel)
class EditsOfModels:
    """Edits of the model's weights. They hold for every model object on these weights."""

    def apply_edit(self, edit: Any) -> WeightEdit:
        """Apply an edit, or what proposes one, as a whole or not at all; answers the edit.

        Raises `EditError` for an edit of other weights, and `ArgumentError` for what proposes none.
        """
        found = transactions.as_edit(edit)
        transactions.apply(cast(TransformerModel, self), found)
        transactions.changed(cast(TransformerModel, self))
        return found

    def apply_modification(self, modification: Any) -> WeightEdit:
        """The same, in the words of documented script 19."""
        return self.apply_edit(modification)

    @property
    def edits(self) -> list[WeightEdit]:
        """The edits that are applied, the oldest first."""
        return [entry.edit for entry in transactions.ledger(cast(TransformerModel, self))]

    def revert(self, edit: Any) -> WeightEdit:
        """Take an edit back, bit for bit; answers it.

        Raises `EditError` for one that is not applied, that another lies above, or whose weights were written since.
        """
        found = transactions.as_edit(edit)
        transactions.revert(cast(TransformerModel, self), found)
        transactions.changed(cast(TransformerModel, self))
        return found

    def revert_edits(self) -> list[WeightEdit]:
        """Take every edit back, the last first; answers them in that order. Raises what `revert` raises."""
        found = self.edits[::-1]
        for edit in found:
            self.revert(edit)
        return found
