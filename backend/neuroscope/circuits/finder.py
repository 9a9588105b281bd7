"""Finding circuits: test for an effect, score the edges, search for the fewest that suffice, judge the result.

1. The examples are divided into three parts that share no prompt, entity, word or template.
2. On the first part the gap between clean and corrupt prompts is tested (`effect`), and again on the third. Without a gap
   there is no circuit.
3. On the second every edge is scored (`attribution`, by default with method `auto`), and measurements find the smallest set of
   edges that reaches the target faithfulness (`search`): every other edge carries its corrupt activation (or another ablation).
   Edges that are not on a path from embedding to logits are dropped.
4. On the third the circuit is judged (`judging`): faithfulness, closeness pair by pair, completeness, minimality, controls of
   the same size; evidence against it becomes a doubt. Heads get roles from their effects (`roles`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from neuroscope import events
from neuroscope.circuits import judging
from neuroscope.circuits.ablated import checked_ablation
from neuroscope.circuits.attribution import Scores, checked_method, checked_rule, chosen_method, edge_scores
from neuroscope.circuits.circuit import UNKNOWN, Circuit
from neuroscope.circuits.curve import CurvePoint, FaithfulnessCurve, area, curve_points, prefix, ranked
from neuroscope.circuits.effect import FEWEST_PAIRS, Effect, confirmed, paired_effect
from neuroscope.circuits.estimates import mean, normalised
from neuroscope.circuits.evaluation import CircuitEvaluation
from neuroscope.circuits.graph import Graph
from neuroscope.circuits.journal import Journal
from neuroscope.circuits.needs import MemoryNeed, memory_needed
from neuroscope.circuits.roles import head_roles
from neuroscope.circuits.search import smallest
from neuroscope.engines.protocol import BoolArray
from neuroscope.engines.sites import Component
from neuroscope.errors import ArgumentError, CircuitError
from neuroscope.kinds import at_least
from neuroscope.models.instrument import Instrument
from neuroscope.models.model import TransformerModel
from neuroscope.parallel.executors import Executor
from neuroscope.parallel.team import Team
from neuroscope.provenance import provenance
from neuroscope.remedies import Remedy
from neuroscope.results import Provenance
from neuroscope.tasks import registry
from neuroscope.tasks.dataset import Dataset, Example
from neuroscope.tasks.metrics import Metric, checked_metric, metric_name
from neuroscope.tasks.pairs import PairBatch, make_pairs
from neuroscope.tasks.statistics import Estimate
from neuroscope.vocabulary import public, python_only

#: As many as a task has parts, and one more: the same items in another phrasing.
_KEPT_RUNS = 4


@dataclass(frozen=True)
class PairParts:
    """A task's pairs in three independent parts. shared: kinds of units that could not be kept apart (`independence`)."""

    effect: PairBatch
    finding: PairBatch
    judging: PairBatch
    shared: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        return self.effect.rows + self.finding.rows + self.judging.rows

    @property
    def chosen_by(self) -> frozenset[str]:
        """Units of the pairs that test the effect and choose the circuit, without `shared` kinds."""
        units = frozenset[str]().union(*self.effect.units, *self.finding.units)
        return frozenset(unit for unit in units if unit.partition(":")[0] not in self.shared)


def part_sizes(pairs: int) -> tuple[int, int, int]:
    """Number of pairs that test the effect (a fifth, at least `FEWEST_PAIRS`), find the circuit, and judge it (a third)."""
    effect, judged = min(max(FEWEST_PAIRS, pairs // 5), pairs // 3), pairs // 3
    return effect, pairs - effect - judged, judged


@public
class CircuitFinder(Instrument):
    """Finds circuits of one model.

    pairs: number of examples (`part_sizes`). method: how edges are scored (`attribution.METHODS`); the circuit records what
    `auto` chose. rule: how integrated gradients are summed (`attribution.RULES`). steps: integration steps. ablation: what
    edges outside a circuit carry (`ablated.ABLATIONS`). target: faithfulness to reach (`search.reaches`). random_circuits:
    draws of every kind of control. minimality_sample: number of edges removed one by one. executor: who scores edges and measures
    circuits, if not this thread (`parallel`). Scoring that takes long resumes from disk after an interruption.
    """

    def __init__(
        self,
        model: TransformerModel,
        *,
        pairs: int = 60,
        method: str = "auto",
        rule: str = "midpoint",
        steps: int = 5,
        ablation: str = "corrupt",
        target: float = 0.85,
        metric: Metric = "logit_difference",
        random_circuits: int = 10,
        minimality_sample: int = 40,
        seed: int | None = None,
        executor: Executor | None = None,
    ) -> None:
        super().__init__(model, seed)
        if not 0 < target <= 1:
            raise ArgumentError(f"The target faithfulness must be above 0 and at most 1, not {target}.")
        if pairs < 6:
            raise ArgumentError(f"Finding a circuit needs at least 6 pairs, not {pairs}.", remedy="60 is a good number.")
        if steps < 1:
            raise ArgumentError(f"Integrated gradients need at least one step, not {steps}.")
        self.pairs: int = pairs
        self.method: str = checked_method(method)
        self.rule: str = checked_rule(rule)
        self.steps: int = steps
        self.ablation: str = checked_ablation(ablation)
        self.target: float = target
        self.metric: Metric = checked_metric(metric)
        self.random_circuits: int = at_least(0, "random_circuits", random_circuits)
        self.minimality_sample: int = minimality_sample
        self._executor = executor
        self._found: list[Circuit] = []
        self._runs: list[tuple[PairBatch, tuple[Any, ...], CircuitEvaluation]] = []

    @property
    def last_circuit(self) -> Circuit:
        """The last circuit found. Raises `CircuitError` if there is none."""
        if not self._found:
            raise CircuitError(
                "This finder has found no circuit yet.",
                remedy=Remedy("Call find_circuit first.", smalltalk="Send findCircuit: first."),
            )
        return self._found[-1]

    def find_circuit(self, task: str, examples: Dataset | Sequence[Example] | None = None) -> Circuit:
        """Find the smallest faithful circuit for a task, or that there is none (`exists`).

        `examples` default to the task's own; a Dataset is filtered for the model's tokenizer. Raises `DatasetError` for unfit
        examples, or too few to hold any out.
        """
        name, parts = self.pairs_of(task, examples)
        circuit = self.search(name, parts)
        self._found.append(circuit)
        return circuit

    def find_circuits_for(self, task: str) -> list[Circuit]:
        """The task's circuit, in a list; an empty list where there is none. It is the finder's `last_circuit` either way.

        Raises what `find_circuit` raises.
        """
        found = self.find_circuit(task)
        return [found] if found.exists else []

    def faithfulness_curve(self, task: str, examples: Dataset | Sequence[Example] | None = None) -> FaithfulnessCurve:
        """Faithfulness on held-out pairs from 0.1 to 100 % of the edges, with its integrated figures CPR and CMD.

        Raises `CircuitError` if clean and corrupt prompts do not differ significantly.
        """
        name, parts = self.pairs_of(task, examples)
        effect = self.effect_of(parts)
        if not effect.exists:
            raise CircuitError(f"There is no curve for {name} in {self._model.title}: {effect.reason}.")
        scores = self._scores(parts.finding)
        evaluation = self.evaluation(parts.judging)
        points, signed = (curve_points(evaluation, scores, weight) for weight in (1.0, 0.0))
        return FaithfulnessCurve(
            task=name,
            method=self._method(parts),
            ablation=self.ablation,
            cpr=area(signed, from_one=False),
            cmd=area(points, from_one=True),
            points=points,
            signed_points=signed,
            provenance=self._provenance(name, parts),
        )

    def memory_needed(self, pairs: int = 1, tokens: int = 16) -> MemoryNeed:
        """The bytes that scoring so many pairs at once takes, by formula (`needs`). Raises `ArgumentError` for numbers below 1."""
        model = self._model
        weights, dtype = model.engine.weight_bytes, model.precision
        return memory_needed(model.architecture, weights, pairs=pairs, tokens=tokens, steps=self.steps, dtype=dtype)

    @python_only
    def search(self, task: str, parts: PairParts) -> Circuit:
        """Find and judge a circuit on tokenised pairs."""
        effect = self.effect_of(parts)
        if not effect.exists:
            return self._none(task, effect, parts)
        scores = self._scores(parts.finding)
        finding = self.evaluation(parts.finding)
        mask, curve = smallest(finding, scores, self.target)
        return self._judged(task, effect, mask, scores, curve, finding, parts)

    @python_only
    def pairs_of(self, task: str, examples: Dataset | Sequence[Example] | None = None) -> tuple[str, PairParts]:
        """The task's full name, and its examples as pairs for this model's tokenizer, in independent parts."""
        found = registry.get(task)
        chosen = found.dataset(seed=self.seed) if examples is None else examples
        return found.name, self.parts_of([self._model], chosen)

    @python_only
    def parts_of(self, models: Sequence[TransformerModel], examples: Dataset | Sequence[Example]) -> PairParts:
        """Examples that all the models can express, as pairs of this finder's model in independent parts."""
        if not isinstance(examples, Dataset):
            make_pairs(self._model, examples, self.metric)  # raises for an example that does not fit, instead of leaving it out
            examples = Dataset(list(examples))
        parts = examples.parts_for_models(models, part_sizes(self.pairs), seed=self.seed)
        effect, finding, judged = (make_pairs(self._model, part, self.metric) for part in parts)
        return PairParts(effect, finding, judged, parts.shared)

    @python_only
    def of_size(
        self, task: str, examples: Dataset | Sequence[Example] | None, edges: int, weight: float = 1.0
    ) -> BoolArray | None:
        """The best `edges` edges for a task by this finder's scores, pruned, without search and judging.

        For comparing circuits of one size. weight: the weight of negative scores. None if there is no effect.
        """
        _, parts = self.pairs_of(task, examples)
        if not self.effect_of(parts).exists:
            return None
        graph = Graph.of(self._model.architecture)
        order = ranked(graph, self._scores(parts.finding), weight)
        low, high = min(edges, graph.edges), graph.edges
        while low < high:
            middle = min((low + high) // 2, 2 * low)
            if int(graph.pruned(prefix(graph, order, middle)).sum()) < edges:
                low = middle + 1
            else:
                high = middle
        return graph.pruned(prefix(graph, order, high))

    @python_only
    def judge(self, task: str, mask: BoolArray, scores: Scores, parts: PairParts) -> Circuit:
        """A circuit of given edges, with all figures of a found one."""
        effect = self.effect_of(parts)
        if not effect.exists:
            return self._none(task, effect, parts)
        return self._judged(task, effect, mask, scores, [], self.evaluation(parts.finding), parts)

    @python_only
    def evaluation(self, pairs: PairBatch) -> CircuitEvaluation:
        """The pairs with their clean and corrupt runs, cached for all measurements on the same part."""
        state = (self.ablation, self.seed, *sorted(self._model.engine.changed_weights().items()))
        for of, then, runs in self._runs:
            if of is pairs and then == state:
                runs.team = self._team
                return runs
        runs = CircuitEvaluation(self._model.engine, pairs, ablation=self.ablation, seed=self.seed, team=self._team)
        self._runs = [*self._runs, (pairs, state, runs)][-_KEPT_RUNS:]
        return runs

    @python_only
    def effect_of(self, parts: PairParts) -> Effect:
        """The test of the gap between clean and corrupt prompts, on separate pairs and on held-out ones."""
        first = self.evaluation(parts.effect)
        effect = paired_effect(first.clean, first.empty, first.pairs.units)
        if not effect.exists:
            return effect
        again = self.evaluation(parts.judging)
        return confirmed(effect, again.clean, again.empty, again.pairs.units)

    @property
    def _team(self) -> Team | None:
        return Team.of(self._model, self._executor)

    def _scores(self, finding: PairBatch) -> Scores:
        team, how = self._team, (self.method, self.rule, self.steps, self.ablation, self.seed)
        journal = Journal.of("scores", self._model, finding, team, how)
        found = edge_scores(
            self._model.engine,
            finding,
            method=self.method,
            rule=self.rule,
            steps=self.steps,
            ablation=self.ablation,
            seed=self.seed,
            runs=self.evaluation(finding).runs_of(),
            team=team,
            journal=journal,
        )
        if journal is not None:
            journal.forget()
        return found

    def _method(self, parts: PairParts) -> str:
        return chosen_method(self.method, Graph.of(self._model.architecture), parts.finding.rows)

    def _provenance(self, task: str, parts: PairParts) -> Provenance:
        return provenance(
            self._model,
            task,
            self.seed,
            effect_pairs=parts.effect.rows,
            pairs=parts.finding.rows,
            held_out=parts.judging.rows,
            steps=self.steps,
        )

    def _none(self, task: str, effect: Effect, parts: PairParts) -> Circuit:
        graph = Graph.of(self._model.architecture)
        evaluation = self.evaluation(parts.judging)
        return Circuit(
            task=task,
            exists=False,
            reason=effect.reason,
            effect=effect,
            clean_metric=mean(evaluation.clean, units=evaluation.pairs.units),
            corrupt_metric=mean(evaluation.empty, units=evaluation.pairs.units),
            shared=list(parts.shared),
            method=self._method(parts),
            ablation=self.ablation,
            metric=metric_name(self.metric),
            provenance=self._provenance(task, parts),
            _graph=graph,
            _mask=np.zeros_like(graph.valid),
            _scores=np.zeros(graph.valid.shape),
            _pairs=parts.judging,
            _chosen_by=parts.chosen_by,
            _model=self._model,
        )

    def _judged(
        self,
        task: str,
        effect: Effect,
        mask: BoolArray,
        scores: Scores,
        curve: list[CurvePoint],
        finding: CircuitEvaluation,
        parts: PairParts,
    ) -> Circuit:
        graph, held_out = finding.graph, self.evaluation(parts.judging)
        units = held_out.pairs.units

        def faithful(model: CircuitEvaluation) -> Estimate:
            return normalised(model.metric(mask), model.empty, model.clean, units=model.pairs.units)

        with events.progress("judging the circuit", total=5, unit="tests") as job:
            faithfulness, unseen = faithful(finding), faithful(held_out)
            closeness = judging.held_out_closeness(held_out, mask)
            cmd = area(curve_points(held_out, scores, 1.0), from_one=True)
            job.advance()
            complete = judging.completeness(held_out, mask, seed=self.seed)
            job.advance()
            minimal = judging.minimality(held_out, mask, self.minimality_sample, seed=self.seed)
            job.advance()
            controls = judging.controls(held_out, mask, self.random_circuits, seed=self.seed)
            job.advance()
            heads = [site for site in map(graph.source_site, graph.nodes(mask)) if site.component is Component.HEAD_OUTPUT]
            roles = (
                head_roles(self._model.engine, parts.judging, heads, task=task, mask=mask, seed=self.seed, team=self._team)
                if heads
                else []
            )
            job.advance()
        return Circuit(
            task=task,
            effect=effect,
            doubts=judging.doubts(
                held_out=unseen,
                closeness=closeness,
                share=float(mask.sum()) / graph.edges,
                target=self.target,
                controls=controls,
            ),
            faithfulness=faithfulness,
            held_out_faithfulness=unseen,
            closeness=closeness,
            cmd=cmd,
            completeness=complete.typical,
            worst_completeness=complete.worst,
            minimality=minimal,
            clean_metric=mean(held_out.clean, units=units),
            corrupt_metric=mean(held_out.empty, units=units),
            random_circuit_faithfulness=next((one.faithfulness for one in controls if one.kind == "connected"), UNKNOWN),
            controls=controls,
            roles=roles,
            curve=curve,
            shared=list(parts.shared),
            ablation=self.ablation,
            method=self._method(parts),
            metric=metric_name(self.metric),
            provenance=self._provenance(task, parts),
            _graph=graph,
            _mask=mask,
            _scores=scores,
            _pairs=parts.judging,
            _chosen_by=parts.chosen_by,
            _model=self._model,
        )
