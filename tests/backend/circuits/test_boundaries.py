"""Where conclusions about circuits turn, and what their figures are made of, with figures set by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from neuroscope.circuits import (
    attribution,
    comparison,
    composition,
    effect,
    judging,
    maps,
    quality,
    roles,
    storage,
)
from neuroscope.circuits.curve import SIZES, closeness, curve_points, measured, prefix, ranked
from neuroscope.circuits.estimates import mean, normalised
from neuroscope.circuits.evaluation import CircuitEvaluation
from neuroscope.circuits.graph import Graph
from neuroscope.circuits.pruning import greedy_circuit
from neuroscope.circuits.roles import Role
from neuroscope.engines.sites import Component, Site
from neuroscope.errors import ArgumentError, CircuitError, DatasetError
from neuroscope.tasks.statistics import Estimate, mean_of, ratio_of, wilson
from tests import tiny


@pytest.fixture(scope="module")
def graph() -> Graph:
    return Graph.of(tiny.engine("gpt2").anatomy)


class Additive:
    """An evaluation in which each edge adds its weight to the metric, with some noise for each pair, and nothing else does."""

    def __init__(self, graph: Graph, weights: np.ndarray, *, rows: int = 9, noise: float = 0.0) -> None:
        self.graph, self.weights = graph, weights
        self.pairs = SimpleNamespace(units=())
        self.noise = noise * np.random.default_rng(0).normal(size=rows)
        self.empty, self.clean = self.noise * 0, self.metric(graph.valid)
        self.asked: list[list[list[int]]] = []

    def metric(self, mask: np.ndarray) -> np.ndarray:
        return float(self.weights[mask].sum()) + self.noise

    def metrics(self, masks: Any) -> np.ndarray:
        return np.stack([self.metric(mask) for mask in masks])

    def removals(self, mask: np.ndarray, removed: Any) -> np.ndarray:
        found = []
        for one in removed:
            left = mask.copy()
            left[one.receiver, one.source] = False
            found.append(self.metric(left))
        return np.stack(found)

    def without(self, subsets: Any) -> np.ndarray:
        self.asked.append([list(each) for each in subsets])
        return self.metrics([self.graph.valid & ~np.isin(np.arange(self.graph.sources), each)[None] for each in subsets])


def weights_of(graph: Graph, seed: int = 0) -> np.ndarray:
    found = np.random.default_rng(seed).random(graph.valid.shape) * graph.valid
    return np.asarray(found / found.sum())


def test_completeness_takes_the_same_nodes_from_both(graph: Graph) -> None:
    weights = weights_of(graph)
    evaluation: Any = Additive(graph, weights)
    whole = judging.completeness(evaluation, graph.valid, seed=0)
    assert (whole.typical.value, whole.worst) == pytest.approx((1, 1))
    mask = graph.valid.copy()
    mask[:, [3, 7]] = False
    evaluation = Additive(graph, 2 * weights)
    found = judging.completeness(evaluation, mask, seed=1)
    sampled, *grown = evaluation.asked

    def far(removed: list[int]) -> float:
        kept = ~np.isin(np.arange(graph.sources), removed)[None]
        return float(abs(weights[mask & kept].sum() - weights[graph.valid & kept].sum()))

    assert (sampled[0], len(sampled)) == ([], 6)
    expected = mean_of(1 - np.array([far(each) for each in sampled]))
    assert (found.typical.value, found.typical.low) == pytest.approx((expected.value, expected.low))
    nodes = set(graph.nodes(mask)) - {0, graph.mlp(0)}
    assert all(set(each) <= nodes for each in sampled)
    # Every node is drawn about half of the time.
    assert 0.3 < np.mean([len(each) / len(nodes) for each in sampled[1:]]) < 0.7
    assert [[len(each) for each in step] for step in grown] == [[1] * 3, [2] * 3]
    best = max(grown[0], key=far)
    assert all(each[0] == best[0] and each[1] != best[0] for each in grown[1])
    assert found.worst == pytest.approx(1 - max(far(each) for each in [*sampled, *grown[0], *grown[1]]))
    alone = graph.valid & np.isin(np.arange(graph.sources), [0, graph.mlp(0)])[None]
    evaluation = Additive(graph, weights)
    judging.completeness(evaluation, alone, seed=0)
    assert evaluation.asked == [[[]]]


def test_edges_are_needed_that_cost_more_than_a_hundredth_and_their_error(graph: Graph) -> None:
    mask = np.zeros_like(graph.valid)
    places = np.argwhere(graph.valid)[:4]
    mask[tuple(places.T)] = True
    falls = np.array([[0.02] * 9, [0.009] * 9, [0.5, -0.4] * 4 + [0.1], [-0.3] * 9]) + np.linspace(0, 1e-4, 9)
    evaluation: Any = SimpleNamespace(
        metric=lambda mask: np.ones(9),
        removals=lambda mask, removed: 1 - falls[[places.tolist().index([one.receiver, one.source]) for one in removed]],
        clean=np.full(9, 1.5),
        empty=np.full(9, 0.5),
        pairs=SimpleNamespace(units=()),
    )
    assert judging.minimality(evaluation, mask, 4, seed=0) == wilson(1, 4)
    assert judging.minimality(evaluation, mask, 3, seed=0).n == 3
    evaluation.clean = np.full(9, 1.4)
    assert judging.minimality(evaluation, mask, 9, seed=0) == wilson(2, 4)


def test_held_out_closeness_counts_each_pairs_distance() -> None:
    clean, empty, metric = np.array([1.0, 3, 2, 4]), np.array([0.0, 1, 1, 0]), np.array([1.5, 2, 2, 3.8])
    evaluation: Any = SimpleNamespace(clean=clean, empty=empty, metric=lambda mask: metric, pairs=SimpleNamespace(units=()))
    assert closeness(evaluation, metric) == pytest.approx(1 - 1.7 / 8)
    far = ratio_of(np.abs(metric - clean), np.abs(clean - empty))
    found = judging.held_out_closeness(evaluation, np.ones((1, 1), dtype=bool))
    assert found == pytest.approx(Estimate(1 - far.value, 1 - far.high, 1 - far.low, 4))
    assert normalised(metric, empty, clean).value == pytest.approx((metric - empty).mean() / (clean - empty).mean())
    assert mean(metric) == mean_of(metric)
    with pytest.raises(CircuitError, match="no effect to explain"):
        normalised(metric, clean, clean + 1e-10)


def test_a_doubt_begins_beyond_each_limit() -> None:
    good, target = Estimate(0.9, 0.85, 1.0, 20), 0.875
    tight = Estimate(0.95, 0.9, 1.0, 20)
    control = judging.Control("rewired", good, good, Estimate(0.05, 0.0, 0.2, 20))

    def doubts(**changed: Any) -> int:
        figures: dict[str, Any] = {"held_out": good, "closeness": good, "share": 0.25, "target": target, "controls": [control]}
        return len(judging.doubts(**{**figures, **changed}))

    assert doubts() == 0
    for held_out, count in (
        (Estimate(1.2, 1.125, 1.5, 20), 0),
        (Estimate(1.2, 1.13, 1.5, 20), 1),
        (Estimate(0.8, 0.5, 0.875, 20), 0),
        (Estimate(0.8, 0.5, 0.87, 20), 1),
        (Estimate(1.25, 0.5, 1.5, 20), 0),
        (Estimate(1.26, 0.5, 1.5, 20), 1),
        (Estimate(0.74, 0.5, 1.5, 20), 1),
    ):
        assert doubts(held_out=held_out) == count, held_out
    assert doubts(closeness=Estimate(0.5, 0.4, 0.6, 20)) == 0
    assert doubts(closeness=Estimate(0.49, 0.4, 0.6, 20)) == 1
    assert doubts(share=0.251) == 1
    near = judging.Control("rewired", tight, tight, Estimate(0.051, 0.0, 0.2, 20))
    assert doubts(controls=[near, control, near]) == 2


def test_controls_are_measured_as_the_circuit_is(graph: Graph) -> None:
    weights = weights_of(graph, 3)
    evaluation: Any = Additive(graph, weights)
    mask = graph.pruned(graph.valid & (weights > np.quantile(weights[graph.valid], 0.7)))
    found = judging.controls(evaluation, mask, 6, seed=2)
    assert [each.kind for each in found] == ["connected", "rewired", "degrees"]
    mine = weights[mask].sum()
    for number, each in enumerate(found):
        random = np.random.default_rng([2, number])
        draw = judging.CONTROLS[each.kind]
        drawn = [weights[other].sum() for _ in range(6) if (other := draw(graph, mask, random)) is not None]
        assert each.faithfulness.value == pytest.approx(np.mean(drawn), abs=1e-3)
        assert each.faithfulness.n == each.closeness.n == each.as_close.n == 6
        assert each.as_close.value == np.mean(np.array(drawn) >= mine)
    assert judging.controls(evaluation, graph.valid, 3, seed=2) == []


def test_an_order_counts_negative_scores_by_their_weight(graph: Graph) -> None:
    scores = np.where(graph.valid, np.random.default_rng(1).normal(size=graph.valid.shape), 99)
    flat = scores.reshape(-1)
    assert set(ranked(graph, scores, 1.0)) == set(np.flatnonzero(graph.valid))
    assert np.all(np.diff(np.abs(flat[ranked(graph, scores, 1.0)])) <= 0)
    assert np.all(np.diff(flat[ranked(graph, scores, 0.0)]) <= 0)
    half = flat[ranked(graph, scores, 0.5)]
    assert np.all(np.diff(np.where(half > 0, half, -half / 2)) <= 0)
    mask = prefix(graph, ranked(graph, scores, 0.0), 3)
    assert mask.shape == graph.valid.shape
    assert sorted(scores[mask], reverse=True) == pytest.approx(sorted(scores[graph.valid], reverse=True)[:3])


def test_a_point_is_the_pruned_circuit_of_the_best_edges(graph: Graph) -> None:
    weights = weights_of(graph)
    evaluation: Any = Additive(graph, weights, noise=1e-3)
    order = ranked(graph, weights, 0.0)
    (mask, point), (_, all_edges) = measured(evaluation, order, [40, graph.edges], 0.5)
    assert np.array_equal(mask, graph.pruned(prefix(graph, order, 40)))
    assert (point.edges, point.fraction) == (mask.sum(), mask.sum() / graph.edges)
    assert point.faithfulness.value == pytest.approx(weights[mask].sum(), abs=1e-2)
    assert point.closeness == pytest.approx(closeness(evaluation, evaluation.metric(mask)))
    assert (all_edges.edges, all_edges.closeness, point.negative_weight) == (graph.edges, 1, 0.5)
    points = curve_points(evaluation, weights, 0.0)
    expected = [graph.pruned(prefix(graph, order, max(1, round(share * graph.edges)))).sum() for share in SIZES]
    assert [each.edges for each in points] == expected


def test_greedy_pruning_drops_what_together_costs_less_than_the_threshold(graph: Graph) -> None:
    weights = np.where(graph.valid, 1e-5, 0.0)
    weights[graph.logits, 0], weights[graph.logits, 1], weights[graph.logits, 2] = 0.6, 0.05, 0.3
    evaluation: Any = Additive(graph, weights)
    gap = weights.sum()
    kept = greedy_circuit(evaluation, 0.04)
    assert kept[graph.logits, [0, 1, 2]].all()
    assert not greedy_circuit(evaluation, 0.06)[graph.logits, 1]
    assert greedy_circuit(evaluation, 0.06)[graph.logits, 2]
    assert weights[graph.valid].sum() - weights[kept].sum() < 0.04 * gap * graph.receivers
    assert np.array_equal(greedy_circuit(evaluation, 0.0), graph.valid)
    with pytest.raises(ArgumentError, match="at least 0"):
        greedy_circuit(evaluation, -0.1)


def test_an_effect_begins_at_its_level_and_with_enough_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    clean, corrupt = np.arange(7.0) + 1, np.zeros(7)
    assert effect.exchange_test(clean) == 2 / 2**7
    assert effect.exchange_test(np.array([1.0, -2.0])) == 1
    assert effect.exchange_test(np.array([1.0, 2.0, 4.0])) == 2 / 8
    assert effect.paired_effect(clean, corrupt).exists
    assert "higher on corrupt" in str(effect.paired_effect(corrupt, clean).reason)
    assert "6 pairs are too few" in str(effect.paired_effect(clean[:6], corrupt[:6]).reason)
    many = np.random.default_rng(0).normal(size=40) + 1
    assert effect.exchange_test(many) == 1 / 20_001
    monkeypatch.setattr(effect, "LEVEL", 2 / 2**7)
    assert "do not differ significantly" in str(effect.paired_effect(clean, corrupt).reason)
    monkeypatch.undo()
    found = effect.paired_effect(clean, corrupt)
    assert effect.confirmed(found, clean[:6], -clean[:6]) is found
    again = effect.confirmed(found, -clean, corrupt)
    assert not again.exists
    assert "does not replicate" in str(again.reason)
    assert effect.confirmed(found, clean, corrupt) is found


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_the_share_of_weights_is_that_of_the_matrices(architecture: str) -> None:
    model = tiny.model(architecture)
    anatomy, graph = model.architecture, Graph.of(model.architecture)

    def size(name: str) -> int:
        return int(np.prod(model.weights(name).read().shape))

    heads = sum(size(f"1.attn.{name}[0]") for name in ("W_Q", "W_O")) + 2 * size("1.attn.W_K[0]") / anatomy.group
    mlp = sum(size(f"1.mlp.{name}") for name in ("W_in", "W_out", *(["W_gate"] if architecture == "llama" else [])))
    nodes = [Site.parse(text) for text in ("0.headOutput[1]", "2.headOutput[3]", "1.mlpOutput")]
    circuit: Any = SimpleNamespace(model=model, nodes=nodes, graph=graph)
    assert quality._weight_share(circuit) == pytest.approx((2 * heads + mlp) / (3 * (4 * heads + mlp)))
    assert quality._closeness(Estimate(1.3, 1, 2, 3)) == pytest.approx(0.7)
    assert quality._closeness(Estimate(0.4, 0, 1, 3)) == pytest.approx(0.4)
    assert quality._closeness(Estimate(2.4, 0, 1, 3)) == 0


def test_reuse_is_the_share_of_edges_that_other_tasks_have_too(graph: Graph) -> None:
    places = np.argwhere(graph.valid)
    masks = []
    for rows in (slice(0, 4), slice(2, 6), slice(5, 7)):
        mask = np.zeros_like(graph.valid)
        mask[tuple(places[rows].T)] = True
        masks.append(mask)
    circuit: Any = SimpleNamespace(mask=masks[0], edge_count=4, graph=graph)
    found, chance = comparison._reuse(circuit, {"a": masks[1], "b": masks[2]})
    assert found == wilson(2, 4)
    assert chance == 5 / graph.edges
    assert comparison._reuse(circuit, {}) == (None, None)


def test_a_head_has_each_role_once_with_its_largest_effect_on_the_task() -> None:
    site, other = Site.parse("0.headOutput[1]"), Site.parse("0.headOutput[2]")

    def role(name: str, value: float | None, head: Site = site) -> Role:
        return Role(head, name, 0.5, None if value is None else Estimate(value, value - 0.1, value + 0.1, 9), "logits")

    on_task = [role("a", 0.1), role("a", -0.4), role("b", 0.2), role("c", 0.9, other)]
    on_repeats = [role("a", 0.8), role("d", 0.3), role("e", None)]
    found = roles._of(site, on_task, on_repeats)
    assert [(each.role, each.effect and each.effect.value) for each in found] == [
        ("a", -0.4),
        ("d", 0.3),
        ("b", 0.2),
        ("e", None),
    ]
    assert roles._when_above("x", otherwise="y")(0.1) == "x"
    assert roles._when_above("x", otherwise="y")(0.0) == "y"
    assert roles._when_above("x")(-0.1) is None


def test_small_choices_turn_where_they_say(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    assert maps._shown(Estimate(0.5, -np.inf, np.inf, 1)) == "0.500"
    assert maps._shown(Estimate(0.5, 0.25, 0.75, 9)) == str(Estimate(0.5, 0.25, 0.75, 9))
    monkeypatch.setattr(attribution, "PATCHED", graph.edges * 6)
    assert [attribution.chosen_method("auto", graph, pairs) for pairs in (5, 6, 7)] == ["hybrid", "hybrid", "eap_ig"]
    shares, mask = np.array([[0.1, -0.5], [0.3, 9.0]]), np.array([[True, True], [True, False]])
    part: Any = SimpleNamespace(shares=shares, circuit=SimpleNamespace(mask=mask))
    assert composition._worth_noting(part) == 0.3
    part.circuit.mask = mask & False
    assert composition._worth_noting(part) == 0


def test_tensors_of_another_shape_or_kind_are_named() -> None:
    good = {
        "edges": np.zeros((3, 2), np.int32),
        "scores": np.zeros(3),
        "means": np.zeros((5, 4)),
        "clean": np.ones((2, 6), np.int64),
        "corrupt": np.ones((2, 6), np.int64),
        "lengths": np.array([1, 6]),
        "answers": np.ones(2, np.int64),
        "wrongs": np.ones(2, np.int64),
    }
    assert storage._misshapen(good) is None
    for name, value in (
        ("edges", np.zeros((3, 3), np.int32)),
        ("scores", np.zeros(2)),
        ("scores", np.zeros(3, np.int64)),
        ("means", np.zeros((5, 4, 2))),
        ("means", np.full((5, 4), np.nan)),
        ("corrupt", np.ones((2, 5), np.int64)),
        ("answers", np.array([0, -1])),
        ("answers", np.zeros(2)),
        ("lengths", np.array([0, 6])),
        ("lengths", np.array([1, 7])),
    ):
        assert str(storage._misshapen(good | {name: value})).startswith(name), name
    empty = {
        name: value[:0] if name in ("clean", "corrupt", "lengths", "answers", "wrongs") else value
        for name, value in good.items()
    }
    assert storage._misshapen(empty) is None


def test_rows_of_runs_are_found_across_their_parts() -> None:
    def part(name: str, rows: int) -> Any:
        return SimpleNamespace(runs=SimpleNamespace(rows=rows, part=lambda mine: (name, mine.start, mine.stop)))

    evaluation = object.__new__(CircuitEvaluation)
    evaluation.pairs = SimpleNamespace(rows=7)  # type: ignore[assignment]
    evaluation._parts = [part("a", 3), part("b", 2), part("c", 2)]
    assert evaluation.runs_of() == [("a", 0, 3), ("b", 0, 2), ("c", 0, 2)]
    assert evaluation.runs_of(slice(2, 4)) == [("a", 2, 3), ("b", 0, 1)]
    assert evaluation.runs_of(slice(3, 5)) == [("b", 0, 2)]
    assert evaluation.runs_of(slice(6, None)) == [("c", 1, 2)]


def test_receivers_are_those_of_the_graph(graph: Graph) -> None:
    for receiver in range(graph.receivers):
        assert graph.receiver_of(graph.receiver_site(receiver)) == receiver
    for site in (Site(0, Component.MLP_INPUT, head=1), Site(3, Component.QUERY, head=0), Site(0, Component.KEY, head=4)):
        with pytest.raises(CircuitError, match="not a receiver"):
            graph.receiver_of(site)


def test_evidence_is_shown_in_three_digits() -> None:
    shown = [quality._shown(value) for value in (None, 0.5, "x", Estimate(0.5, 0.25, 0.75, 9))]
    assert shown == ["–", "0.500", "x", "0.500 [0.250, 0.750]"]


def test_other_tasks_are_those_that_the_model_does(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = np.ones((1, 1), dtype=bool)

    def of_size(name: str, examples: None, edges: int) -> Any:
        if name == "addition":
            raise DatasetError("no digits")
        return mask if name == "induction" and edges == 5 else None

    monkeypatch.setattr(comparison, "CircuitFinder", lambda model, seed: SimpleNamespace(of_size=of_size))
    comparator = object.__new__(comparison.CircuitComparator)
    comparator.others, comparator.seed = ["addition", "induction", "greater_than", "larger_number"], 0
    assert comparator._others(tiny.model("gpt2"), "larger_number", 5) == {"induction": mask}
