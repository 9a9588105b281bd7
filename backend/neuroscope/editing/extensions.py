"""What editing gives to models: edits that apply, are listed, and revert; and to circuits and neurons: their weights."""

from __future__ import annotations

from typing import Any, cast

from neuroscope.circuits.circuit import Circuit, as_circuit
from neuroscope.editing import extracted, transactions
from neuroscope.editing.edit import WeightEdit
from neuroscope.editing.extracted import CircuitWeights
from neuroscope.editing.transforms import WeightTransform
from neuroscope.errors import ArgumentError, EditError
from neuroscope.extensions import extends
from neuroscope.features.neurons import NeuronSet
from neuroscope.models.model import TransformerModel


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

    def apply_weight_transform(self, transform: WeightTransform, to: Any) -> WeightTransform:
        """Apply a transform of a circuit's weights, as a whole or not at all; answers it. `model revert:` takes it back.

        Raises `CircuitError` for a circuit of other weights, `EditError` for a transform of another circuit, one that found nothing to
        erase, and what `apply_edit` raises.
        """
        if not isinstance(transform, WeightTransform):
            raise ArgumentError(
                f"{transform!r} is not a WeightTransform.", remedy="`WeightTransform removing:preserving:of:` makes one."
            )
        model, circuit = cast(TransformerModel, self), as_circuit(to, "A weight transform")
        if transform.edit is None:
            raise EditError(f"There is nothing to apply: {transform.reason}", remedy="Check that the transform `exists` first.")
        if not any(entry.edit is transform.edit for entry in transactions.ledger(model)):
            circuit.check(model)
        mine = transform.circuit
        if circuit is not mine and (circuit.provenance.weights_hash, circuit.nodes) != (
            mine.provenance.weights_hash,
            mine.nodes,
        ):
            raise EditError(
                f"The transform was made for the circuit for {mine.task} ({len(mine)} components), not for that for {circuit.task} "
                f"({len(circuit)} components).",
                remedy="Make it of this circuit's weights.",
            )
        self.apply_edit(transform)
        return transform

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


@extends(Circuit)
class WeightsOfCircuits:
    """A circuit's own weights."""

    def extract_weights(self) -> CircuitWeights:
        """The slices of the model that are the circuit's: names, shapes, shares, and who else uses them.

        Raises `CircuitError` for a circuit without components, and one of other weights than its model has now.
        """
        return extracted.of_circuit(cast(Circuit, self))


@extends(NeuronSet)
class WeightsOfNeurons:
    """A set of neurons' own weights."""

    def extract_weights(self) -> CircuitWeights:
        """What each neuron reads, its bias, and what it writes. Raises `CircuitError` for an empty set; warns of other weights."""
        return extracted.of_neurons(cast(NeuronSet, self))
