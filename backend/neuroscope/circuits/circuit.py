"""Circuit: a set of edges of a model, with its measured figures."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from neuroscope import events
from neuroscope.circuits.ablated import Means, source_means
from neuroscope.circuits.curve import CurvePoint
from neuroscope.circuits.effect import Effect
from neuroscope.circuits.graph import Graph
from neuroscope.circuits.judging import Control, extended_embedding
from neuroscope.circuits.pair_runs import PairRuns
from neuroscope.circuits.roles import Role
from neuroscope.engines.protocol import BoolArray
from neuroscope.engines.sites import Component, Site
from neuroscope.errors import ArgumentError, CircuitError
from neuroscope.provenance import tell_precision
from neuroscope.results import Provenance, Result
from neuroscope.tasks.statistics import Estimate
from neuroscope.vocabulary import public, python_only

if TYPE_CHECKING:
    from neuroscope.circuits.attribution import Scores
    from neuroscope.circuits.discovery import HypothesisTest
    from neuroscope.models.model import TransformerModel
    from neuroscope.tasks.pairs import PairBatch
    from neuroscope.views.extensions import DrawingsOfCircuits as _Extended
else:
    from neuroscope.extensions import Extensible as _Extended


#: A figure that was not measured: there is no circuit, or the file is older than the figure.
UNKNOWN = Estimate(float("nan"), float("nan"), float("nan"), 0)


@public
@dataclass(frozen=True, kw_only=True)
class Circuit(Result, _Extended):
    """Edges that suffice for a task, found on a model; or the finding that there is no circuit.

    exists: whether there is a circuit. If clean and corrupt prompts do not differ there is none: `reason` says so, the mask is
    empty and every figure is `UNKNOWN`. effect: that test, on pairs used for nothing else.
    test: its test as a hypothesis, for a circuit from discovery.
    doubts: evidence against the circuit from held-out pairs; it is `trustworthy` if it exists without any.
    faithfulness: on the pairs that chose the circuit. held_out_faithfulness: on pairs that share no prompt, entity, word or
    template with those, except the kinds in `shared`, of which the task has only one.
    closeness: the same pair by pair (`curve.CurvePoint`), held out; 1 for a circuit that equals the model on each.
    cmd: the circuit–model distance of the edges' order by |score| on held-out pairs (`curve`).
    completeness, minimality, controls: see `judging`. random_circuit_faithfulness: of connected random circuits of its size.
    clean_metric, corrupt_metric: of the whole model on clean and corrupt prompts (with another ablation than `corrupt`, of the
    model without any edge).
    """

    task: str
    exists: bool = True
    reason: str | None = None
    effect: Effect | None = None
    doubts: list[str] = field(default_factory=list)
    faithfulness: Estimate = UNKNOWN
    held_out_faithfulness: Estimate = UNKNOWN
    closeness: Estimate = UNKNOWN
    cmd: float | None = None
    completeness: Estimate = UNKNOWN
    worst_completeness: float | None = None
    minimality: Estimate = UNKNOWN
    clean_metric: Estimate
    corrupt_metric: Estimate
    random_circuit_faithfulness: Estimate = UNKNOWN
    controls: list[Control] = field(default_factory=list)
    roles: list[Role] = field(default_factory=list)
    curve: list[CurvePoint] = field(default_factory=list)
    shared: list[str] = field(default_factory=list)
    method: str
    ablation: str
    metric: str
    provenance: Provenance
    test: HypothesisTest | None = None
    _graph: Graph = field(repr=False)
    _mask: BoolArray = field(repr=False)
    _scores: Scores = field(repr=False)
    _pairs: PairBatch = field(repr=False)
    _chosen_by: frozenset[str] = field(default=frozenset(), repr=False)
    _model: TransformerModel | None = field(default=None, repr=False)
    _means: Means | None = field(default=None, repr=False)

    @property
    def trustworthy(self) -> bool:
        """Whether the circuit exists without doubts."""
        return self.exists and not self.doubts

    @property
    def model(self) -> TransformerModel:
        """The model it was found on; a circuit from a file loads it on first use. Warns if its weights have been edited since.

        Raises `CircuitError` if the model of that name now has other weights.
        """
        model, now = self._found_on, self._found_on.weights_hash
        if now != self.provenance.weights_hash and now not in self._told:
            self._told.add(now)
            events.notice(
                f"{model.title} was edited after the circuit for {self.task} was found on it: its edges and figures are of the weights "
                f"{self.provenance.weights_hash[:12]}…, not of {now[:12]}….",
                "warning",
            )
        return model

    @functools.cached_property
    def _told(self) -> set[str]:
        return set()

    @functools.cached_property
    def _found_on(self) -> TransformerModel:
        if self._model is not None:
            return self._model
        from neuroscope.models.model import TransformerModel

        model = TransformerModel.from_hugging_face(self.provenance.model, dtype=self.provenance.dtype or "float32")
        self.check(model)
        return model

    @python_only
    def check(self, model: TransformerModel) -> None:
        """Raise `CircuitError` unless the circuit was found on these weights; warn if in another precision."""
        if model.weights_hash != self.provenance.weights_hash:
            raise CircuitError(
                f"The circuit for {self.task} was found on {self.provenance.title} "
                f"(weights {self.provenance.weights_hash[:12]}…), not on {model.title} (weights {model.weights_hash[:12]}…).",
                remedy="Use the model it was found on, or find the circuit again on this one.",
            )
        tell_precision(f"The circuit for {self.task}", self.provenance, model)

    @functools.cached_property
    @python_only
    def means(self) -> Means:
        """(sources, d_model): the mean of every source's writes, over all tokens of the circuit's corrupt prompts."""
        if self._means is not None:
            return self._means
        return source_means(PairRuns(self.model.engine, self._pairs, share_prefix=False))

    def save(self, path: str) -> str:
        """Write the circuit with its figures to a `.circuit` file (`circuits.storage`). Return its path."""
        from neuroscope.circuits.storage import write

        return str(write(self, path))

    @property
    @python_only
    def mask(self) -> BoolArray:
        """(receivers, sources): the circuit's edges."""
        return self._mask

    @property
    @python_only
    def scores(self) -> Scores:
        """(receivers, sources): the score of every edge; for a circuit from a file, of its own edges only."""
        return self._scores

    @property
    @python_only
    def pairs(self) -> PairBatch:
        """The held-out pairs, for further tests."""
        return self._pairs

    @property
    @python_only
    def chosen_by(self) -> frozenset[str]:
        """The units (`Example.units`) of the pairs that tested the effect and chose the circuit, without `shared` kinds."""
        return self._chosen_by

    @property
    @python_only
    def graph(self) -> Graph:
        return self._graph

    @property
    def edge_count(self) -> int:
        return int(self._mask.sum())

    @property
    def fraction_of_edges(self) -> float:
        """The circuit's share of the graph's edges."""
        return self.edge_count / self.graph.edges

    @property
    @python_only
    def nodes(self) -> list[Site]:
        """The heads and MLPs that write along an edge of the circuit, in causal order."""
        return [self.graph.source_site(source) for source in self.graph.nodes(self._mask)]

    @property
    def heads(self) -> list[str]:
        """The circuit's heads, as sites."""
        return [str(site) for site in self.nodes if site.component is Component.HEAD_OUTPUT]

    @property
    def mlps(self) -> list[str]:
        """The circuit's MLPs, as sites."""
        return [str(site) for site in self.nodes if site.component is Component.MLP_OUTPUT]

    @property
    def layer(self) -> int:
        """The layer of the strongest component: the head or MLP with the largest total absolute score of its edges.

        The first MLP, which carries every token's identity, counts only if there is no other component. Raises `CircuitError`
        for a circuit without components.
        """
        totals = np.abs(np.where(self._mask, self._scores, 0.0)).sum(0)
        common = list(extended_embedding(self.graph))
        if not np.delete(totals, common).any():
            common = [0]
        totals[common] = -1.0
        if totals.max() <= 0:
            raise CircuitError(
                f"The circuit for {self.task} has no component" + (f": {self.reason}." if self.reason else "."),
                remedy="Check that it `exists` first.",
            )
        site = self.graph.source_site(int(totals.argmax()))
        assert site.layer is not None
        return site.layer

    @property
    def edges(self) -> list[tuple[str, str, float]]:
        """Every edge as (source, receiver, score), strongest first."""
        receivers, sources = np.nonzero(self._mask)
        values = self._scores[receivers, sources]
        graph = self.graph
        return [
            (str(graph.source_site(int(sources[i]))), str(graph.receiver_site(int(receivers[i]))), float(values[i]))
            for i in np.argsort(-np.abs(values), kind="stable")
        ]

    def __iter__(self) -> Iterator[str]:
        return (str(site) for site in self.nodes)

    def __len__(self) -> int:
        return len(self.nodes)

    def print_string(self) -> str:
        if not self.exists:
            return f"a Circuit({self.task}: none, {self.reason})"
        return f"a Circuit({self.task}: {self.edge_count} edges, faithfulness {self.faithfulness})"

    def summary(self) -> str:
        model = self.provenance.title
        metric = f"  metric             clean {self.clean_metric}, corrupt {self.corrupt_metric}"
        if not self.exists:
            return f"No circuit for {self.task} in {model}: {self.reason}\n{metric}"
        roles: dict[str, list[str]] = {}
        for role in self.roles:
            roles.setdefault(role.role, []).append(f"{role.head.layer}.{role.head.head}")
        named = [f"    {name}: {', '.join(heads[:14])}{', …' if len(heads) > 14 else ''}" for name, heads in roles.items()]
        distance = "" if self.cmd is None else f"; CMD of the order {self.cmd:.3f}"
        worst = "" if self.worst_completeness is None else f"; worst {self.worst_completeness:.3f}"
        return "\n".join(
            [
                f"Circuit for {self.task} in {model}" + (", not trustworthy:" if self.doubts else ""),
                *([] if self.test is None else [f"  hypothesis         {self.test.verdict}"]),
                *(f"  doubt              {doubt}" for doubt in self.doubts),
                f"  edges              {self.edge_count} of {self.graph.edges} ({self.fraction_of_edges:.2%}), "
                f"{len(self.heads)} heads, {len(self.mlps)} MLPs",
                metric,
                f"  faithfulness       {self.faithfulness}; held out {self.held_out_faithfulness}",
                f"  closeness          {self.closeness} pair by pair, held out{distance}",
                *(
                    f"  {control.kind + ' control':<19}{control.faithfulness}, closeness {control.closeness}"
                    for control in self.controls
                ),
                f"  completeness       {self.completeness}{worst}",
                f"  minimality         {self.minimality}",
                *([f"  not held out       {', '.join(self.shared)}: the task has only one"] if self.shared else []),
                "  heads by role" if named else "  no head has a role",
                *named,
            ]
        )

    def as_dictionary(self) -> dict[str, Any]:
        """The result's fields, and nodes and edges by site."""
        return {
            **super().as_dictionary(),
            "trustworthy": self.trustworthy,
            "layer": self.layer if self.nodes else None,
            "edgeCount": self.edge_count,
            "graphEdges": self.graph.edges,
            "fractionOfEdges": self.fraction_of_edges,
            "heads": self.heads,
            "mlps": self.mlps,
            "edges": [list(edge) for edge in self.edges],
        }


def as_circuit(given: object, use: str) -> Circuit:
    """A circuit, or the last one that a `CircuitFinder` found.

    use: what needs it, for the `ArgumentError` about anything else. Raises `CircuitError` for a finder that found none yet.
    """
    found = getattr(given, "last_circuit", given)
    if not isinstance(found, Circuit):
        raise ArgumentError(f"{use} needs a Circuit, not {found!r}.", remedy="Find one with CircuitFinder.")
    return found
