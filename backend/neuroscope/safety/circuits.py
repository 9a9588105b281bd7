"""What `findHarmfulCircuits:categories:` finds: a circuit for each category of harm, with its layer and its detector."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from neuroscope.circuits.circuit import Circuit
from neuroscope.errors import CircuitError
from neuroscope.names import Names
from neuroscope.results import Provenance, Result, plain
from neuroscope.safety.detection import Detection
from neuroscope.vocabulary import public


@public
@dataclass(frozen=True, kw_only=True)
class HarmfulCircuit(Result):
    """The circuit that decides, for one category, between refusing and answering.

    circuit: found on harmful requests against harmless ones of the same shape, with its controls; it may not exist. layer: where the
    redirect acts, one of the layers of its heads and MLPs. circuit is None where no pairs could be made. detector: a probe of that layer trained on the other categories and judged
    on this one. on_traps: the same against harmless requests with a word of harm.
    """

    category: str
    circuit: Circuit | None
    detector: Detection | None = None
    on_traps: Detection | None = None
    _layer: int | None = None
    _unfit: str | None = None

    @property
    def exists(self) -> bool:
        return self.circuit is not None and self.circuit.exists

    @property
    def reason(self) -> str | None:
        """Why there is no circuit; None where there is one."""
        return self._unfit if self.circuit is None else self.circuit.reason

    @property
    def layer(self) -> int:
        """Where the redirect acts. Raises `CircuitError` where there is no circuit, with the reason."""
        if self._layer is None:
            raise CircuitError(f"There is no circuit for {self.category}: {self.reason}.", remedy="Ask whether it `exists`.")
        return self._layer

    def print_string(self) -> str:
        if self.circuit is None or not self.exists:
            return f"a HarmfulCircuit({self.category}: none, {self.reason})"
        return f"a HarmfulCircuit({self.category}: layer {self.layer}, {self.circuit.edge_count} edges, {self.detector})"

    def summary(self) -> str:
        if self.circuit is None or not self.exists or self.detector is None or self.on_traps is None:
            return f"{self.category}: no circuit, {self.reason}"
        circuit = self.circuit
        lines = [
            f"{self.category}: {circuit.edge_count} edges, layer {self.layer}, faithfulness on held-out pairs "
            f"{circuit.held_out_faithfulness} (random circuits {circuit.random_circuit_faithfulness})",
            *(f"  doubt: {doubt}" for doubt in circuit.doubts),
            f"  detector, trained on {self.detector.held_out}: AUROC {self.detector.auroc} (a bag of words {self.detector.words})",
            f"    on traps: AUROC {self.on_traps.auroc} (a bag of words {self.on_traps.words})",
            f"    detected {self.detector.detected}; flagged of harmless {self.detector.false_positives}, of traps "
            f"{self.on_traps.false_positives}",
        ]
        return "\n".join(lines)

    def as_dictionary(self) -> dict[str, Any]:
        found = super().as_dictionary()
        return found | {"exists": self.exists, "reason": self.reason, "layer": self._layer}


@public
@dataclass(frozen=True, kw_only=True)
class HarmfulCircuits(Result):
    """One circuit for each category; iterating gives those that exist.

    strength, moved, reached: of the redirect of each layer (`redirect.Redirect`). choosing: mean log-probability per token of the refusal
    under pressure, by layer and strength, that the two were chosen by. refusal: what it steers to; own_refusal: whether the model
    wrote it itself.
    """

    circuits: list[HarmfulCircuit]
    strength: float
    refusal: str
    own_refusal: bool
    false_positive_rate: float
    choosing: dict[str, float]
    moved: dict[str, float]
    reached: dict[str, float]
    provenance: Provenance

    def __iter__(self) -> Iterator[HarmfulCircuit]:
        return (circuit for circuit in self.circuits if circuit.exists)

    def __len__(self) -> int:
        return sum(circuit.exists for circuit in self.circuits)

    def __getitem__(self, category: str) -> HarmfulCircuit:
        """A category's circuit, whether it exists or not; `ArgumentError` names the nearest."""
        return Names("category", {one.category: one for one in self.circuits}, listing="Categories")[category]

    @property
    def missing(self) -> list[HarmfulCircuit]:
        """The categories without a circuit."""
        return [circuit for circuit in self.circuits if not circuit.exists]

    def print_string(self) -> str:
        return f"a HarmfulCircuits({', '.join(one.category for one in self)}{''.join(f', no {one.category}' for one in self.missing)})"

    def summary(self) -> str:
        own = "the model's own refusal" if self.own_refusal else "a usual refusal, since the model wrote none"
        lines = [f"Circuits of harm in {self.provenance.title} (95 % intervals)", *(one.summary() for one in self.circuits)]
        if len(self):
            lines.append(f"redirect of strength {self.strength:g} towards {own}: {self.refusal!r}")
            lines += [
                f"  layer {layer}: harmless activations moved by {moved:.3f}, harmful ones by {self.reached[layer]:.3f} of the direction"
                for layer, moved in self.moved.items()
            ]
        return "\n".join(lines)

    def as_dictionary(self) -> dict[str, Any]:
        found = super().as_dictionary()
        return found | {"circuits": [plain(one) for one in self.circuits]}
