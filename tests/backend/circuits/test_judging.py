"""What is said of a circuit on held-out pairs: on the circuit set by hand, and on a model whose edges simply add up."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from neuroscope.circuits import judging
from neuroscope.circuits.evaluation import CircuitEvaluation
from neuroscope.circuits.graph import Graph
from neuroscope.engines.protocol import BoolArray
from neuroscope.engines.sites import Site
from neuroscope.tasks.statistics import Estimate
from tests.backend.circuits.handmade import induction_model, induction_pairs

CIRCUIT = (("embedding", "0.value[0]"), ("0.headOutput[0]", "1.key[0]"), ("1.headOutput[0]", "logits"))


@pytest.fixture(scope="module")
def evaluation() -> CircuitEvaluation:
    return CircuitEvaluation(induction_model(distractor=True), induction_pairs(12))


def mask_of(graph: Graph, edges: tuple[tuple[str, str], ...]) -> BoolArray:
    mask = np.zeros_like(graph.valid)
    for source, receiver in edges:
        mask[graph.receiver_of(Site.parse(receiver)), graph.source_of(Site.parse(source))] = True
    return mask


def test_the_circuit_set_by_hand_loses_with_its_nodes_what_the_model_loses(evaluation: CircuitEvaluation) -> None:
    found = judging.completeness(evaluation, mask_of(evaluation.graph, CIRCUIT), seed=0)
    assert found.typical.value == pytest.approx(1, abs=1e-3)
    assert found.worst == pytest.approx(1, abs=1e-3)


def test_a_circuit_that_does_nothing_is_not_complete(evaluation: CircuitEvaluation) -> None:
    found = judging.completeness(evaluation, mask_of(evaluation.graph, (("embedding", "0.mlpInput"),)), seed=0)
    assert found.typical.value == pytest.approx(0, abs=1e-3)
    assert found.worst == pytest.approx(0, abs=1e-3)


def test_half_of_a_circuit_is_less_complete_than_the_whole(evaluation: CircuitEvaluation) -> None:
    half = mask_of(evaluation.graph, CIRCUIT[:2])
    assert judging.completeness(evaluation, half, seed=0).worst < 0.1


def test_a_circuit_is_as_close_as_its_worst_pairs_make_it() -> None:
    evaluation = additive({}, rows=4)
    evaluation.metric = lambda mask: np.array([2.0, 0.0, 2.0, 0.0])  # faithful on average, on no pair
    evaluation.clean, evaluation.empty = np.ones(4), np.zeros(4)
    assert judging.held_out_closeness(evaluation, evaluation.graph.valid).value == pytest.approx(0)


def additive(costs: dict[tuple[int, int], float], *, rows: int = 20, noise: float = 0.0) -> Any:
    """A stand-in for a evaluation model whose metric is the sum of its edges' costs, the same on every pair but for noise."""
    graph = Graph(layers=2, heads=2, key_value_heads=2, parallel=False)
    weights = np.zeros(graph.valid.shape)
    for edge, cost in costs.items():
        weights[edge] = cost
    random = np.random.default_rng(0)

    def metric(mask: BoolArray) -> Any:
        return np.full(rows, (weights * mask).sum())

    def removals(mask: BoolArray, edges: Any) -> Any:
        return np.stack([metric(mask) - weights[e.receiver, e.source] + noise * random.standard_normal(rows) for e in edges])

    pairs = SimpleNamespace(units=())
    return SimpleNamespace(
        graph=graph, metric=metric, removals=removals, pairs=pairs, clean=metric(graph.valid), empty=np.zeros(rows)
    )


def test_edges_that_cost_less_than_a_hundredth_of_the_gap_are_not_needed() -> None:
    graph = Graph(layers=2, heads=2, key_value_heads=2, parallel=False)
    edges = [(int(receiver), int(source)) for receiver, source in np.argwhere(graph.valid)[:4]]
    evaluation = additive(dict(zip(edges, (0.9, 0.08, 0.011, 0.009), strict=True)))
    mask = np.zeros_like(graph.valid)
    mask[tuple(np.array(edges).T)] = True
    assert judging.minimality(evaluation, mask, 40, seed=0).value == 0.75


def test_noise_makes_no_edge_needed() -> None:
    graph = Graph(layers=2, heads=2, key_value_heads=2, parallel=False)
    edges = [(int(receiver), int(source)) for receiver, source in np.argwhere(graph.valid)]
    evaluation = additive({edges[0]: 1.0}, noise=0.5)
    found = judging.minimality(evaluation, graph.valid, len(edges), seed=0)
    assert round(found.value * found.n) <= 4  # the one that is, and a 0.025 of the rest


def test_what_speaks_against_a_circuit_is_said() -> None:
    good = Estimate(0.9, 0.8, 1.0, 20)
    control = judging.Control("rewired", good, good, Estimate(0.0, 0.0, 0.2, 20))

    def doubts(**changed: Any) -> list[str]:
        figures: dict[str, Any] = {"held_out": good, "closeness": good, "share": 0.01, "target": 0.85, "controls": [control]}
        return judging.doubts(**{**figures, **changed})

    assert doubts() == []
    assert "held-out pairs" in doubts(held_out=Estimate(1.46, 1.4, 1.5, 20))[0]
    assert "held-out pairs" in doubts(held_out=Estimate(0.3, 0.1, 0.5, 20))[0]
    assert "pair by pair" in doubts(closeness=Estimate(0.2, 0.1, 0.3, 20))[0]
    assert "26% of all edges" in doubts(share=0.26)[0]
    near = judging.Control("rewired", good, good, Estimate(0.3, 0.1, 0.5, 20))
    assert "30% of rewired" in doubts(controls=[near])[0]
