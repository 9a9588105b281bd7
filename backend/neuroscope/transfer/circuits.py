"""Documented script 9: circuits and directions of one model, for use in another.

`CircuitTransfer from: aModel to: anotherModel`, then `adaptCircuit:targetArchitecture:` and, on the target, `installCircuit:at:`; or
`map:` for a steering vector.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np

from neuroscope import settings
from neuroscope.circuits.circuit import Circuit, as_circuit
from neuroscope.engines.anatomy import Anatomy
from neuroscope.engines.sites import Component, Site
from neuroscope.errors import ArgumentError, CircuitError, DatasetError
from neuroscope.features.neurons import NeuronSet
from neuroscope.features.texts import DOMAINS, Text, several
from neuroscope.models.model import TransformerModel
from neuroscope.results import Provenance, Result
from neuroscope.steering.vectors import SteeringVector
from neuroscope.tasks import registry
from neuroscope.tasks.dataset import Dataset, Example
from neuroscope.tasks.draw import Draw
from neuroscope.tasks.independence import Parts
from neuroscope.tasks.registry import Examples
from neuroscope.tensors.tensor import ActivationTensor
from neuroscope.transfer.maps import FITS_ONLY, Numbers, StreamMap, fit
from neuroscope.transfer.readings import read_by
from neuroscope.vocabulary import public, python_only

#: Gates tried besides 0.
GATES = (0.25, 0.5, 1.0, 2.0)
#: Components whose directions lie in the residual stream.
_IN_STREAM = (Component.RESIDUAL, Component.ATTENTION, Component.MLP_OUTPUT)
_FEWEST, _TOKENS_A_TEXT = 720, 4
#: Examples offered for a fresh one before giving up.
_PATIENCE = 500


@dataclass(frozen=True)
class _Fresh:
    """Makes a task's examples that share no unit with those that chose a circuit."""

    examples: Examples
    used: frozenset[str]

    def __call__(self, draw: Draw) -> Iterator[Example]:
        missed = 0
        for example in self.examples(draw, "test"):
            if self.used.isdisjoint(example.units):
                missed = 0
                yield example
            elif (missed := missed + 1) > _PATIENCE:
                return


@runtime_checkable
class Reader(Protocol):
    """What reads the residual stream behind a layer of one model: a probe."""

    layer: int

    def check(self, model: TransformerModel) -> None: ...
    def through(self, matrix: Numbers, shift: Numbers, model: TransformerModel, layer: int) -> Any: ...


@public
class CircuitTransfer:
    """Carries what was found on a source model to a target model.

    texts: what fits and judges the map between their streams, each a group of its own; by default texts of nine domains, held out by
    template, as many as the wider stream needs. items: how many held-out items judge an installation; as many choose its gate, and as
    many more are read when the map is fitted. gates: strengths that an installation tries besides 0. random_circuits: draws of that control.
    """

    def __init__(
        self,
        source: TransformerModel,
        to: TransformerModel,
        *,
        texts: Sequence[str] | None = None,
        items: int = 60,
        gates: Sequence[float] = GATES,
        random_circuits: int = 3,
        seed: int | None = None,
    ) -> None:
        for model in (source, to):
            if not isinstance(model, TransformerModel):
                raise ArgumentError(f"A CircuitTransfer goes from a TransformerModel to another, not to or from {model!r}.")
        found = tuple(float(gate) for gate in gates)
        if not found or not all(math.isfinite(gate) and gate > 0 for gate in found):
            raise ArgumentError(f"{list(gates)} are no gates.", remedy="Give numbers above 0; 0 is always tried.")
        if items < 10 or random_circuits < 1:
            raise ArgumentError(
                f"{items} items and {random_circuits} random circuits judge nothing.",
                remedy="Give at least 10 items and 1 circuit.",
            )
        self.source: TransformerModel = source
        self.target: TransformerModel = to
        self.items: int = items
        self.gates: tuple[float, ...] = found
        self.random_circuits: int = random_circuits
        self.seed: int = settings.seed(seed)
        self._texts = None if texts is None else [Text(str(text), str(text)) for text in dict.fromkeys(texts)]
        self._maps: dict[str, StreamMap] = {}

    @classmethod
    def from_(cls, source: TransformerModel, to: TransformerModel, **options: Any) -> CircuitTransfer:
        """`CircuitTransfer from: aModel to: anotherModel`."""
        return cls(source, to, **options)

    def adapt_circuit(self, circuit: Any, target_architecture: Anatomy | None = None) -> AdaptedCircuit:
        """A circuit of the source (or the finder of one: its last), ready to be installed at a layer of the target.

        Raises `CircuitError` where there is none, or for one of another model, and `ArgumentError` for the architecture of another model.
        """
        found = as_circuit(circuit, "A transfer")
        if not found.exists:
            raise CircuitError(f"There is no circuit for {found.task} to transfer: {found.reason}.")
        found.check(self.source)
        if target_architecture is not None and target_architecture != self.target.architecture:
            given = (
                target_architecture.print_string() if isinstance(target_architecture, Anatomy) else repr(target_architecture)
            )
            raise ArgumentError(
                f"The target {self.target.title} is {self.target.architecture.print_string()}, not {given}.",
                remedy="Pass `targetModel architecture` of the model that the transfer goes to.",
            )
        layers = [node.layer for node in found.nodes if node.layer is not None]
        if not layers:
            raise CircuitError(f"The circuit for {found.task} has no component that writes.")
        return AdaptedCircuit(
            task=found.task,
            source=self.source.title,
            target=self.target.title,
            source_layer=max(layers),
            edges=found.edge_count,
            provenance=found.provenance,
            _circuit=found,
            _transfer=self,
        )

    def map(self, vector: Any, layer: int | None = None, at: int | None = None) -> Any:
        """A direction of the source's residual stream, in the target's; or a probe that reads there.

        A steering vector comes out as a steering vector of the target. layer: the source's layer behind which another tensor (width,)
        lies. at: the target's layer; by default the one at the same share of its depth. A direction is mapped by the map there, a probe
        (which reads, and does not write) by the transpose of the map back; it needs a threshold of its own. Neurons come out as what they
        read: a tensor (neurons, width), whose products with the target's stream behind the layer are those of the source's stream
        with the neurons' input weights; the stream is that which enters their layer, to which its attention has not added yet. Raises
        `ArgumentError` for what is not in the stream, or not as wide.
        """
        if isinstance(vector, NeuronSet):
            read = read_by(vector, self.source)
            here = max(vector.layer - 1, 0)
            back = self.map_between(here, self._target_layer(here, at)).back
            ops = self.target.engine.ops
            return ActivationTensor(ops.asarray((read @ back.matrix.T).astype(np.float32)), ops)
        if isinstance(vector, Reader):
            vector.check(self.source)
            here = self.source.architecture.checked_layer(vector.layer)
            there = self._target_layer(here, at)
            back = self.map_between(here, there).back
            return vector.through(back.matrix, back.exit - back.entry @ back.matrix, self.target, there)
        if isinstance(vector, SteeringVector) and vector.site.component not in _IN_STREAM:
            raise ArgumentError(
                f"{vector.name} is a direction of {vector.site}, not of the residual stream.",
                remedy="Compute it at residual, attention or mlpOutput.",
            )
        if not isinstance(vector, ActivationTensor) or vector.shape != (self.source.architecture.d_model,):
            raise ArgumentError(
                f"A transfer maps a vector of {self.source.architecture.d_model} numbers, as wide as the stream of {self.source.title}, "
                f"not {vector!r}.",
                remedy="Give a steering vector, a probe or neurons of the source, or a direction in its stream.",
            )
        given = vector.layer if isinstance(vector, SteeringVector) and layer is None else layer
        if given is None:
            raise ArgumentError(
                "A plain vector does not say behind which layer it lies.", remedy="transfer map: aVector layer: 5"
            )
        here = self.source.architecture.checked_layer(given)
        if isinstance(vector, SteeringVector):
            vector.check(self.source)
        there = self._target_layer(here, at)
        ops = self.target.engine.ops
        values = self.source.engine.ops.to_numpy(vector.array).astype(np.float64) @ self.map_between(here, there).there.matrix
        array = ops.asarray(values.astype(np.float32))
        if not isinstance(vector, SteeringVector):
            return ActivationTensor(array, ops)
        site = Site(there, Component.RESIDUAL)
        return SteeringVector(
            array,
            ops,
            name=vector.name,
            site=site,
            method=f"{vector.method}, mapped",
            pairs=vector.pairs,
            title=self.target.title,
            weights_hash=self.target.weights_hash,
            dtype=self.target.precision,
        )

    def _target_layer(self, here: int, at: int | None) -> int:
        """`at`, or the target's layer at the same share of its depth as the source's layer `here`."""
        depths = self.source.architecture.layers - 1, self.target.architecture.layers - 1
        return self.target.architecture.checked_layer(round(here * depths[1] / max(depths[0], 1)) if at is None else at)

    @python_only
    def map_between(self, source_layer: int, target_layer: int, also: Sequence[str] = ()) -> StreamMap:
        """The map between the streams behind two layers, fitted once for these weights. also: texts that fit it and judge nothing."""
        state = "\n".join([self.source.weights_hash, self.target.weights_hash, *also])
        key = f"{source_layer} to {target_layer}, {hashlib.sha256(state.encode()).hexdigest()[:8]}"
        if key not in self._maps:
            texts = [*(self._general() if self._texts is None else self._texts), *(Text(text, FITS_ONLY) for text in also)]
            self._maps[key] = fit(self.source, self.target, source_layer, target_layer, texts, self.seed)
        return self._maps[key]

    @python_only
    def unrelated(self, n: int) -> list[str]:
        """General texts that the map is not fitted on, to see what an installation does to them."""
        random = np.random.default_rng([self.seed, 10])
        known = {text.text for text in (self._texts or self._general())}
        made = [text.text for make in DOMAINS.values() for text in several(make, 2 * math.ceil(n / len(DOMAINS)), random)]
        fresh = [text for text in made if text not in known]
        if self._texts is not None:
            fresh = self._readable(fresh) or [text.text for text in self._texts]
        return [fresh[int(at)] for at in random.permutation(len(fresh))[:n]]

    @python_only
    def parts(self, circuit: Circuit) -> tuple[list[list[Example]], list[str]]:
        """Items of the circuit's task that fit the map, choose the gate and judge, and what they share: with what chose the circuit nothing,
        as long as enough is left.

        Raises `DatasetError` where too few are left.
        """
        task, models = registry.get(circuit.task), [self.source, self.target]

        def made(used: frozenset[str]) -> Parts:
            fresh = _Fresh(task.examples, used)
            items = Dataset.generated(fresh, self.items, name=task.title, task=task.name, seed=self.seed)
            return items.parts_for_models(models, [self.items] * 3, seed=self.seed)

        also = []
        try:
            parts = made(circuit.chosen_by)
        except DatasetError:  # too little is left
            parts, also = made(frozenset()), ["what chose the circuit"]
        return [list(part) for part in parts], sorted({*parts.shared, *circuit.shared, *also})

    def _general(self) -> list[Text]:
        widest = max(self.source.architecture.d_model, self.target.architecture.d_model)
        each = math.ceil(max(_FEWEST, 4 * widest / _TOKENS_A_TEXT) / len(DOMAINS))
        random = np.random.default_rng([self.seed, 9])
        return [text for make in DOMAINS.values() for text in several(make, each, random)]

    def _readable(self, texts: Sequence[str]) -> list[str]:
        """Texts that the target's tokenizer writes without unknown tokens."""
        unknown = getattr(self.target.tokenizer, "unk_token_id", None)
        return [text for text in texts if unknown is None or unknown not in self.target.encode(text).ids]

    def print_string(self) -> str:
        return f"a CircuitTransfer from {self.source.title} to {self.target.title}"

    def __repr__(self) -> str:
        return self.print_string()


@public
@dataclass(frozen=True, kw_only=True)
class AdaptedCircuit(Result):
    """A circuit of a source model for installation in a target: `targetModel installCircuit: adaptedCircuit at: #layer10`.

    source_layer: the circuit's last layer, behind which what it has written is read. The map to the target depends on the layer of
    installation: `mapAt: 10`. provenance: the circuit's.
    """

    task: str
    source: str
    target: str
    source_layer: int
    edges: int
    provenance: Provenance
    _circuit: Circuit = field(repr=False)
    _transfer: CircuitTransfer = field(repr=False)

    @property
    def circuit(self) -> Circuit:
        """The circuit in its own model."""
        return self._circuit

    @property
    def transfer(self) -> CircuitTransfer:
        return self._transfer

    def map_at(self, layer: int) -> StreamMap:
        """The map from behind the circuit's last layer to behind a layer of the target. Raises `SiteError` for one it does not have."""
        return self._transfer.map_between(self.source_layer, self._transfer.target.architecture.checked_layer(layer))

    def print_string(self) -> str:
        return f"an AdaptedCircuit({self.task}: {self.edges} edges of {self.source}, for {self.target})"

    def summary(self) -> str:
        return (
            f"Circuit for {self.task} of {self.source} ({self.edges} edges, read behind layer {self.source_layer}), adapted to {self.target}"
            f"\n  not installed yet: targetModel installCircuit: adaptedCircuit at: #layer{self._transfer.target.architecture.layers // 2}"
        )
