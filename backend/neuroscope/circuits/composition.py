"""Composing circuits into a model that uses only their edges.

The composite has the edges of all its circuits; everything else is mean-ablated (`compiled`). An edge that one circuit needs
may harm another's task. Such a conflict is found by scoring the other's pairs with EAP-IG, and priorities decide it: the edge
stays if its own circuit has the higher priority, is removed if the harmed one has, and with equal priorities stays if its share
of its own circuit's total score is larger than its share of harm.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from neuroscope import settings
from neuroscope.circuits.attribution import Scores, edge_scores
from neuroscope.circuits.circuit import Circuit, as_circuit
from neuroscope.circuits.compiled import CircuitEngine
from neuroscope.circuits.controls import connected_random
from neuroscope.circuits.graph import Graph
from neuroscope.engines.protocol import BoolArray, Engine
from neuroscope.errors import ArgumentError, CircuitError
from neuroscope.models.model import TransformerModel
from neuroscope.provenance import other_precision, provenance, tell_precision
from neuroscope.remedies import Remedy
from neuroscope.results import Provenance, Result
from neuroscope.tasks.evaluate import TaskScore, evaluate_alike
from neuroscope.vocabulary import public, python_only

_STEPS = 3


@dataclass(frozen=True)
class Dependency:
    """`feeder` feeds `fed`: this many of the feeder's nodes write along edges into nodes that only `fed` has."""

    feeder: str
    fed: str
    edges: int


@dataclass(frozen=True)
class Conflict:
    """An edge (source, receiver) of `owner` that harms `harmed`, and whether it was kept.

    gain and harm are shares of the two circuits' total absolute scores.
    """

    source: str
    receiver: str
    owner: str
    harmed: str
    gain: float
    harm: float
    kept: bool


@public
class ModelComposer:
    """Composes circuits of one model, by priority."""

    def __init__(self, *, seed: int | None = None) -> None:
        self.seed: int = settings.seed(seed)
        self._parts: list[tuple[Circuit, int]] = []
        self._mask: BoolArray | None = None
        self._dependencies: list[Dependency] | None = None
        self._conflicts: list[Conflict] = []

    @property
    def circuits(self) -> list[Circuit]:
        return [circuit for circuit, _ in self._parts]

    @property
    def dependencies(self) -> list[Dependency]:
        """The dependencies between circuits, strongest first."""
        if self._dependencies is None:
            self.resolve_dependencies()
        assert self._dependencies is not None
        return self._dependencies

    @property
    def conflicts(self) -> list[Conflict]:
        """Edges of one circuit that harm another, and whether they were kept."""
        if self._mask is None:
            self.resolve_dependencies()
        return self._conflicts

    def add_circuit(self, circuit: Circuit, priority: int = 1) -> ModelComposer:
        """Add a circuit; a higher number is a higher priority.

        Raises `ArgumentError` unless given a circuit and an integer, and for a circuit added before with another priority.
        """
        circuit = as_circuit(circuit, "A composition")
        if not circuit.exists:
            raise CircuitError(f"There is no circuit for {circuit.task} to compose: {circuit.reason}.")
        if isinstance(priority, bool) or not isinstance(priority, int):
            raise ArgumentError(f"A priority must be a whole number, not {priority!r}.")
        for other, before in self._parts:
            same = other.provenance.weights_hash == circuit.provenance.weights_hash and (
                other.mask.shape == circuit.mask.shape and bool((other.mask == circuit.mask).all())
            )
            if same and before != priority:
                raise ArgumentError(
                    f"The circuit for {circuit.task} was added with priority {before} and again with {priority}.",
                    remedy="Add each circuit once.",
                )
            if same:
                return self
        self._parts.append((circuit, priority))
        self._mask = self._dependencies = None
        return self

    def validate_compatibility(self) -> ModelComposer:
        """Raise `CircuitError` unless there are circuits and all were found on one model."""
        if not self._parts:
            raise CircuitError(
                "There is nothing to compose.",
                remedy=Remedy(
                    "Add circuits first: composer.add_circuit(circuit, priority=1)",
                    smalltalk="Add circuits first: composer addCircuit: circuit priority: 1",
                ),
            )
        first = self._parts[0][0]
        for circuit in self.circuits[1:]:
            if circuit.provenance.weights_hash != first.provenance.weights_hash:
                raise CircuitError(
                    f"The circuit for {circuit.task} was found on {circuit.provenance.title}, the one for {first.task} on "
                    f"{first.provenance.title} (or on other weights of it).",
                    remedy="Compose circuits of one model; find the others again on it.",
                )
            tell_precision(f"The circuit for {circuit.task}", circuit.provenance, first.model)
        return self

    def resolve_dependencies(self) -> ModelComposer:
        """Find dependencies, and resolve conflicts by priority."""
        self.validate_compatibility()
        parts = sorted(self._parts, key=lambda part: -part[1])
        self._dependencies = _dependencies([circuit for circuit, _ in parts])
        self._mask, self._conflicts = _united(parts, self.circuits[0].model)
        return self

    def optimize_data_flow(self) -> ModelComposer:
        """Drop edges that are not on a path from the embedding to the logits: they have no effect."""
        if self._mask is None:
            self.resolve_dependencies()
        assert self._mask is not None
        self._mask = Graph.of(self.circuits[0].model.architecture).pruned(self._mask)
        return self

    def compile(self) -> ComposedModel:
        """The composite as a model; runs the steps that were not called before."""
        self.optimize_data_flow()
        assert self._mask is not None
        return ComposedModel(self.circuits, self._mask, self._conflicts, self.dependencies, seed=self.seed)

    def print_string(self) -> str:
        return f"a ModelComposer({', '.join(circuit.task for circuit in self.circuits) or 'empty'})"

    def __repr__(self) -> str:
        return self.print_string()


@public
@dataclass(frozen=True)
class CompositionReport(Result):
    """A composite, the whole model and a connected random composite of the same number of edges, on each circuit's task.

    accuracy: the right answer is the most likely token; preference: it is more likely than the wrong one. latency: seconds for
    one batch of prompts; the composite computes every edge separately, so it is slower than the whole model.
    """

    edges: int
    fraction_of_edges: float
    composite: list[TaskScore]
    full: list[TaskScore]
    random: list[TaskScore]
    composite_latency: float
    full_latency: float
    conflicts: list[Conflict]
    dependencies: list[Dependency]
    provenance: Provenance

    def summary(self) -> str:
        lines = [
            f"Composite of {self.provenance.title}: {self.edges} edges ({self.fraction_of_edges:.2%})",
            f"  {'task':<34}{'':<12}{'composite':<24}{'whole model':<24}random composite",
        ]
        for scores in zip(self.composite, self.full, self.random, strict=True):
            for name in ("accuracy", "preference"):
                figures = "".join(f"{getattr(score, name)!s:<24}" for score in scores).rstrip()
                lines.append(f"  {scores[0].task if name == 'accuracy' else '':<34}{name:<12}{figures}")
        kept = sum(conflict.kept for conflict in self.conflicts)
        lines.append(f"  {len(self.conflicts)} conflicting edges, {kept} kept; {len(self.dependencies)} dependencies")
        lines.append(f"  latency {1e3 * self.composite_latency:.0f} ms, whole model {1e3 * self.full_latency:.0f} ms")
        return "\n".join(lines)


@public
class ComposedModel(TransformerModel):
    """A model that uses only a set of edges; everything else is mean-ablated."""

    def __init__(
        self,
        circuits: Sequence[Circuit],
        mask: BoolArray,
        conflicts: list[Conflict],
        dependencies: list[Dependency],
        *,
        seed: int = 0,
    ) -> None:
        whole = circuits[0].model
        means = cast("np.ndarray[Any, np.dtype[np.float32]]", np.mean([circuit.means for circuit in circuits], axis=0))
        probe = circuits[0].pairs.clean.take(slice(0, 2))
        engine = cast(Engine, CircuitEngine(whole.engine, mask, means, probe))
        super().__init__(engine, whole.tokenizer, f"composite of {whole.name}", whole.loaded_hash)
        self._whole, self._mask, self._means, self._probe = whole, mask, means, probe
        self._circuits, self._conflicts, self._dependencies, self.seed = list(circuits), conflicts, dependencies, seed

    @property
    def circuits(self) -> list[Circuit]:
        return list(self._circuits)

    @property
    def edge_count(self) -> int:
        return int(self._mask.sum())

    @property
    @python_only
    def mask(self) -> BoolArray:
        """(receivers, sources): the composite's edges."""
        return self._mask

    def measure(self, n: int = 100) -> CompositionReport:
        """Accuracy on held-out items of every circuit's task: composite, whole model, random composite of the same size."""
        tasks = list(dict.fromkeys(circuit.task for circuit in self._circuits))
        graph = Graph.of(self._whole.architecture)
        random = np.random.default_rng(self.seed)
        other = connected_random(graph, self.edge_count, random)
        engine = cast(Engine, CircuitEngine(self._whole.engine, other, self._means, self._probe))
        control = TransformerModel(engine, self.tokenizer, "random composite", self.loaded_hash)
        scores = [one.scores for one in evaluate_alike((self, self._whole, control), tasks, n, seed=self.seed)]
        return CompositionReport(
            edges=self.edge_count,
            fraction_of_edges=self.edge_count / graph.edges,
            composite=scores[0],
            full=scores[1],
            random=scores[2],
            composite_latency=self._latency(self),
            full_latency=self._latency(self._whole),
            conflicts=self._conflicts,
            dependencies=self._dependencies,
            provenance=provenance(self._whole, None, self.seed, found=self._elsewhere(), items=n, circuits=len(self._circuits)),
        )

    def _elsewhere(self) -> Provenance | None:
        """The provenance of a circuit that was found in a precision other than this model's, or None."""
        found = [circuit.provenance for circuit in self._circuits]
        return next((one for one in found if other_precision(one, self._whole)), None)

    def _latency(self, model: TransformerModel) -> float:
        """Seconds for one run of the first circuit's pairs, the best of three."""
        found = []
        for _ in range(3):
            begun = time.perf_counter()
            model.run(self._circuits[0].pairs.clean)
            found.append(time.perf_counter() - begun)
        return min(found)

    def print_string(self) -> str:
        return f"a ComposedModel({', '.join(circuit.task for circuit in self._circuits)}: {self.edge_count} edges)"


@dataclass
class _Part:
    """A circuit with the effect of every edge of the graph on its task, as shares of the total."""

    circuit: Circuit
    priority: int
    shares: Scores = field(repr=False)


def _united(parts: Sequence[tuple[Circuit, int]], model: TransformerModel) -> tuple[BoolArray, list[Conflict]]:
    """The union of the circuits (highest priority first) without the edges that lost a conflict."""
    scored = []
    for circuit, priority in parts:
        scores: Scores = circuit.mask.astype(np.float64)
        if len(parts) > 1:
            scores = edge_scores(model.engine, circuit.pairs, method="eap_ig", steps=_STEPS)
        scored.append(_Part(circuit, priority, scores / np.abs(scores).sum()))
    graph = Graph.of(model.architecture)
    union = np.any([part.circuit.mask for part in scored], axis=0)
    conflicts: list[Conflict] = []
    for owner in scored:
        for harmed in scored:
            against = owner.circuit.mask & ~harmed.circuit.mask & (harmed.shares < 0) & (owner.shares > 0)
            against &= -harmed.shares >= _worth_noting(harmed)
            for receiver, source in np.argwhere(against):
                gain, harm = float(owner.shares[receiver, source]), float(-harmed.shares[receiver, source])
                kept = gain >= harm if owner.priority == harmed.priority else owner.priority > harmed.priority
                names = str(graph.source_site(int(source))), str(graph.receiver_site(int(receiver)))
                conflicts.append(Conflict(*names, owner.circuit.task, harmed.circuit.task, gain, harm, kept))
                if not kept:
                    union[receiver, source] = False
    return union, conflicts


def _worth_noting(part: _Part) -> float:
    """The smallest share of an edge in the part's own circuit: weaker edges are not conflicts."""
    inside = np.abs(part.shares[part.circuit.mask])
    return float(np.quantile(inside, 0.5)) if len(inside) else 0.0


def _dependencies(circuits: Sequence[Circuit]) -> list[Dependency]:
    found = []
    for feeder in circuits:
        for fed in circuits:
            if feeder is fed:
                continue
            graph = feeder.graph
            mine = set(graph.nodes(feeder.mask))
            theirs = [node for node in graph.nodes(fed.mask) if node not in mine]
            receivers = [int(receiver) for node in theirs for receiver in graph.node_receivers(node)]
            edges = int(fed.mask[np.ix_(receivers, sorted(mine))].sum()) if receivers and mine else 0
            if edges:
                found.append(Dependency(feeder.task, fed.task, edges))
    return sorted(found, key=lambda dependency: -dependency.edges)
