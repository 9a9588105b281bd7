"""Automated discovery: hypotheses about which edges do a task, each tested on held-out examples.

Strategies
    gradient                 the smallest prefixes of the edges, ranked by EAP-IG, that reach several levels of faithfulness
                             (`search`)
    greedy                   the results of greedy pruning at several thresholds (ACDC; Conmy et al. 2023)
    exhaustive_with_pruning  every node is patched exactly, in both directions; nodes with an effect that is not significant
                             (paired test over pairs, false discovery rate of 5 % among all nodes) or negligible are pruned; the
                             hypotheses are the circuits of the strongest 1, 2, 4 … of the rest with all edges among them

First the gap between clean and corrupt prompts is tested, on separate pairs; without a gap there are no hypotheses. A
hypothesis is valid if, on held-out pairs, its circuit reaches the target faithfulness (`search.reaches`) and is closer to the
model than connected random circuits of its size: a two-sided exchange test within pairs, with Bonferroni's correction for the
number of hypotheses. Scoring resumes from disk after an interruption.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from neuroscope import events, settings
from neuroscope.circuits.attribution import Scores, edge_scores
from neuroscope.circuits.circuit import Circuit
from neuroscope.circuits.controls import connected_random
from neuroscope.circuits.curve import closeness
from neuroscope.circuits.effect import Effect, exchange_test
from neuroscope.circuits.estimates import normalised
from neuroscope.circuits.finder import CircuitFinder, PairParts
from neuroscope.circuits.graph import Graph
from neuroscope.circuits.journal import Journal
from neuroscope.circuits.pruning import greedy_circuit
from neuroscope.circuits.search import reaches, smallest
from neuroscope.circuits.sweeps import sweep
from neuroscope.engines.protocol import BoolArray
from neuroscope.errors import ArgumentError, CircuitError
from neuroscope.models.model import TransformerModel
from neuroscope.names import only
from neuroscope.parallel.executors import Executor
from neuroscope.parallel.team import Team
from neuroscope.remedies import Remedy
from neuroscope.results import Result
from neuroscope.tasks import registry
from neuroscope.tasks.dataset import Dataset, Example
from neuroscope.tasks.pairs import PairBatch
from neuroscope.tasks.statistics import Estimate, ratio_of
from neuroscope.vocabulary import public, python_only

STRATEGIES = ("exhaustive_with_pruning", "greedy", "gradient")
#: Levels of faithfulness for which the strategy `gradient` proposes a circuit.
_TARGETS = (0.7, 0.85, 0.95)
_THRESHOLDS = (0.2, 0.1, 0.05, 0.02)
_BATCH = 32
_CONTROLS = 10
#: Smallest share of the effect of a node that is not pruned.
_LEAST_EFFECT = 0.005
_FALSE_DISCOVERIES = 0.05


@public
@dataclass(frozen=True)
class Hypothesis(Result):
    """A set of edges that may do the task. `description` says how it was generated."""

    description: str
    strategy: str
    size: int
    nodes: list[str]
    _mask: BoolArray = field(repr=False)
    _scores: Scores = field(repr=False)

    @property
    @python_only
    def mask(self) -> BoolArray:
        """(receivers, sources)"""
        return self._mask

    def print_string(self) -> str:
        return f"a Hypothesis({self.description}: {self.size} edges)"


@public
@dataclass(frozen=True)
class HypothesisTest(Result):
    """The test of a hypothesis on held-out pairs.

    effect: how much closer to the model its circuit is, pair by pair, than connected random circuits of its size, as a share of
    the gap. p_value: of the effect, paired and two-sided, times the number of `hypotheses` (Bonferroni).
    """

    hypothesis: Hypothesis
    is_valid: bool
    p_value: float
    effect: Estimate
    faithfulness: Estimate
    closeness: float
    random_faithfulness: float
    size: int
    hypotheses: int

    @property
    def verdict(self) -> str:
        """Valid or not, with the test's p."""
        valid = "valid" if self.is_valid else "not valid"
        return f"{self.hypothesis.description}: {valid}, p = {self.p_value:.2g} of {self.hypotheses} hypotheses"

    def summary(self) -> str:
        return (
            f"{self.verdict}; {self.size} edges, faithfulness {self.faithfulness}, closeness {self.closeness:.3f}, "
            f"random {self.random_faithfulness:.3f}"
        )

    def print_string(self) -> str:
        return f"a HypothesisTest({'valid' if self.is_valid else 'not valid'}: {self.hypothesis.description})"


@public
class CircuitDiscovery:
    """Finds circuits for a capability by generating hypotheses and testing them.

    model, target_capability and search_strategy are set before `generateHypotheses`. pairs: number of examples, a third of them
    held out for the tests. target: faithfulness to reach. alpha: the level of the test. executor: who scores edges, patches nodes and measures
    circuits, if not this thread (`parallel`).
    """

    def __init__(
        self,
        *,
        pairs: int = 60,
        target: float = 0.85,
        alpha: float = 0.05,
        seed: int | None = None,
        executor: Executor | None = None,
    ) -> None:
        if not 0 < alpha < 1:
            raise ArgumentError(f"The level of a test must be between 0 and 1, not {alpha}.")
        self.pairs: int = pairs
        self.target: float = target
        self.alpha: float = alpha
        self.seed: int = settings.seed(seed)
        self._executor = executor
        self._model: TransformerModel | None = None
        self._capability: str | None = None
        self._strategy = STRATEGIES[0]
        self._examples: Dataset | Sequence[Example] | None = None
        self._split: PairParts | None = None
        self._hypotheses: list[Hypothesis] = []
        self._using: CircuitFinder | None = None
        self._tests: dict[bytes, HypothesisTest] = {}

    @property
    def model(self) -> TransformerModel:
        if self._model is None:
            raise CircuitError("The discovery has no model.", remedy="Set it first: discovery model: aModel")
        return self._model

    @model.setter
    def model(self, model: TransformerModel) -> None:
        if not isinstance(model, TransformerModel):
            raise ArgumentError(f"A discovery needs a TransformerModel, not {model!r}.")
        self._model = model
        self._forget()

    @property
    def target_capability(self) -> str:
        """The task's name; any spelling of a task that `neuroscope tasks` lists."""
        if self._capability is None:
            raise CircuitError(
                "The discovery has no capability.",
                remedy=Remedy(
                    "Set it first: discovery.target_capability = 'addition'",
                    smalltalk="Set it first: discovery targetCapability: #addition",
                ),
            )
        return self._capability

    @target_capability.setter
    def target_capability(self, capability: str) -> None:
        self._capability = registry.get(capability).name
        self._forget()

    @property
    def search_strategy(self) -> str:
        return self._strategy

    @search_strategy.setter
    def search_strategy(self, strategy: str) -> None:
        self._strategy = only("search strategy", STRATEGIES, listing="Strategies")[strategy]
        self._forget()

    @property
    def effect(self) -> Effect:
        """The test of the gap between clean and corrupt prompts, on separate pairs, then on held-out ones."""
        return self._finder().effect_of(self._parts())

    @property
    def examples(self) -> Dataset | Sequence[Any] | None:
        """Examples to use instead of the task's."""
        return self._examples

    @examples.setter
    def examples(self, examples: Dataset | Sequence[Example]) -> None:
        self._examples = examples
        self._forget()

    def generate_hypotheses(self) -> list[Hypothesis]:
        """Hypotheses by the chosen strategy, smallest first; without an effect none, and a notice.

        Resumes an interrupted run from disk.
        """
        self._hypotheses, self._tests = [], {}
        effect = self.effect
        if not effect.exists:
            events.notice(f"There is no circuit for {self.target_capability} in {self.model.title}: {effect.reason}.")
            return []
        finding = self._parts().finding
        journal = Journal("discovery", self._identity(finding))
        scores = journaled_scores(self._finder(), finding, journal, self._team)
        masks = {"gradient": self._by_gradient, "greedy": self._by_pruning, "exhaustive_with_pruning": self._by_nodes}[
            self._strategy
        ](finding, scores, journal)
        graph = Graph.of(self.model.architecture)
        found: dict[bytes, Hypothesis] = {}
        for description, mask in masks:
            pruned = graph.pruned(mask)
            if pruned.any():
                nodes = [str(graph.source_site(node)) for node in graph.nodes(pruned)]
                one = Hypothesis(description, self._strategy, int(pruned.sum()), nodes, pruned, scores)
                found.setdefault(pruned.tobytes(), one)
        self._hypotheses = sorted(found.values(), key=lambda hypothesis: hypothesis.size)
        journal.forget()
        return list(self._hypotheses)

    def test_hypothesis(self, hypothesis: Hypothesis) -> HypothesisTest:
        """Measure a hypothesis and random circuits of its size on the held-out pairs."""
        if not isinstance(hypothesis, Hypothesis):
            raise ArgumentError(f"Only hypotheses can be tested, not {hypothesis!r}.", remedy="generateHypotheses makes them.")
        key = hypothesis.mask.tobytes()
        if key in self._tests:
            return self._tests[key]
        evaluation = self._finder().evaluation(self._parts().judging)
        graph, units = evaluation.graph, evaluation.pairs.units
        random = np.random.default_rng(self.seed)
        controls = [connected_random(graph, hypothesis.size, random) for _ in range(_CONTROLS)]
        metric, *others = evaluation.metrics([hypothesis.mask, *controls])
        distances = np.mean([np.abs(other - evaluation.clean) for other in others], axis=0)
        closer = distances - np.abs(metric - evaluation.clean)
        tested = max(1, len(self._hypotheses))
        p_value = min(1.0, tested * exchange_test(closer))
        faithfulness = normalised(metric, evaluation.empty, evaluation.clean, units=units)
        near = closeness(evaluation, metric)
        self._tests[key] = HypothesisTest(
            hypothesis=hypothesis,
            is_valid=bool(p_value < self.alpha and closer.mean() > 0 and reaches(faithfulness.value, near, self.target)),
            p_value=p_value,
            effect=ratio_of(closer, evaluation.clean - evaluation.empty, units or None),
            faithfulness=faithfulness,
            closeness=near,
            random_faithfulness=normalised(np.mean(others, axis=0), evaluation.empty, evaluation.clean, units=units).value,
            size=hypothesis.size,
            hypotheses=tested,
        )
        return self._tests[key]

    def extract_circuit(self, hypothesis: Hypothesis) -> Circuit:
        """The hypothesis as a circuit, judged like any other; a failed test is among its doubts."""
        test = self.test_hypothesis(hypothesis)
        circuit = self._finder().judge(self.target_capability, hypothesis.mask, hypothesis._scores, self._parts())
        verdict = (
            [] if test.is_valid else [f"as a hypothesis it is not valid (p = {test.p_value:.2g}, {test.hypotheses} tested)"]
        )
        return dataclasses.replace(circuit, doubts=[*verdict, *circuit.doubts], test=test)

    # --- strategies -----------------------------------------------------------------------------------------------

    def _by_gradient(self, finding: PairBatch, scores: Scores, journal: Journal) -> list[tuple[str, BoolArray]]:
        evaluation = self._finder().evaluation(finding)
        targets = sorted({*_TARGETS, self.target})
        return [(f"the smallest that reaches {target:.0%}", smallest(evaluation, scores, target)[0]) for target in targets]

    def _by_pruning(self, finding: PairBatch, scores: Scores, journal: Journal) -> list[tuple[str, BoolArray]]:
        evaluation = self._finder().evaluation(finding)
        found = []
        for threshold in _THRESHOLDS:
            stage = f"greedy-{threshold}"
            done, arrays = journal.load(stage)
            if not done:
                arrays = {"mask": greedy_circuit(evaluation, threshold)}
                journal.save(stage, 1, arrays)
            found.append((f"pruned greedily at {threshold:.0%}", arrays["mask"]))
        return found

    def _by_nodes(self, finding: PairBatch, scores: Scores, journal: Journal) -> list[tuple[str, BoolArray]]:
        graph = Graph.of(self.model.architecture)
        effects, p_values = journaled_node_effects(self._finder(), finding, journal, self._team)
        q_values = stats.false_discovery_control(p_values[:, 1:], axis=None, method="bh")  # the embedding is no candidate
        certain = np.abs(effects) > _LEAST_EFFECT
        certain[:, 1:] &= q_values.reshape(2, -1) < _FALSE_DISCOVERIES
        strength = np.where(certain, np.abs(effects), 0.0).max(0)
        order = [int(node) for node in np.argsort(-strength, kind="stable") if strength[node] > 0 and node != 0]
        counts = sorted({min(2**power, len(order)) for power in range(len(order).bit_length() + 1)} - {0})
        found = []
        for count in counts:
            kept = np.zeros(graph.sources, dtype=np.bool_)
            kept[[0, *order[:count]]] = True
            read = np.zeros(graph.receivers, dtype=np.bool_)
            read[graph.logits] = True
            read[[int(receiver) for node in order[:count] for receiver in graph.node_receivers(node)]] = True
            found.append((f"the {count} strongest of {len(order)} nodes with an effect", graph.valid & kept & read[:, None]))
        return found

    # --- what is shared -------------------------------------------------------------------------------------------

    def _finder(self) -> CircuitFinder:
        """One finder, so that the clean and corrupt runs are reused."""
        if self._using is None:
            self._using = CircuitFinder(self.model, pairs=self.pairs, seed=self.seed, executor=self._executor)
        self._using.target = self.target
        return self._using

    @property
    def _team(self) -> Team | None:
        return Team.of(self.model, self._executor)

    def _parts(self) -> PairParts:
        if self._split is None:
            self._split = self._finder().pairs_of(self.target_capability, self._examples)[1]
        return self._split

    def _identity(self, finding: PairBatch) -> dict[str, Any]:
        return {
            "weights": self.model.weights_hash,
            "precision": self.model.precision,
            "task": self.target_capability,
            "strategy": self._strategy,
            "shared": self._team is not None,
            "seed": self.seed,
            "clean": finding.clean.ids.tolist(),
            "corrupt": finding.corrupt.ids.tolist(),
        }

    def _forget(self) -> None:
        self._split = self._using = None
        self._hypotheses, self._tests = [], {}

    def print_string(self) -> str:
        return f"a CircuitDiscovery({self._capability or 'no capability yet'}, {self._strategy})"

    def __repr__(self) -> str:
        return self.print_string()


def journaled_scores(finder: CircuitFinder, pairs: PairBatch, journal: Journal, team: Team | None = None) -> Scores:
    """EAP-IG scores, with sums that are kept on disk batch by batch."""
    runs = () if team is not None else finder.evaluation(pairs).runs_of()
    return edge_scores(finder.model.engine, pairs, method="eap_ig", runs=runs, team=team, journal=journal)


def journaled_node_effects(
    finder: CircuitFinder, pairs: PairBatch, journal: Journal, team: Team | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Recovery and damage of every node (2, sources) as shares of the mean gap, with two-sided p-values over pairs."""
    graph = Graph.of(finder.model.architecture)
    sites = [graph.source_site(source) for source in range(1, graph.sources)]
    done, arrays = journal.load("nodes")
    rows = arrays.get("rows", np.zeros((2, graph.sources, 0)))
    gaps = arrays.get("gaps", np.zeros(0))
    with events.progress("patching nodes", total=pairs.rows, unit="pairs") as job:
        if done:
            job.advance(done)
        for first in range(done, pairs.rows, _BATCH):
            for runs in finder.evaluation(pairs).runs_of(slice(first, first + _BATCH)):
                up = sweep(runs, runs.corrupt, runs.clean, sites, name="denoising nodes", team=team) - runs.corrupt.metric
                down = runs.clean.metric - sweep(runs, runs.clean, runs.corrupt, sites, name="noising nodes", team=team)
                both = np.zeros((2, graph.sources, runs.rows))
                both[:, 1:] = up, down
                rows, gaps = np.concatenate([rows, both], 2), np.concatenate([gaps, runs.clean.metric - runs.corrupt.metric])
                job.advance(runs.rows)
            journal.save("nodes", len(gaps), {"rows": rows, "gaps": gaps})
    p_values = np.ones(rows.shape[:2])
    p_values[:, 1:] = np.nan_to_num(stats.ttest_1samp(rows[:, 1:], 0, axis=2).pvalue, nan=1.0)  # nodes without any effect
    return rows.mean(2) / float(gaps.mean()), p_values
