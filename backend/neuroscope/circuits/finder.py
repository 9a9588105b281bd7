"""Finding circuits: score the edges, then measure which prefix of them is enough.

1. Two thirds of the examples find the circuit; the rest, held out, judge it.
2. Every edge is scored on the finding examples, by EAP-IG unless another method is asked for.
3. Edges are taken in order of their scores, and prefixes of growing size are *measured*: every other edge carries its
   corrupt activation (or another ablation). Edges with negative scores work against the answer. Counted like positive
   ones (Hanna et al. 2024) they make small circuits fall short, and counted less they make them overshoot; so several
   weights are tried, and at each size the one whose circuit stays closest to the model, pair by pair, is kept. The
   first size that reaches the target faithfulness is narrowed down by bisection.
4. Edges on no path from embedding to logits are dropped: they carry nothing.
5. The circuit is judged on the held-out examples, beside random circuits of the same size, without its complement
   (completeness), and without single edges (minimality); heads get roles from their attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from neuroscope import events
from neuroscope.circuits.attribution import Scores, checked_method, edge_scores
from neuroscope.circuits.baseline import checked_ablation
from neuroscope.circuits.circuit import Circuit
from neuroscope.circuits.curve import SIZES, CurvePoint, FaithfulnessCurve, area, curve_points, measured, prefix, ranked
from neuroscope.circuits.estimates import mean, normalised
from neuroscope.circuits.graph import Graph
from neuroscope.circuits.masked import MaskedModel, Removal
from neuroscope.circuits.pairs import PairBatch, make_pairs
from neuroscope.circuits.reference import Numbers
from neuroscope.circuits.roles import head_roles
from neuroscope.errors import ArgumentError, CircuitError
from neuroscope.instrument import Instrument
from neuroscope.models.engines.protocol import BoolArray
from neuroscope.models.model import TransformerModel
from neuroscope.models.sites import Component
from neuroscope.provenance import provenance
from neuroscope.results import Provenance
from neuroscope.tasks import registry
from neuroscope.tasks.dataset import Dataset
from neuroscope.tasks.metrics import checked_metric
from neuroscope.tasks.statistics import Estimate, wilson
from neuroscope.vocabulary import public, python_only

_BISECTIONS = 5
#: How much a negative score may count beside a positive one of the same size.
NEGATIVE_WEIGHTS = (1.0, 0.85, 0.7, 0.5)


@public
class CircuitFinder(Instrument):
    """Finds circuits of one model.

    pairs: examples used (two thirds to find, one third held out). method: how edges are scored (`attribution.METHODS`).
    steps: integration steps. ablation: what edges outside a circuit carry (`baseline.ABLATIONS`). target: faithfulness to
    reach. random_circuits: how many controls. minimality_sample: edges tried one by one.
    """

    def __init__(
        self,
        model: TransformerModel,
        *,
        pairs: int = 60,
        method: str = "eap_ig",
        steps: int = 5,
        ablation: str = "corrupt",
        target: float = 0.85,
        metric: str = "logit_difference",
        random_circuits: int = 5,
        minimality_sample: int = 40,
        seed: int | None = None,
    ) -> None:
        super().__init__(model, seed)
        if not 0 < target <= 1:
            raise ArgumentError(f"The target faithfulness is above 0 and at most 1, not {target}.")
        if pairs < 4:
            raise ArgumentError(f"Finding a circuit needs at least 4 pairs, not {pairs}.")
        if steps < 1:
            raise ArgumentError(f"Integrated gradients need at least one step, not {steps}.")
        self.pairs: int = pairs
        self.method: str = checked_method(method)
        self.steps: int = steps
        self.ablation: str = checked_ablation(ablation)
        self.target: float = target
        self.metric: str = checked_metric(metric)
        self.random_circuits: int = random_circuits
        self.minimality_sample: int = minimality_sample
        self._found: list[Circuit] = []

    @property
    def last_circuit(self) -> Circuit:
        """The circuit found last; `CircuitError` when none was."""
        if not self._found:
            raise CircuitError("This finder has found no circuit yet.", remedy="Send findCircuit: first.")
        return self._found[-1]

    def find_circuit(self, task: str, examples: Dataset | Sequence[Any] | None = None) -> Circuit:
        """The smallest circuit for a task that measures as faithful.

        `examples` default to the task's own; a Dataset is filtered to what the model's tokenizer can express.
        Raises `DatasetError` for unfit examples and `CircuitError` when no circuit reaches the target.
        """
        name, pairs = self.pairs_of(task, examples)
        circuit = self.search(name, pairs)
        self._found.append(circuit)
        return circuit

    def faithfulness_curve(self, task: str, examples: Dataset | Sequence[Any] | None = None) -> FaithfulnessCurve:
        """Faithfulness on held-out pairs from 0.1 to 100 % of the edges, with its integrated figures CPR and CMD."""
        name, pairs = self.pairs_of(task, examples)
        finding, judging = self.split(pairs)
        scores = self._scores(finding)
        masked = MaskedModel(self._model.engine, judging, ablation=self.ablation, seed=self.seed)
        points, signed = (curve_points(masked, scores, weight, seed=self.seed) for weight in (1.0, 0.0))
        return FaithfulnessCurve(
            task=name,
            method=self.method,
            ablation=self.ablation,
            cpr=area(signed, from_one=False),
            cmd=area(points, from_one=True),
            points=points,
            signed_points=signed,
            provenance=self._provenance(name, finding, judging),
        )

    @python_only
    def search(self, task: str, pairs: PairBatch) -> Circuit:
        """Find and judge a circuit on pairs that are ready to run."""
        finding, judging = self.split(pairs)
        scores = self._scores(finding)
        masked = MaskedModel(self._model.engine, finding, ablation=self.ablation, seed=self.seed)
        mask, curve = self._smallest(masked, scores)
        return self._judged(task, mask, scores, curve, masked, judging)

    @python_only
    def pairs_of(self, task: str, examples: Dataset | Sequence[Any] | None) -> tuple[str, PairBatch]:
        """The task's full name, and its examples as pairs that this model's tokenizer can express."""
        found = registry.get(task)
        dataset = found.dataset(seed=self.seed) if examples is None else examples
        chosen = dataset.for_model(self._model, n=self.pairs) if isinstance(dataset, Dataset) else dataset
        return found.name, make_pairs(self._model, list(chosen), self.metric)

    @python_only
    def split(self, pairs: PairBatch) -> tuple[PairBatch, PairBatch]:
        """The pairs that find a circuit and those that judge it."""
        order = np.random.default_rng(self.seed).permutation(pairs.rows)
        held_out = pairs.rows // 3
        if held_out == 0:
            raise CircuitError(f"{pairs.rows} pairs are too few to hold any out.", remedy="Give at least 3, better 60.")
        return pairs.take(order[held_out:]), pairs.take(order[:held_out])

    def _scores(self, finding: PairBatch) -> Scores:
        return edge_scores(
            self._model.engine, finding, method=self.method, steps=self.steps, ablation=self.ablation, seed=self.seed
        )

    @python_only
    def judge(self, task: str, mask: BoolArray, scores: Scores, finding: PairBatch, judging: PairBatch) -> Circuit:
        """A circuit whose edges are known, with every figure that a found one has."""
        masked = MaskedModel(self._model.engine, finding, ablation=self.ablation, seed=self.seed)
        return self._judged(task, mask, scores, [], masked, judging)

    def _provenance(self, task: str, finding: PairBatch, judging: PairBatch) -> Provenance:
        return provenance(self._model, task, self.seed, pairs=finding.rows, held_out=judging.rows, steps=self.steps)

    def _smallest(self, masked: MaskedModel, scores: Scores) -> tuple[BoolArray, list[CurvePoint]]:
        graph = masked.graph
        orders = {weight: ranked(graph, scores, weight) for weight in NEGATIVE_WEIGHTS}
        found: dict[int, tuple[BoolArray, CurvePoint]] = {}

        def reaches(count: int, weights: Sequence[float]) -> bool:
            tried = [measured(masked, orders[weight], count, weight, self.seed) for weight in weights]
            found[count] = max(tried, key=lambda one: one[1].closeness)
            job.advance()
            return found[count][1].faithfulness.value >= self.target

        sizes = sorted({max(1, round(share * graph.edges)) for share in SIZES})
        with events.progress("measuring circuits", total=len(sizes) + _BISECTIONS, unit="sizes") as job:
            low = 0
            for high in sizes:
                if reaches(high, NEGATIVE_WEIGHTS):
                    break
                low = high
            else:
                raise CircuitError("Not even the whole graph is as faithful as asked.", remedy="Lower the target.")
            weight = found[high][1].negative_weight
            for _ in range(_BISECTIONS):
                middle = (low + high) // 2
                if middle in (low, high):
                    break
                if reaches(middle, [weight]):
                    high = middle
                else:
                    low = middle
        return found[high][0], [found[count][1] for count in sorted(found)]

    def _judged(
        self,
        task: str,
        mask: BoolArray,
        scores: Scores,
        curve: list[CurvePoint],
        finding: MaskedModel,
        judging: PairBatch,
    ) -> Circuit:
        engine, graph = self._model.engine, finding.graph
        held_out = MaskedModel(engine, judging, ablation=self.ablation, seed=self.seed)
        with events.progress("judging the circuit", total=3 + self.random_circuits, unit="runs") as job:

            def faithful(model: MaskedModel, edges: BoolArray) -> Estimate:
                value = normalised(model.metric(edges), model.empty, model.clean, seed=self.seed)
                job.advance()
                return value

            faithfulness, unseen = faithful(finding, mask), faithful(held_out, mask)
            without = faithful(held_out, graph.valid & ~mask)
            random = np.random.default_rng(self.seed)
            controls = [
                faithful(held_out, _random_circuit(graph, int(mask.sum()), random)).value for _ in range(self.random_circuits)
            ]
        heads = [graph.source_site(source) for source in graph.nodes(mask)]
        heads = [site for site in heads if site.component is Component.HEAD_OUTPUT]
        return Circuit(
            task=task,
            faithfulness=faithfulness,
            held_out_faithfulness=unseen,
            completeness=Estimate(1 - without.value, 1 - without.high, 1 - without.low, without.n),
            minimality=self._minimality(held_out, mask),
            clean_metric=mean(held_out.clean, seed=self.seed),
            corrupt_metric=mean(held_out.empty, seed=self.seed),
            random_circuit_faithfulness=mean(np.array(controls), seed=self.seed),
            roles=head_roles(
                engine,
                judging,
                heads,
                task=task,
                mask=mask,
                seed=self.seed,
                decode=lambda token: str(self._model.tokenizer.decode([token])),
            ),
            curve=curve,
            ablation=self.ablation,
            method=self.method,
            metric=self.metric,
            provenance=self._provenance(task, finding.pairs, judging),
            _graph=graph,
            _mask=mask,
            _scores=scores,
            _pairs=judging,
            _model=self._model,
        )

    def _minimality(self, masked: MaskedModel, mask: BoolArray) -> Estimate:
        """Share of sampled edges whose removal alone lowers the metric by more than the standard error of that fall."""
        edges = np.argwhere(mask)
        random = np.random.default_rng(self.seed)
        if len(edges) > self.minimality_sample:
            edges = edges[random.choice(len(edges), self.minimality_sample, replace=False)]
        whole = masked.metric(mask)
        falls: Numbers = whole - masked.removals(mask, [Removal(int(c), int(s)) for c, s in edges])
        errors = falls.std(1, ddof=1) / np.sqrt(falls.shape[1]) if falls.shape[1] > 1 else np.zeros(len(falls))
        return wilson(int((falls.mean(1) > errors).sum()), len(edges))


def _random_circuit(graph: Graph, edges: int, random: np.random.Generator) -> BoolArray:
    flat = random.permutation(np.flatnonzero(graph.valid))
    return prefix(graph, flat, edges)
