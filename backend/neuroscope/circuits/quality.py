"""Quality assurance: four scores of a circuit from 0 to 1, each with its evidence.

functionality     Does it still work? The mean of: closeness of faithfulness to 1 (1 − |1 − f|) on its held-out pairs, the same
                  on new items independent of those that chose it, and the share of right items among those the whole model has
                  right.
performance       What does it cost? The share of the blocks' weights that it does not need. Latencies are only evidence: wall
                  time varies between runs.
interpretability  Can it be understood? The mean of: the share of its heads with a measured role, its minimality, and the
                  overlap (Jaccard; with chance) of its nodes with those of the best edges under other seeds, as many as it has.
safety            Do refusals depend on it? The share of harmful requests whose refusal the model still prefers when the circuit
                  is mean-ablated, compared with the whole model and the removal of connected random circuits of its size.

Raises `CircuitError`, with the reason, for a circuit that does not exist.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from neuroscope import events, settings
from neuroscope.circuits.circuit import Circuit, as_circuit
from neuroscope.circuits.compiled import CircuitEngine
from neuroscope.circuits.controls import connected_random
from neuroscope.circuits.estimates import normalised
from neuroscope.circuits.evaluation import CircuitEvaluation
from neuroscope.circuits.finder import CircuitFinder
from neuroscope.engines import architectures
from neuroscope.engines.protocol import BoolArray, Engine, IntArray, LogitRequest, TokenBatch
from neuroscope.engines.sites import Component
from neuroscope.errors import ArgumentError, CircuitError, DatasetError
from neuroscope.models.model import TransformerModel
from neuroscope.models.text import Texts
from neuroscope.remedies import MEASURED
from neuroscope.results import Result, plain
from neuroscope.tasks import registry
from neuroscope.tasks.dataset import Dataset, Example
from neuroscope.tasks.draw import Draw, remaining
from neuroscope.tasks.pairs import make_pairs
from neuroscope.tasks.statistics import Estimate, rate, wilson
from neuroscope.vocabulary import public, python_only

#: Items drawn per requested one: most share an entity with those that chose the circuit.
_DRAWN = 60
ASPECTS = ("functional", "performance", "interpretability", "safety")


@public
@dataclass(frozen=True)
class QualityScore(Result):
    """A score from 0 to 1 with its evidence."""

    aspect: str
    score: float
    evidence: dict[str, Any]

    def print_string(self) -> str:
        return f"a QualityScore({self.aspect}: {self.score:.2f})"

    def summary(self) -> str:
        return "\n".join(
            [f"{self.aspect:<18}{self.score:.2f}", *(f"    {name:<38}{_shown(value)}" for name, value in self.evidence.items())]
        )


@public
class QualityReport(Result):
    """The four scores and the overall one."""

    functional: QualityScore | None = None
    performance: QualityScore | None = None
    interpretability: QualityScore | None = None
    safety: QualityScore | None = None
    overall_score: float | None = None

    def print_string(self) -> str:
        return "a QualityReport" if self.overall_score is None else f"a QualityReport(overall {self.overall_score:.2f})"

    def summary(self) -> str:
        parts = [part for name in ASPECTS if (part := getattr(self, name)) is not None]
        overall = "not calculated" if self.overall_score is None else f"{self.overall_score:.2f}"
        return "\n".join([*(part.summary() for part in parts), f"{'overall':<18}{overall}"])

    def as_dictionary(self) -> dict[str, Any]:
        return {**{name: plain(getattr(self, name)) for name in ASPECTS}, "overallScore": self.overall_score}


@public
class CircuitQualityAssurance:
    """Tests one circuit. items: number of new items in a test; seeds: number of other seeds for stability."""

    def __init__(
        self,
        circuit: Circuit | None = None,
        *,
        items: int = 40,
        seeds: int = 2,
        controls: int = 5,
        seed: int | None = None,
    ) -> None:
        if items < 4 or seeds < 1 or controls < 1:
            raise ArgumentError("Quality assurance needs at least 4 items, 1 other seed and 1 control.")
        self.items: int = items
        self.seeds: int = seeds
        self.controls: int = controls
        self.seed: int = settings.seed(seed)
        self.examples: Dataset | Sequence[Example] | None = None
        self._circuit: Circuit | None = None
        self._scores: dict[str, QualityScore] = {}
        if circuit is not None:
            self.circuit = circuit

    @property
    def circuit(self) -> Circuit:
        if self._circuit is None:
            raise CircuitError("There is no circuit to assure.", remedy="Set it first: qa circuit: aCircuit")
        return self._circuit

    @circuit.setter
    def circuit(self, circuit: Circuit) -> None:
        circuit = as_circuit(circuit, "Quality assurance")
        if not circuit.exists:
            raise CircuitError(f"There is no circuit for {circuit.task} to assure: {circuit.reason}.")
        self._circuit, self._scores = circuit, {}

    def test_functionality(self) -> QualityScore:
        """Faithfulness on held-out pairs and on new items, and its share of the items that the whole model has right."""
        circuit, model = self.circuit, self.circuit.model
        pairs = make_pairs(model, self._fresh(), circuit.pairs.metric.asked)
        evaluation = CircuitEvaluation(model.engine, pairs, ablation=circuit.ablation, seed=self.seed)
        metric = evaluation.metric(circuit.mask)
        again = normalised(metric, evaluation.empty, evaluation.clean, units=pairs.units)
        right = evaluation.clean > 0
        if not right.any():
            raise CircuitError(f"{model.title} answers no item of {circuit.task} correctly.", remedy=MEASURED)
        kept = rate(metric[right] > 0, [pairs.units[at] for at in np.flatnonzero(right)] if pairs.units else None)
        parts = [_closeness(circuit.held_out_faithfulness), _closeness(again), kept.value]
        return self._scored(
            "functional",
            parts,
            {
                "faithfulness on held-out pairs": circuit.held_out_faithfulness,
                "faithfulness on fresh items": again,
                "right items kept": kept,
                "random circuits": circuit.random_circuit_faithfulness,
            },
        )

    def benchmark_performance(self) -> QualityScore:
        """The weights it needs, and its latency compiled, compared with the whole model."""
        circuit, model = self.circuit, self.circuit.model
        weights = _weight_share(circuit)
        compiled = self._compiled(circuit.mask)
        latency, whole = (_seconds(engine, circuit) for engine in (compiled, model.engine))
        return self._scored(
            "performance",
            [1 - weights],
            {
                "share of block weights used": weights,
                "seconds a batch, compiled circuit": latency,
                "seconds a batch, whole model": whole,
                "share of edges": circuit.fraction_of_edges,
            },
        )

    def validate_interpretability(self) -> QualityScore:
        """Roles of its heads, minimality, and the same nodes under other seeds."""
        circuit = self.circuit
        explained = {str(role.head) for role in circuit.roles}
        heads = circuit.heads
        roles = wilson(len(explained & set(heads)), len(heads)) if heads else None
        overlap, chance = self._stability()
        parts = [circuit.minimality.value, overlap, *([] if roles is None else [roles.value])]
        return self._scored(
            "interpretability",
            parts,
            {
                "heads with a measured role": roles,
                "minimality": circuit.minimality,
                "overlap of nodes under other seeds": overlap,
                "overlap by chance": chance,
            },
        )

    def test_safety(self) -> QualityScore:
        """Refusals with the circuit removed, compared with the whole model and random removals."""
        circuit, model = self.circuit, self.circuit.model
        graph = circuit.graph
        random = np.random.default_rng(self.seed)
        try:
            asked, tokens = self._harmful()
            whole = self._refusals(model.engine, asked, tokens)
            without = self._refusals(self._compiled(graph.valid & ~circuit.mask), asked, tokens)
            others = [
                self._refusals(
                    self._compiled(graph.valid & ~connected_random(graph, circuit.edge_count, random)), asked, tokens
                )
                for _ in range(self.controls)
            ]
        except DatasetError as error:
            raise CircuitError(f"Refusals cannot be measured on {model.title}: {error.message}") from error
        return self._scored(
            "safety",
            [without.value],
            {
                "harmful requests, refusal preferred": whole,
                "with the circuit removed": without,
                "with random circuits removed": float(np.mean([other.value for other in others])),
            },
        )

    def calculate_overall_score(self) -> float:
        """The mean of the four scores; measures those that are missing."""
        for aspect, measure in zip(
            ASPECTS,
            (self.test_functionality, self.benchmark_performance, self.validate_interpretability, self.test_safety),
            strict=True,
        ):
            if aspect not in self._scores:
                measure()
        return float(np.mean([self._scores[aspect].score for aspect in ASPECTS]))

    @python_only
    def score(self, aspect: str) -> QualityScore:
        """A score that was measured."""
        return self._scores[aspect]

    # --- measuring --------------------------------------------------------------------------------------------------

    def _scored(self, aspect: str, parts: Sequence[float], evidence: dict[str, Any]) -> QualityScore:
        found = QualityScore(aspect, float(np.clip(np.mean(parts), 0, 1)), evidence)
        self._scores[aspect] = found
        return found

    def _fresh(self) -> list[Any]:
        """New items without a unit in common with those that chose the circuit."""
        circuit, model = self.circuit, self.circuit.model
        if self.examples is not None:
            given = self.examples
            return list(given.for_model(model, n=self.items)) if isinstance(given, Dataset) else list(given)
        task, random = registry.get(circuit.task), np.random.default_rng(self.seed + 1)
        draw = Draw(random, remaining(lambda one: task.examples(one, "test"), circuit.chosen_by))
        drawn = draw.taken(task.examples(draw, "test"), _DRAWN * self.items)
        fresh = list({one.clean: one for one in drawn if circuit.chosen_by.isdisjoint(one.units)}.values())
        if fresh:
            fresh = list(Dataset(fresh, task=circuit.task).for_model(model))[: self.items]
        if len(fresh) < 2:
            raise CircuitError(
                f"All {len(drawn)} new items of {circuit.task} share something with those that chose the circuit.",
                remedy="Give your own items: qa examples: aDataset",
            )
        return fresh

    def _compiled(self, mask: BoolArray) -> Engine:
        circuit = self.circuit
        engine = CircuitEngine(circuit.model.engine, mask, circuit.means, circuit.pairs.clean.take(slice(0, 2)))
        return cast(Engine, engine)

    def _stability(self) -> tuple[float, float]:
        """Mean Jaccard overlap of the circuit's nodes with those of equally many best edges under other seeds; and chance."""
        circuit, model = self.circuit, self.circuit.model
        mine = set(circuit.graph.nodes(circuit.mask))
        weight = next((point.negative_weight for point in circuit.curve if point.edges == circuit.edge_count), 1.0)
        everything, overlaps, chances = circuit.graph.sources - 1, [], []
        with events.progress("finding again with other seeds", total=self.seeds, unit="seeds") as job:
            for step in range(1, self.seeds + 1):
                finder = CircuitFinder(
                    model,
                    method=circuit.method,
                    ablation=circuit.ablation,
                    metric=circuit.pairs.metric.asked,
                    seed=self.seed + step,
                )
                other = finder.of_size(circuit.task, self.examples, circuit.edge_count, weight)
                if other is None:
                    raise CircuitError(f"With seed {finder.seed} there is no circuit for {circuit.task}.")
                theirs = set(circuit.graph.nodes(other))
                overlaps.append(len(mine & theirs) / max(1, len(mine | theirs)))
                shared = len(mine) * len(theirs) / everything
                chances.append(shared / max(1.0, len(mine) + len(theirs) - shared))
                job.advance()
        return float(np.mean(overlaps)), float(np.mean(chances))

    def _harmful(self) -> tuple[TokenBatch, IntArray]:
        """Harmful requests as prompts, and the first tokens (rows, 2) of a refusal and of an answer to each."""
        model = self.circuit.model
        dataset = registry.get("harmful_requests").dataset(3 * self.items, seed=self.seed).for_model(model)
        harmful = [example for example in dataset if example.label != "harmless"][: self.items]
        prompts = [model.chat_prompt(example.clean) if model.has_chat_template else example.clean for example in harmful]
        texts = Texts(model.tokenizer)
        tokens = [
            [texts.answer_token(prompt, str(text)) for text in (example.answer, example.wrong)]
            for prompt, example in zip(prompts, harmful, strict=True)
        ]
        return model.encode(prompts, side="left"), np.array(tokens)

    def _refusals(self, engine: Engine, prompts: TokenBatch, tokens: IntArray) -> Estimate:
        """The share of prompts after which the first of its two tokens, a refusal's, is likelier than the second, an answer's."""
        whole = self.circuit.model
        model = TransformerModel(engine, whole.tokenizer, whole.name, whole.loaded_hash)
        refused = 0
        size = engine.rows_that_fit(prompts.positions)
        for first in range(0, prompts.rows, size):
            part, pairs = prompts.take(slice(first, first + size)), tokens[first : first + size]
            logits = engine.ops.to_numpy(model.run(part, logits=LogitRequest.last(part, pairs)).logits)
            refused += int((logits[:, 0] > logits[:, 1]).sum())
        return wilson(refused, prompts.rows)

    def print_string(self) -> str:
        return "a CircuitQualityAssurance"

    def __repr__(self) -> str:
        return self.print_string()


def _closeness(faithfulness: Estimate) -> float:
    return max(0.0, 1 - abs(1 - faithfulness.value))


def _weight_share(circuit: Circuit) -> float:
    """Weights of the circuit's heads and MLPs (for a mixture, all its experts) over those of all blocks."""
    anatomy = circuit.model.architecture
    head = anatomy.d_model * anatomy.d_head * 2 + 2 * anatomy.d_model * anatomy.d_head / anatomy.group
    matrices = 3 if architectures.find(anatomy.architecture).gated else 2
    mlp = matrices * anatomy.d_model * anatomy.neurons
    nodes = circuit.nodes
    used = sum(head if site.component is Component.HEAD_OUTPUT else mlp for site in nodes)
    return float(used / (anatomy.layers * (anatomy.heads * head + mlp)))


def _seconds(engine: Engine, circuit: Circuit) -> float:
    batch = circuit.pairs.clean
    found = []
    for _ in range(3):
        begun = time.perf_counter()
        engine.forward(batch, logits=LogitRequest.last(batch))
        found.append(time.perf_counter() - begun)
    return min(found)


def _shown(value: object) -> str:
    return "–" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)
