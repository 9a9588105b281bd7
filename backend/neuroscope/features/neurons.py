"""Neurons that respond to a concept, or that a model's answers rest on.

By *selectivity* a neuron is chosen for what it tells: it is larger on texts of the concept than on others
(`features.selectivity`). By *effect* it is chosen for what it does: the answers to a task's items would suffer without it
(`features.effects`). The two need not agree. Either way some texts or items choose, and others, which share no word, name or
template with them, judge.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from neuroscope.errors import ArgumentError
from neuroscope.features.concepts import Own, concept_texts
from neuroscope.features.selectivity import select
from neuroscope.instrument import Instrument
from neuroscope.models.model import TransformerModel
from neuroscope.naming import snake_case
from neuroscope.provenance import provenance
from neuroscope.results import Provenance, Result
from neuroscope.tasks.statistics import Estimate
from neuroscope.vocabulary import public, python_only

_TOP_CONTEXTS = 5


@public
@dataclass(frozen=True)
class Neuron(Result):
    """One neuron of the set's layer, judged on what did not choose it.

    auroc: over words or texts, for neurons chosen by selectivity. p_value, q_value: exact, and corrected over all neurons that
    were judged. top_contexts: the judging texts at which it is largest.
    """

    id: int
    auroc: float
    p_value: float
    q_value: float
    top_contexts: list[str]

    def print_string(self) -> str:
        return f"a Neuron({self.id}, AUROC {self.auroc:.3f})"


@public
@dataclass(frozen=True)
class NeuronSet(Result):
    """The neurons of one layer that respond to a concept: iterating gives their ids, strongest first.

    exists: whether any neuron survived the correction; reason: why not. auroc: the mean of theirs. probe_accuracy: of a logistic
    probe on the whole layer, on what did not train it. pca: share of variance of the layer's first principal components, and
    each one's AUROC. by_layer: mean AUROC of every layer's chosen neurons, those that the correction dismisses counted as chance.
    """

    concept: str
    layer: int
    neurons: list[Neuron]
    auroc: float
    probe_accuracy: Estimate
    pca: list[dict[str, float]]
    by_layer: list[float]
    exists: bool
    reason: str | None
    provenance: Provenance
    _model: TransformerModel = field(repr=False)

    @classmethod
    @python_only
    def from_dictionary(cls, data: Mapping[str, Any], model: TransformerModel) -> NeuronSet:
        """A set from what its `as_dictionary` answered."""
        return cls(
            concept=data["concept"],
            layer=data["layer"],
            neurons=[
                Neuron(each["id"], each["auroc"], each["pValue"], each["qValue"], each["topContexts"])
                for each in data["neurons"]
            ],
            auroc=data["auroc"],
            probe_accuracy=Estimate.from_dictionary(data["probeAccuracy"]),
            pca=data["pca"],
            by_layer=data["byLayer"],
            exists=data.get("exists", bool(data["neurons"])),
            reason=data.get("reason"),
            provenance=Provenance(**{snake_case(name): value for name, value in data["provenance"].items()}),
            _model=model,
        )

    @property
    def model(self) -> TransformerModel:
        return self._model

    @property
    def ids(self) -> list[int]:
        return [neuron.id for neuron in self.neurons]

    @property
    def scores(self) -> dict[int, float]:
        """AUROC by neuron id."""
        return {neuron.id: neuron.auroc for neuron in self.neurons}

    def __iter__(self) -> Iterator[int]:
        return iter(self.ids)

    def __len__(self) -> int:
        return len(self.neurons)

    def print_string(self) -> str:
        if not self.exists:
            return f"a NeuronSet({self.concept}: none)"
        return f"a NeuronSet({self.concept}: {len(self)} neurons of layer {self.layer}, AUROC {self.auroc:.3f})"

    def summary(self) -> str:
        model = self.provenance.title
        if not self.exists:
            return (
                f"No neurons for {self.concept} in {model}: {self.reason}\n"
                f"  probe accuracy   {self.probe_accuracy} (layer {self.layer})"
            )
        lines = [
            f"{self.concept} in {model}: {len(self)} neurons of layer {self.layer}",
            f"  probe accuracy   {self.probe_accuracy}",
            f"  mean AUROC       {self.auroc:.3f} over {self.provenance.sizes['judging']} that did not choose them",
            f"  {'neuron':>8}  {'AUROC':>6}  {'q':>8}  strongest context",
        ]
        lines += [
            f"  {neuron.id:>8}  {neuron.auroc:>6.3f}  {neuron.q_value:>8.2g}  {neuron.top_contexts[0][:70]!r}"
            for neuron in self.neurons[:10]
        ]
        return "\n".join(lines)


@public
class NeuronAnalyzer(Instrument):
    """Finds neurons of one model. texts: how many of either kind. level: the false-discovery rate that is allowed."""

    def __init__(self, model: TransformerModel, *, texts: int = 120, level: float = 0.05, seed: int | None = None) -> None:
        super().__init__(model, seed)
        if not 0 < level < 1:
            raise ArgumentError(f"A false-discovery rate is between 0 and 1, not {level}.")
        self.texts: int = texts
        self.level: float = level

    def find_neurons_for(self, concept: Own, against: Own | None = None) -> NeuronSet:
        """The neurons of a concept's layer: a name (`features.concepts`), or your own words, texts or dataset.

        A set may be empty: then no neuron survives the correction. Raises `ArgumentError` for an unknown concept and
        `DatasetError` for too few words or texts.
        """
        found = concept_texts(concept, against, n=self.texts, seed=self.seed)
        choosing, judging = found.split(self.seed)
        selected = select(self._model, choosing, judging, level=self.level, seed=self.seed)
        neurons = []
        for index, values in enumerate(selected.values):
            top = [judging.texts[at] for at in np.argsort(-values, kind="stable")[:_TOP_CONTEXTS]]
            neurons.append(
                Neuron(selected.ids[index], selected.aurocs[index], selected.p_values[index], selected.q_values[index], top)
            )
        reason = None
        if not neurons:
            reason = (
                f"of {selected.candidates} that were judged, none tells its {judging.kind}s from others at a false-discovery "
                f"rate of {self.level:.0%}."
            )
        groups = sum(judging.counts())
        return NeuronSet(
            concept=found.name,
            layer=selected.layer,
            neurons=neurons,
            auroc=float(np.mean(selected.aurocs)) if neurons else 0.5,
            probe_accuracy=selected.probe_accuracy,
            pca=selected.pca,
            by_layer=selected.by_layer,
            exists=bool(neurons),
            reason=reason,
            provenance=provenance(self._model, None, self.seed, choosing=sum(choosing.counts()), judging=groups),
            _model=self._model,
        )
