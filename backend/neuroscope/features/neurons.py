"""Neurons that respond to a concept, or that a model's answers depend on.

By *selectivity*, a neuron is chosen because it is larger on texts of the concept than on others (`features.selectivity`). By
*effect*, it is chosen because it contributes to the answers of a task (`features.effects`). The two may disagree. In both cases
some texts or items choose, and others, which share no word, name or template with them, judge.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from neuroscope.errors import ArgumentError, DatasetError
from neuroscope.features.concepts import Own, concept_task, concept_texts
from neuroscope.features.effects import find_effective
from neuroscope.features.selectivity import select
from neuroscope.models.instrument import Instrument
from neuroscope.models.model import TransformerModel
from neuroscope.names import only
from neuroscope.naming import snake_case
from neuroscope.provenance import provenance, tell_dtype, tell_weights
from neuroscope.results import Provenance, Result
from neuroscope.tasks.dataset import Dataset
from neuroscope.tasks.statistics import Estimate
from neuroscope.vocabulary import public, python_only

#: Criteria for choosing neurons.
CHOOSING = ("selectivity", "effect")
_TOP_CONTEXTS = 5


@public
@dataclass(frozen=True)
class Neuron(Result):
    """One neuron of the set's layer, judged on held-out texts or items.

    auroc: over words or texts, of neurons chosen by selectivity; else None. effect: its contribution to an answer's log-odds,
    in nats (`features.effects`), of neurons chosen by effect; else None. p_value, q_value: of that criterion, and corrected
    over all judged neurons. top_contexts: the judging texts at which it is largest, or to whose answers it contributes most.
    """

    id: int
    auroc: float | None
    p_value: float
    q_value: float
    top_contexts: list[str]
    effect: Estimate | None = None

    @property
    def strength(self) -> float:
        """AUROC or effect, by the criterion."""
        found = self.auroc if self.effect is None else self.effect.value
        assert found is not None
        return found

    def print_string(self) -> str:
        measure = f"AUROC {self.strength:.3f}" if self.effect is None else f"effect {self.effect}"
        return f"a Neuron({self.id}, {measure})"


@public
@dataclass(frozen=True)
class NeuronSet(Result):
    """The neurons of one layer that respond to a concept, or that answers depend on: iterating yields their ids, strongest
    first.

    exists: whether any neuron survived the correction; reason: why not. choosing: "selectivity" or "effect".

    By selectivity: auroc: their mean. probe_accuracy: held-out, of a logistic probe on the whole layer. pca: share of variance
    of the layer's first principal components, and each one's AUROC. by_layer: mean AUROC of every layer's chosen neurons, where
    neurons that fail the correction count as chance.

    By effect: damage: the decrease of the answers' log-odds, in nats, when all of them are mean-ablated, on the judging items.
    by_layer: contribution of every layer's confirmed neurons to an answer, in nats. elsewhere: sites of confirmed neurons of
    other layers. used_units: the units of the items that chose and judged; items for a test (`held_out`) must not share them.
    """

    concept: str
    layer: int
    neurons: list[Neuron]
    auroc: float | None
    probe_accuracy: Estimate | None
    pca: list[dict[str, float]]
    by_layer: list[float]
    exists: bool
    reason: str | None
    provenance: Provenance
    _model: TransformerModel = field(repr=False)
    choosing: str = "selectivity"
    damage: Estimate | None = None
    elsewhere: list[str] = field(default_factory=list)
    used_units: list[str] = field(default_factory=list)
    _held_out: Dataset | None = field(default=None, repr=False)
    _told: set[str] = field(default_factory=set, repr=False, compare=False)

    @classmethod
    @python_only
    def from_dictionary(cls, data: Mapping[str, Any], model: TransformerModel) -> NeuronSet:
        """The inverse of `as_dictionary`."""
        return cls(
            concept=data["concept"],
            layer=data["layer"],
            neurons=[
                Neuron(
                    each["id"],
                    each["auroc"],
                    each["pValue"],
                    each["qValue"],
                    each["topContexts"],
                    _estimate(each.get("effect")),
                )
                for each in data["neurons"]
            ],
            auroc=data["auroc"],
            probe_accuracy=_estimate(data["probeAccuracy"]),
            pca=data["pca"],
            by_layer=data["byLayer"],
            exists=data.get("exists", bool(data["neurons"])),
            reason=data.get("reason"),
            provenance=Provenance(**{snake_case(name): value for name, value in data["provenance"].items()}),
            _model=model,
            choosing=data.get("choosing", "selectivity"),
            damage=_estimate(data.get("damage")),
            elsewhere=data.get("elsewhere", []),
            used_units=data.get("usedUnits", []),
        )

    @property
    def model(self) -> TransformerModel:
        return self._model

    @python_only
    def check(self, model: TransformerModel) -> None:
        """Warn, once for each state of the weights and each precision, unless the neurons were found on these and in this."""
        what, found = f"The set for {self.concept}", self.provenance
        tell_weights(what, found.title, found.weights_hash, model, self._told)
        if found.weights_hash == model.weights_hash:
            tell_dtype(what, found.dtype, model, self._told)

    @property
    def ids(self) -> list[int]:
        return [neuron.id for neuron in self.neurons]

    @property
    def scores(self) -> dict[int, float]:
        """AUROC, or effect in nats, by neuron id."""
        return {neuron.id: neuron.strength for neuron in self.neurons}

    @property
    def held_out(self) -> Dataset:
        """Items of the task, independent of those that chose and judged the neurons, for testing an ablation.

        Raises `ArgumentError` for a set chosen by selectivity or read from a file.
        """
        if self._held_out is None:
            raise ArgumentError(
                f"The neurons for {self.concept} have no held-out items.",
                remedy="Find neurons by effect again to get held-out items.",
            )
        return self._held_out

    def __iter__(self) -> Iterator[int]:
        """Their ids, to read or change the neurons; warns where the model has other weights by now."""
        self.check(self._model)
        return iter(self.ids)

    def __len__(self) -> int:
        return len(self.neurons)

    def print_string(self) -> str:
        if not self.exists:
            return f"a NeuronSet({self.concept}: none)"
        measure = f"AUROC {self.auroc:.3f}" if self.damage is None else f"damage {self.damage}"
        return f"a NeuronSet({self.concept}: {len(self)} neurons of layer {self.layer}, {measure})"

    def summary(self) -> str:
        model = self.provenance.title
        if not self.exists:
            first = f"No neurons for {self.concept} in {model}: {self.reason}"
            return (
                first
                if self.probe_accuracy is None
                else f"{first}\n  probe accuracy   {self.probe_accuracy} (layer {self.layer})"
            )
        if self.damage is not None:
            return self._summary_of_effects()
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

    def _summary_of_effects(self) -> str:
        others = f"; {len(self.elsewhere)} of other layers: {', '.join(self.elsewhere[:5])}" if self.elsewhere else ""
        lines = [
            f"{self.concept} in {self.provenance.title}: answers depend on {len(self)} neurons of layer {self.layer}{others}",
            f"  damage           {self.damage} nats when mean-ablated, on {self.provenance.sizes['judging']} items",
            f"  {'neuron':>8}  {'adds (nats)':<24}  {'q':>8}  most to the answer of",
        ]
        lines += [
            f"  {neuron.id:>8}  {neuron.effect!s:<24}  {neuron.q_value:>8.2g}  {neuron.top_contexts[0][:70]!r}"
            for neuron in self.neurons[:10]
        ]
        return "\n".join(lines)


def _estimate(data: Mapping[str, Any] | None) -> Estimate | None:
    return None if data is None else Estimate.from_dictionary(data)


@public
class NeuronAnalyzer(Instrument):
    """Finds neurons of one model. texts: number of either kind. items: number of a task's items that choose, and that judge, by
    effect. level: the false-discovery rate.
    """

    def __init__(
        self, model: TransformerModel, *, texts: int = 120, items: int = 24, level: float = 0.05, seed: int | None = None
    ) -> None:
        super().__init__(model, seed)
        if not 0 < level < 1:
            raise ArgumentError(f"A false-discovery rate must be between 0 and 1, not {level}.")
        self.texts: int = texts
        self.items: int = items
        self.level: float = level

    def find_neurons_for(self, concept: Own, against: Own | None = None, choosing: str = "selectivity") -> NeuronSet:
        """Find the neurons for a concept in its best layer: a name (`features.concepts`), or your own words, texts or dataset.

        choosing: "selectivity" (`features.selectivity`), or "effect", on a task's answers (`features.effects`). By effect,
        `concept` is a concept with a task, a task's name, or your own dataset with answers and wrong answers. The set is empty
        if no neuron survives the correction. Raises `ArgumentError` for an unknown concept or `choosing`, and `DatasetError`
        for too few words, texts or items.
        """
        way = only("way of choosing neurons", CHOOSING, listing="Ways")[choosing]
        if way == "selectivity":
            return self._by_selectivity(concept, against)
        if against is not None:
            raise ArgumentError("Choosing by effect does not use `against:`.", remedy="Leave it out.")
        return self._by_effect(concept)

    def _by_selectivity(self, concept: Own, against: Own | None) -> NeuronSet:
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
                f"none of {selected.candidates} judged neurons distinguishes its {judging.kind}s from others at a false-discovery "
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

    def _by_effect(self, concept: Own) -> NeuronSet:
        name, dataset = concept_task(concept, seed=self.seed)
        parts = dataset.parts_for_model(self._model, (self.items,) * 3, seed=self.seed)
        choosing, judging, held_out = parts
        if any(item.answer is None or item.wrong is None for part in parts for item in part):
            raise DatasetError(f"{dataset.name} has items without an answer or a wrong answer.")
        found = find_effective(self._model, choosing, judging, level=self.level, seed=self.seed)
        neurons = []
        for index, terms in enumerate(found.terms):
            top = [judging[int(at)].clean for at in np.argsort(-terms, kind="stable")[:_TOP_CONTEXTS]]
            test = found.tests[index]
            neurons.append(Neuron(found.ids[index], None, test.p_value, found.q_values[index], top, test.estimate))
        units = {unit for item in (*choosing, *judging) for unit in item.independent_units}
        return NeuronSet(
            concept=name,
            layer=found.layer,
            neurons=neurons,
            auroc=None,
            probe_accuracy=None,
            pca=[],
            by_layer=found.by_layer,
            exists=found.reason is None,
            reason=found.reason,
            provenance=provenance(self._model, dataset.task, self.seed, choosing=len(choosing), judging=len(judging)),
            _model=self._model,
            choosing="effect",
            damage=None if found.damage is None else found.damage.estimate,
            elsewhere=found.elsewhere,
            used_units=sorted(unit for unit in units if unit.partition(":")[0] not in parts.shared),
            _held_out=Dataset(held_out, name=dataset.name, task=dataset.task, seed=self.seed),
        )
