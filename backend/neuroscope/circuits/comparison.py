"""Comparison of the circuits of a small and a large model, on the same items and with the same pipeline.

For each model: whether it does the task (the gap between clean and corrupt metric, tested on separate pairs), the circuit with
its curve, the heads and MLPs needed for 80 % faithfulness, and reuse in other tasks. Reuse is the share of the circuit's edges
among the best edges of other tasks, with as many edges for each; chance is the share for random edges. The rest is specialized.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from neuroscope import events, settings
from neuroscope.circuits.circuit import Circuit
from neuroscope.circuits.curve import CurvePoint
from neuroscope.circuits.finder import CircuitFinder, PairParts, part_sizes
from neuroscope.engines.protocol import BoolArray
from neuroscope.errors import ArgumentError, DatasetError
from neuroscope.models.model import TransformerModel
from neuroscope.results import Provenance, Result
from neuroscope.tasks import registry
from neuroscope.tasks.dataset import Dataset
from neuroscope.tasks.independence import Parts
from neuroscope.tasks.pairs import make_pairs
from neuroscope.tasks.statistics import Estimate, rate, wilson
from neuroscope.vocabulary import public

_ENOUGH = 0.8


@public
@dataclass(frozen=True)
class ModelGrowth(Result):
    """The figures of one model. Without an effect there is no circuit: `reason` says so, and its fields are None.

    effect: clean minus corrupt metric on the pairs that test it. preference: share of pairs whose right answer is above the
    wrong one. heads, mlps, edges, fraction_of_model: of the smallest measured circuit with 80 % faithfulness; doubts: evidence
    against it. reuse, specialization: shares of its edges; chance_reuse: of random edges.
    """

    model: str
    phrasing: str
    preference: Estimate
    effect: Estimate
    exists: bool
    reason: str | None = None
    doubts: list[str] = field(default_factory=list)
    heads: int | None = None
    mlps: int | None = None
    edges: int | None = None
    fraction_of_model: float | None = None
    curve: list[CurvePoint] = field(default_factory=list)
    reuse: Estimate | None = None
    chance_reuse: float | None = None
    specialization: float | None = None
    compared_with: list[str] = field(default_factory=list)
    held_out_faithfulness: Estimate | None = None
    random_circuit_faithfulness: Estimate | None = None
    provenance: Provenance | None = None
    _circuit: Circuit | None = field(default=None, repr=False)

    @property
    def circuit(self) -> Circuit | None:
        return self._circuit

    def print_string(self) -> str:
        size = "no circuit" if self.edges is None else f"{self.heads} heads, {self.mlps} MLPs, {self.edges} edges"
        return f"a ModelGrowth({self.model}: {size})"


@public
@dataclass(frozen=True)
class GrowthAnalysis(Result):
    """A task's circuit in a small and a large model. growth: large over small, per figure; empty if one has no circuit."""

    task: str
    small: ModelGrowth
    large: ModelGrowth
    growth: dict[str, float]

    @property
    def reuse(self) -> dict[str, float | None]:
        return {"small": _value(self.small.reuse), "large": _value(self.large.reuse)}

    @property
    def specialization(self) -> dict[str, float | None]:
        return {"small": self.small.specialization, "large": self.large.specialization}

    def as_dictionary(self) -> dict[str, Any]:
        return {**super().as_dictionary(), "reuse": self.reuse, "specialization": self.specialization}

    def print_string(self) -> str:
        return f"a GrowthAnalysis({self.task}: {self.small.model} → {self.large.model})"

    def summary(self) -> str:
        sides = (self.small, self.large)
        rows: list[tuple[str, list[str]]] = [
            ("items as", [side.phrasing for side in sides]),
            ("right above wrong", [str(side.preference) for side in sides]),
            ("clean − corrupt", [str(side.effect) for side in sides]),
            ("heads for 80 %", [_text(side.heads) for side in sides]),
            ("MLPs for 80 %", [_text(side.mlps) for side in sides]),
            ("edges for 80 %", [_text(side.edges) for side in sides]),
            ("share of all edges", [_percent(side.fraction_of_model) for side in sides]),
            ("held-out faithfulness", [_text(side.held_out_faithfulness) for side in sides]),
            ("random circuits", [_text(side.random_circuit_faithfulness) for side in sides]),
            ("reused elsewhere", [_text(side.reuse) for side in sides]),
            ("  by chance", [_percent(side.chance_reuse) for side in sides]),
            ("specialized", [_percent(side.specialization) for side in sides]),
        ]
        rows.insert(0, ("", [side.model for side in sides]))
        width = max(len(small) for _, (small, _) in rows) + 2
        lines = [f"Growth of the circuit for {self.task}"]
        lines += [f"  {name:<24}{small:<{width}}{large}" for name, (small, large) in rows]
        lines += [f"  {side.model}: no circuit, {side.reason}" for side in sides if not side.exists]
        lines += [f"  {side.model}: doubt, {doubt}" for side in sides for doubt in side.doubts]
        if self.growth:
            lines.append(
                "  growth                  " + ", ".join(f"{name} × {value:.2f}" for name, value in self.growth.items())
            )
        return "\n".join(lines)


@public
class CircuitComparator:
    """Compares the circuits of two models.

    pairs: examples used. others: tasks for measuring reuse (those that a model does).
    """

    def __init__(
        self,
        small_model: TransformerModel,
        large_model: TransformerModel,
        *,
        pairs: int = 48,
        others: Sequence[str] = ("indirect_object_identification", "greater_than", "subject_verb_agreement"),
        seed: int | None = None,
    ) -> None:
        for model in (small_model, large_model):
            if not isinstance(model, TransformerModel):
                raise ArgumentError(f"A CircuitComparator compares TransformerModels, not {model!r}.")
        self.small_model: TransformerModel = small_model
        self.large_model: TransformerModel = large_model
        self.pairs: int = pairs
        self.others: list[str] = [registry.get(name).name for name in others]
        self.seed: int = settings.seed(seed)

    def analyze_circuit_growth(self, task: str, examples: Dataset | None = None) -> GrowthAnalysis:
        """Find and compare the task's circuit in both models on the same items.

        If the task has several phrasings, each model gets its best. Raises `DatasetError` if too few items fit both tokenizers.
        """
        found = registry.get(task)
        dataset = found.dataset(seed=self.seed) if examples is None else examples
        models = [self.small_model, self.large_model]
        parts = dataset.parts_for_models(models, part_sizes(self.pairs), seed=self.seed)
        with events.progress(f"comparing {found.title}", total=2, unit="models") as job:
            sides = []
            for model in models:
                sides.append(self._side(model, found, parts))
                job.advance()
        small, large = sides
        growth = {
            name: getattr(large, name) / getattr(small, name)
            for name in ("heads", "mlps", "edges", "fraction_of_model")
            if getattr(small, name) and getattr(large, name) is not None
        }
        return GrowthAnalysis(found.name, small, large, growth)

    def _side(self, model: TransformerModel, task: registry.Task, items: Parts) -> ModelGrowth:
        finder = CircuitFinder(model, target=_ENOUGH, seed=self.seed)
        phrasing, pairs = self._phrased(finder, task, items)
        circuit = finder.search(task.name, pairs)
        assert circuit.effect is not None
        right = finder.evaluation(pairs.judging).clean > 0
        side = ModelGrowth(
            model=model.title,
            phrasing=phrasing,
            preference=rate(right, pairs.judging.units or None),
            effect=circuit.effect.gap,
            exists=circuit.exists,
            reason=circuit.reason,
            provenance=circuit.provenance,
        )
        if not circuit.exists:
            return side
        others = self._others(model, task.name, circuit.edge_count)
        reuse, chance = _reuse(circuit, others)
        return dataclasses.replace(
            side,
            doubts=circuit.doubts,
            heads=len(circuit.heads),
            mlps=len(circuit.mlps),
            edges=circuit.edge_count,
            fraction_of_model=circuit.fraction_of_edges,
            curve=circuit.curve,
            reuse=reuse,
            chance_reuse=chance,
            specialization=None if reuse is None else 1 - reuse.value,
            compared_with=list(others),
            held_out_faithfulness=circuit.held_out_faithfulness,
            random_circuit_faithfulness=circuit.random_circuit_faithfulness,
            _circuit=circuit,
        )

    def _phrased(self, finder: CircuitFinder, task: registry.Task, items: Parts) -> tuple[str, PairParts]:
        """The items in the phrasing with the clearest effect on the finding pairs (mean gap over its standard error)."""
        found = []
        for name, phrase in {"plain": lambda example: example, **task.phrasings}.items():
            effect, finding, judging = (make_pairs(finder.model, [phrase(item) for item in part]) for part in items)
            pairs = PairParts(effect, finding, judging, items.shared)
            runs = finder.evaluation(pairs.finding)
            gap = runs.clean - runs.empty
            found.append((float(gap.mean() / (gap.std(ddof=1) + 1e-12)), name, pairs))
        _, name, pairs = max(found, key=lambda one: one[0])
        return name, pairs

    def _others(self, model: TransformerModel, task: str, edges: int) -> dict[str, BoolArray]:
        """The best edges, as many as the circuit has, for the other tasks that this model does."""
        found: dict[str, BoolArray] = {}
        names = [name for name in self.others if name != task]
        with events.progress("circuits of other tasks", total=len(names), unit="tasks") as job:
            for name in names:
                try:
                    mask = CircuitFinder(model, seed=self.seed).of_size(name, None, edges)
                except DatasetError as error:
                    events.notice(f"The task {name} is left out: {error.message}")
                else:
                    if mask is not None:
                        found[name] = mask
                job.advance()
        return found

    def print_string(self) -> str:
        return f"a CircuitComparator({self.small_model.title}, {self.large_model.title})"

    def __repr__(self) -> str:
        return self.print_string()


def _reuse(circuit: Circuit, others: Mapping[str, BoolArray]) -> tuple[Estimate | None, float | None]:
    """The share of a circuit's edges among the other tasks' best, and that of random edges."""
    if not circuit.edge_count or not others:
        return None, None
    theirs = np.any(list(others.values()), axis=0)
    return wilson(int((circuit.mask & theirs).sum()), circuit.edge_count), float(theirs.sum() / circuit.graph.edges)


def _value(estimate: Estimate | None) -> float | None:
    return None if estimate is None else estimate.value


def _text(value: object) -> str:
    return "–" if value is None else str(value)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"
