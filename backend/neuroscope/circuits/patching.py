"""Testing circuits by activation patching.

Denoising puts a node's clean activation into the corrupt run: the recovery measures sufficiency. Noising puts the corrupt
activation into the clean run: the damage measures necessity. Both are shares of the gap between the clean and the corrupt
metric. Random nodes outside the circuit are the control. The embedding and the first MLP carry every token's identity: patching
them is patching the prompt, so they are listed separately.

Sources: Vig et al. 2020; Meng et al. 2022; Heimersheim & Nanda 2024, "How to use and interpret activation patching".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from neuroscope.circuits.circuit import Circuit, as_circuit
from neuroscope.circuits.estimates import mean, normalised
from neuroscope.circuits.graph import Graph
from neuroscope.circuits.journal import Journal
from neuroscope.circuits.judging import extended_embedding
from neuroscope.circuits.maps import PatchingMap
from neuroscope.circuits.own_patching import Sites, patch, patch_paths
from neuroscope.circuits.pair_runs import PairRuns
from neuroscope.circuits.roles import Role
from neuroscope.circuits.sweeps import sweep
from neuroscope.engines.sites import Component, Site
from neuroscope.kinds import at_least
from neuroscope.models.instrument import Instrument
from neuroscope.models.model import TransformerModel
from neuroscope.parallel.executors import Executor
from neuroscope.parallel.team import Team
from neuroscope.provenance import provenance
from neuroscope.results import Provenance, Result
from neuroscope.tasks.metrics import Metric
from neuroscope.tasks.pairs import PairBatch
from neuroscope.tasks.statistics import Estimate
from neuroscope.vocabulary import public


@dataclass(frozen=True)
class NodeEffect:
    """Effects of patching one node, as shares of the gap between clean and corrupt metric."""

    site: Site
    recovered: Estimate
    damage: Estimate

    def as_dictionary(self) -> dict[str, Any]:
        return {
            "site": str(self.site),
            "layer": self.site.layer,
            "recovered": self.recovered.as_dictionary(),
            "damage": self.damage.as_dictionary(),
        }


@public
@dataclass(frozen=True)
class ResidualMap(Result):
    """Recovery from denoising the residual stream after each layer at each token, over pairs of the same shape.

    values: (layers, positions). tokens: the tokens of the first pair's clean prompt, as labels.
    """

    values: list[list[float]]
    tokens: list[str]
    n: int


@public
@dataclass(frozen=True)
class CausalTestResults(Result):
    """Recovery and damage of a circuit's nodes, with the circuit's figures and the controls.

    components: the circuit's nodes, largest recovery first. extended_embedding: the first MLP, which carries every token's
    identity. controls: random nodes outside the circuit. Without a circuit `exists` is false, `reason` says why, and there are
    no components and no map.
    """

    task: str
    exists: bool
    reason: str | None
    doubts: list[str]
    faithfulness: Estimate
    held_out_faithfulness: Estimate
    completeness: Estimate
    minimality: Estimate
    clean_metric: Estimate
    corrupt_metric: Estimate
    random_circuit_faithfulness: Estimate
    edges: int
    fraction_of_edges: float
    components: list[NodeEffect]
    extended_embedding: list[NodeEffect]
    controls: list[NodeEffect]
    roles: list[Role]
    residual_map: ResidualMap | None
    provenance: Provenance
    _circuit: Circuit = field(repr=False)

    @property
    def circuit(self) -> Circuit:
        return self._circuit

    def __iter__(self) -> Iterator[NodeEffect]:
        return iter(self.components)

    def __len__(self) -> int:
        return len(self.components)

    def print_string(self) -> str:
        return f"a CausalTestResults({self.task}: {len(self)} components, faithfulness {self.faithfulness})"

    def summary(self) -> str:
        if not self.exists:
            return self._circuit.summary()
        roles = {str(role.head): role.role for role in reversed(self.roles)}
        lines = [self._circuit.summary(), "  component          recovered (denoising)      damage (noising)"]
        for effect in self.components[:10]:
            lines.append(_row(str(effect.site), effect, roles.get(str(effect.site), "")))
        lines += [_row(str(effect.site), effect, "extended embedding") for effect in self.extended_embedding]
        if self.controls:
            recovered = np.mean([abs(effect.recovered.value) for effect in self.controls])
            damage = np.mean([abs(effect.damage.value) for effect in self.controls])
            lines.append(
                f"    {len(self.controls)} random others: mean |recovered| {recovered:.3f}, mean |damage| {damage:.3f}"
            )
        return "\n".join(lines)


def _row(name: str, effect: NodeEffect, note: str) -> str:
    return f"    {name:<16} {effect.recovered!s:<26} {effect.damage!s:<26} {note}".rstrip()


@public
class ActivationPatcher(Instrument):
    """Patches activations of one model between clean and corrupt runs.

    controls: number of nodes outside the circuit that are tested too. executor: who computes, if not this thread (`parallel`).
    Sweeps that take long resume from disk after an interruption.
    """

    def __init__(
        self, model: TransformerModel, *, controls: int = 12, seed: int | None = None, executor: Executor | None = None
    ) -> None:
        super().__init__(model, seed)
        self.controls: int = at_least(0, "controls", controls)
        self._executor = executor

    def test_causal_relationship(self, circuit: Circuit) -> CausalTestResults:
        """Denoise and noise every node of the circuit on its held-out pairs, and map the residual stream.

        A `CircuitFinder` means the last circuit it found. Raises `CircuitError` for a circuit of another model.
        """
        circuit = as_circuit(circuit, "A causal test")
        circuit.check(self._model)
        runs = PairRuns(self._model.engine, circuit.pairs)
        nodes = circuit.nodes
        common = {circuit.graph.source_site(source) for source in extended_embedding(circuit.graph)}
        others = self._others(circuit.graph, nodes) if circuit.exists else []
        effects = self._effects(runs, [*nodes, *others])
        inside = sorted(effects[: len(nodes)], key=lambda effect: -effect.recovered.value)
        units = circuit.pairs.units
        return CausalTestResults(
            task=circuit.task,
            exists=circuit.exists,
            reason=circuit.reason,
            doubts=circuit.doubts,
            faithfulness=circuit.faithfulness,
            held_out_faithfulness=circuit.held_out_faithfulness,
            completeness=circuit.completeness,
            minimality=circuit.minimality,
            clean_metric=mean(runs.clean.metric, units=units),
            corrupt_metric=mean(runs.corrupt.metric, units=units),
            random_circuit_faithfulness=circuit.random_circuit_faithfulness,
            edges=circuit.edge_count,
            fraction_of_edges=circuit.fraction_of_edges,
            components=[effect for effect in inside if effect.site not in common],
            extended_embedding=[effect for effect in inside if effect.site in common],
            controls=effects[len(nodes) :],
            roles=circuit.roles,
            residual_map=self.residual_map(circuit.pairs) if circuit.exists else None,
            provenance=provenance(
                self._model, circuit.task, self.seed, found=circuit.provenance, pairs=runs.rows, controls=len(others)
            ),
            _circuit=circuit,
        )

    def patch(
        self,
        pairs: Any,
        sites: Sites = "residual@*",
        *,
        direction: str = "denoising",
        metric: Metric = "logit_difference",
        replacement: str = "pair",
        method: str = "exact",
    ) -> PatchingMap:
        """Patch each of many sites on prompts of your own, one at a time: a map of their shares of the effect.

        pairs: a pair or several, as dictionaries with clean, corrupt, answer and wrong, as tuples of these, or as a `Dataset`; one pair
        is enough to look. sites: names, patterns and sets (`engines.patterns`), such as "heads", "heads@*", "*.query[*]",
        "5.mlp[*]@-1", or a list of them. direction: `denoising` puts clean activations into the corrupt run, `noising` the other way.
        metric: a name of `tasks.metrics`, or a function of a prompt's logits. replacement: what a site gets (`circuits.replacing`):
        `pair`, `resample`, `mean` or `zero`. method: `exact`, or `attribution`, a first-order estimate from one run with gradients.

        Raises `DatasetError` for pairs that cannot be compared, `SiteError` for a site the model lacks, `ArgumentError` for another
        name, `CircuitError` if clean and corrupt prompts give the same metric.
        """
        return patch(
            self._model,
            pairs,
            sites,
            direction=direction,
            metric=metric,
            replacement=replacement,
            method=method,
            seed=self.seed,
            team=Team.of(self._model, self._executor),
        )

    def patch_paths(
        self, pairs: Any, senders: Sites = "heads", receivers: Sites = "logits", *, metric: Metric = "logit_difference"
    ) -> PatchingMap:
        """Path patching: the part of the effect that is lost when the receivers alone read a sender's corrupt write.

        senders: heads, MLPs (`mlpOutput`) or the embedding. receivers: queries, keys and values of later heads, and logits, patched
        together for each sender (Wang et al. 2022; Goldowsky-Dill et al. 2023). Raises `CircuitError` for sites that do not write to
        or read from the stream, `SiteError` for a sender that none of the receivers reads, and the errors of `patch`.
        """
        team = Team.of(self._model, self._executor)
        return patch_paths(self._model, pairs, senders, receivers, metric=metric, seed=self.seed, team=team)

    def _others(self, graph: Graph, nodes: list[Site]) -> list[Site]:
        inside = {graph.source_of(site) for site in nodes}
        outside = [source for source in range(1, graph.sources) if source not in inside]
        random = np.random.default_rng(self.seed)
        picked: Sequence[int] = (
            random.choice(outside, min(self.controls, len(outside)), replace=False).tolist() if outside else []
        )
        return [graph.source_site(int(source)) for source in sorted(picked)]

    def _effects(self, runs: PairRuns, sites: list[Site]) -> list[NodeEffect]:
        if not sites:
            return []
        units = runs.pairs.units
        clean, corrupt = runs.clean, runs.corrupt
        team = Team.of(self._model, self._executor)
        journal = Journal.of("sweeps", self._model, runs.pairs, team, list(map(str, sites)))
        denoised = sweep(runs, corrupt, clean, sites, name="denoising nodes", team=team, journal=journal)
        noised = sweep(runs, clean, corrupt, sites, name="noising nodes", team=team, journal=journal)
        if journal is not None:
            journal.forget()
        return [
            NodeEffect(
                site,
                recovered=normalised(up, corrupt.metric, clean.metric, units=units),
                damage=normalised(down, clean.metric, corrupt.metric, units=units),
            )
            for site, up, down in zip(sites, denoised, noised, strict=True)
        ]

    def residual_map(self, pairs: PairBatch) -> ResidualMap:
        """Denoise the residual stream after every layer at every token.

        Uses the largest group of pairs with the same length and the same first changed position, so that columns correspond.
        """
        changed = (pairs.clean.ids != pairs.corrupt.ids).argmax(1)
        shapes = np.stack([pairs.clean.lengths, changed], axis=1)
        kinds, counts = np.unique(shapes, axis=0, return_counts=True)
        length = int(kinds[counts.argmax()][0])
        runs = PairRuns(self._model.engine, pairs.take(np.flatnonzero((shapes == kinds[counts.argmax()]).all(1))))
        clean, corrupt = runs.clean, runs.corrupt
        layers = self._model.architecture.layers
        sites = [Site(layer, Component.RESIDUAL, position=p) for layer in range(layers) for p in range(length)]
        team = Team.of(self._model, self._executor)
        journal = Journal.of("sweeps", self._model, runs.pairs, team, ["residual map"])
        metric = sweep(runs, corrupt, clean, sites, name="mapping the residual stream", team=team, journal=journal).mean(1)
        if journal is not None:
            journal.forget()
        shares = (metric - corrupt.metric.mean()) / (clean.metric.mean() - corrupt.metric.mean())
        tokens = [self._model.token_text(token) for token in runs.pairs.clean.ids[0]]
        return ResidualMap(shares.reshape(layers, length).tolist(), tokens, runs.rows)
