"""The weights of a circuit: of each head its slices of the attention matrices, of each MLP its matrices, of neurons their own rows.

What other components use as well is named: a key-value head that serves several query heads, an output bias that a layer's heads have
in common.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from neuroscope.circuits.circuit import Circuit
from neuroscope.engines.sites import Component, Site
from neuroscope.engines.weights import Weight, WeightSite
from neuroscope.errors import ArgumentError, CircuitError, SiteError, did_you_mean
from neuroscope.features.neurons import NeuronSet
from neuroscope.results import Provenance, Result
from neuroscope.tensors.tensor import ActivationTensor
from neuroscope.vocabulary import public, python_only

if TYPE_CHECKING:
    from neuroscope.models.model import TransformerModel

_HEAD = (Weight.W_Q, Weight.B_Q, Weight.W_K, Weight.B_K, Weight.W_V, Weight.B_V, Weight.W_O)
_MLP = (
    Weight.W_GATE, Weight.B_GATE, Weight.W_IN, Weight.B_IN, Weight.W_OUT, Weight.B_OUT, Weight.W_ROUTER, Weight.B_ROUTER,
)  # fmt: skip
_NEURON = (Weight.W_GATE, Weight.B_GATE, Weight.W_IN, Weight.B_IN, Weight.W_OUT)
_GROUPED = frozenset({Weight.W_K, Weight.B_K, Weight.W_V, Weight.B_V})


@public
@dataclass(frozen=True)
class ExtractedWeight:
    """One slice. name: as `model weights:` names it. component: the site that it belongs to. share: of the model's weights.

    shared_with: what else of the model uses these numbers; empty where nothing does.
    """

    name: str
    component: str
    shape: list[int]
    size: int
    share: float
    shared_with: list[str] = field(default_factory=list)


@public
@dataclass(frozen=True, kw_only=True)
class CircuitWeights(Result):
    """The slices of a model that are a circuit's, or a set of neurons'. Nothing is copied: `at:` reads one.

    of: what they were extracted from. size, share: the numbers they hold, each counted once, and their share of the model's (embeddings,
    layers and unembedding). shared: the names of slices that others use as well.
    """

    of: str
    weights: list[ExtractedWeight]
    size: int
    share: float
    provenance: Provenance
    _source: Circuit | NeuronSet = field(repr=False)
    _model: TransformerModel = field(repr=False)

    @property
    @python_only
    def source(self) -> Circuit | NeuronSet:
        """What they were extracted from."""
        return self._source

    @property
    def model(self) -> TransformerModel:
        return self._model

    @property
    def names(self) -> list[str]:
        """The slices' names."""
        return [weight.name for weight in self.weights]

    @property
    def shared(self) -> list[str]:
        """The names of slices that others use as well."""
        return [weight.name for weight in self.weights if weight.shared_with]

    def at(self, name: str) -> ActivationTensor:
        """The numbers of a slice, as they are now. Raises `ArgumentError` for one that is not the circuit's."""
        from neuroscope.engines import host_ops

        if name not in self.names:
            raise ArgumentError(f"{name!r} is not a weight of {self.of}.", remedy=did_you_mean(str(name), self.names))
        ops = host_ops()
        return ActivationTensor(ops.asarray(self._model.weights(name).read()), ops)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.weights)

    def print_string(self) -> str:
        return f"a CircuitWeights({self.of}: {len(self)} slices, {self.share:.2%} of {self.provenance.title})"

    def summary(self) -> str:
        """Every slice by component, with its shape and who else uses it."""
        lines = [f"Weights of {self.of} in {self.provenance.title}: {self.size:,} numbers, {self.share:.2%} of the model"]
        for weight in self.weights:
            shape = " × ".join(map(str, weight.shape))
            shared = f"  shared with {', '.join(weight.shared_with)}" if weight.shared_with else ""
            lines.append(f"  {weight.component:<20}{weight.name:<24}{shape:<18}{weight.share:>8.3%}{shared}")
        return "\n".join(lines)

    def as_dictionary(self) -> dict[str, Any]:
        return {**super().as_dictionary(), "shared": self.shared}


def of_circuit(circuit: Circuit) -> CircuitWeights:
    """The weights of a circuit's heads and MLPs.

    Raises `CircuitError` for a circuit without components, and one of other weights than its model has now.
    """
    if not circuit.nodes:
        raise CircuitError(
            f"The circuit for {circuit.task} has no component" + (f": {circuit.reason}." if circuit.reason else "."),
            remedy="Check that it `exists` first.",
        )
    circuit.check(circuit.model)
    sites = [(node, each) for node in circuit.nodes for each in (_MLP if node.component is Component.MLP_OUTPUT else _HEAD)]
    group = circuit.model.architecture.group
    found: list[tuple[Site, WeightSite, list[str]]] = []
    for node, weight in sites:
        if node.component is Component.MLP_OUTPUT:
            found.append((node, WeightSite(node.layer, weight), []))
            continue
        assert node.head is not None
        own = node.head // group if weight in _GROUPED else node.head
        others = [h for h in range(own * group, (own + 1) * group) if h != node.head] if weight in _GROUPED else []
        found.append((node, WeightSite(node.layer, weight, unit=own), [f"{node.layer}.headOutput[{h}]" for h in others]))
    return _weights(f"the circuit for {circuit.task}", circuit.model, found, circuit, circuit.provenance)


def of_neurons(neurons: NeuronSet) -> CircuitWeights:
    """The weights of a set of neurons: what each reads, its bias, and what it writes. Raises `CircuitError` for an empty set."""
    if not len(neurons):
        raise CircuitError(f"There are no neurons for {neurons.concept}.", remedy="Check that the set `exists` first.")
    neurons.check(neurons.model)
    width = neurons.model.architecture.d_mlp
    found: list[tuple[Site, WeightSite, list[str]]] = []
    for neuron in sorted(neurons.ids):
        node = Site(neurons.layer, Component.MLP, neuron=neuron)
        experts = neurons.model.architecture.experts
        expert, unit = divmod(neuron, width) if experts else (None, neuron)
        found += [(node, WeightSite(neurons.layer, weight, expert, unit), []) for weight in _NEURON]
    return _weights(f"the neurons for {neurons.concept}", neurons.model, found, neurons, neurons.provenance)


def _weights(
    of: str,
    model: TransformerModel,
    parts: Sequence[tuple[Site, WeightSite, list[str]]],
    source: Circuit | NeuronSet,
    provenance: Provenance,
) -> CircuitWeights:
    """The slices that the architecture has."""
    whole = parameters(model)
    slices: list[ExtractedWeight] = []
    for node, site, others in parts:
        try:
            view = model.weights(site)
        except SiteError:  # this architecture has none
            continue
        size = _size(view.shape)
        slices.append(ExtractedWeight(view.name, str(node), list(view.shape), size, size / whole, others))
    size = sum({weight.name: weight.size for weight in slices}.values())
    return CircuitWeights(
        of=of, weights=slices, size=size, share=size / whole, provenance=provenance, _source=source, _model=model
    )


def parameters(model: TransformerModel) -> int:
    """The numbers that a model's weights hold; embedding and unembedding count once where they are one matrix."""
    total, tied = 0, False
    for weight in Weight:
        for layer in range(model.architecture.layers) if weight.layered else [None]:
            try:
                view = model.weights(WeightSite(layer, weight))
            except SiteError:
                continue
            if view.tied and tied:
                continue
            tied = tied or view.tied
            total += _size(view.shape)
    return total


def _size(shape: Sequence[int]) -> int:
    size = 1
    for length in shape:
        size *= int(length)
    return size
