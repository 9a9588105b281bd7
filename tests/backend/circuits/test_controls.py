"""Random circuits as controls: alive, as large as the circuit, other than it, and drawn evenly."""

from __future__ import annotations

import itertools
import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from neuroscope.circuits.controls import CONTROLS, connected_random, degree_preserving, rewired
from neuroscope.circuits.graph import Graph
from neuroscope.engines.protocol import BoolArray
from neuroscope.engines.sites import Site
from neuroscope.errors import CircuitError

SMALL = Graph(layers=1, heads=1, key_value_heads=1, parallel=False)


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    groups, shared = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    return Graph(draw(st.integers(1, 4)), groups * shared, groups, draw(st.booleans()))


@st.composite
def circuits(draw: st.DrawFn) -> tuple[Graph, BoolArray, np.random.Generator]:
    """A graph and a circuit in it, sparse or dense, alive."""
    graph = draw(graphs())
    random = np.random.default_rng(draw(st.integers(0, 10**6)))
    mask = graph.pruned(random.random(graph.valid.shape) < draw(st.sampled_from([0.02, 0.1, 0.3, 0.8])))
    mask[graph.logits, 0] = True
    return graph, mask, random


@given(graphs(), st.integers(0, 10**6), st.floats(0, 1))
@settings(deadline=None)
def test_a_connected_circuit_has_just_the_size_asked_and_every_edge_on_a_path(graph: Graph, seed: int, share: float) -> None:
    edges = max(1, round(share * share * graph.edges))
    mask = connected_random(graph, edges, np.random.default_rng(seed))
    assert mask.sum() == edges
    assert np.array_equal(graph.pruned(mask), mask)


@pytest.mark.parametrize("edges", [1, 2, 3, 4, 5, 7])
def test_even_circuits_smaller_than_most_paths_have_their_size(edges: int) -> None:
    graph = Graph(layers=6, heads=4, key_value_heads=2, parallel=False)
    for seed in range(20):
        mask = connected_random(graph, edges, np.random.default_rng(seed))
        assert mask.sum() == edges
        assert np.array_equal(graph.pruned(mask), mask)


@given(circuits())
@settings(deadline=None)
def test_every_control_is_another_living_circuit_of_as_many_edges(case: tuple[Graph, BoolArray, np.random.Generator]) -> None:
    graph, mask, random = case
    for name, control in CONTROLS.items():
        found = control(graph, mask, random)
        if found is not None:
            assert found.sum() == mask.sum(), name
            assert np.array_equal(graph.pruned(found), found), name
            assert not np.array_equal(found, mask), name


@given(circuits())
@settings(deadline=None)
def test_rewiring_keeps_the_nodes_and_swapping_keeps_the_degrees(case: tuple[Graph, BoolArray, np.random.Generator]) -> None:
    graph, mask, random = case
    others = rewired(graph, mask, random)
    if others is not None:
        assert graph.nodes(others) == graph.nodes(mask)
    swapped = degree_preserving(graph, mask, random)
    if swapped is not None:
        assert swapped.sum(0).tolist() == mask.sum(0).tolist()
        assert swapped.sum(1).tolist() == mask.sum(1).tolist()


@pytest.mark.parametrize("edges", [5, 10, 20, 30])
def test_a_connected_circuit_is_what_lies_on_paths_when_edges_arrive_in_random_order(edges: int) -> None:
    """Held against adding edges one by one and pruning, with the same order of arrival."""
    graph = Graph(layers=2, heads=2, key_value_heads=1, parallel=False)
    flat = np.flatnonzero(graph.valid)
    exact = 0
    for seed in range(10):
        ranks = np.random.default_rng(seed).permutation(len(flat))
        for count in range(1, len(flat) + 1):
            mask = np.zeros_like(graph.valid)
            mask.reshape(-1)[flat[ranks < count]] = True
            mask = graph.pruned(mask)
            if mask.sum() >= edges:
                break
        found = connected_random(graph, edges, np.random.default_rng(seed))
        if mask.sum() == edges:
            exact += 1
            assert np.array_equal(found, mask)
    assert exact >= 3


def _even(draws: Counter[bytes], states: list[bytes]) -> float:
    assert set(draws) <= set(states)
    return float(chisquare([draws[state] for state in states]).pvalue)


def _states(graph: Graph, edges: int) -> list[BoolArray]:
    """Every set of `edges` edges that is alive."""
    flat, found = np.flatnonzero(graph.valid), []
    for picked in itertools.combinations(flat.tolist(), edges):
        mask = np.zeros_like(graph.valid)
        mask.reshape(-1)[list(picked)] = True
        if np.array_equal(graph.pruned(mask), mask):
            found.append(mask)
    return found


def test_rewired_circuits_are_drawn_evenly_from_all_that_there_are() -> None:
    random = np.random.default_rng(0)
    mask = next(mask for mask in _states(SMALL, 5) if len(SMALL.nodes(mask)) == 2)
    others = [s.tobytes() for s in _states(SMALL, 5) if SMALL.nodes(s) == SMALL.nodes(mask) and not np.array_equal(s, mask)]
    found = [rewired(SMALL, mask, random) for _ in range(60 * len(others))]
    assert _even(Counter(one.tobytes() for one in found if one is not None), others) > 0.001


def test_swapped_circuits_are_drawn_evenly_from_all_of_their_degrees() -> None:
    graph, random = Graph(layers=1, heads=2, key_value_heads=2, parallel=False), np.random.default_rng(0)
    edges = ["embedding 0.query[0]", "embedding 0.value[1]", "embedding 0.mlpInput",
             "0.headOutput[0] logits", "0.headOutput[1] logits", "0.mlpOutput logits"]  # fmt: skip
    mask = np.zeros_like(graph.valid)
    for edge in edges:
        source, receiver = edge.split()
        mask[graph.receiver_of(Site.parse(receiver)), graph.source_of(Site.parse(source))] = True
    assert np.array_equal(graph.pruned(mask), mask)
    same = [
        state.tobytes()
        for state in _states(graph, len(edges))
        if (state.sum(0) == mask.sum(0)).all() and (state.sum(1) == mask.sum(1)).all() and not np.array_equal(state, mask)
    ]
    assert len(same) == 2  # another source writes to the MLP
    found = [degree_preserving(graph, mask, random) for _ in range(400)]
    assert _even(Counter(one.tobytes() for one in found if one is not None), same) > 0.001


def test_where_there_is_no_other_circuit_there_is_no_control() -> None:
    random = np.random.default_rng(0)
    whole, none = SMALL.valid.copy(), np.zeros_like(SMALL.valid)
    direct = none.copy()
    direct[SMALL.logits, 0] = True
    assert all(control(SMALL, whole, random) is None for control in CONTROLS.values())
    assert all(control(SMALL, none, random) is None for control in CONTROLS.values())
    assert all(control(SMALL, direct, random) is None for control in CONTROLS.values())


@pytest.mark.parametrize("edges", [0, SMALL.edges + 1])
def test_a_size_that_the_graph_does_not_have_is_refused(edges: int) -> None:
    with pytest.raises(CircuitError, match=f"of {edges} edges"):
        connected_random(SMALL, edges, np.random.default_rng(0))


def test_edges_that_lie_on_no_path_do_not_count() -> None:
    mask = np.zeros_like(SMALL.valid)
    mask[SMALL.logits, :2] = mask[SMALL.receiver_of(Site.parse("0.query[0]")), 0] = True
    mask[SMALL.logits, 2] = True  # the MLP writes, but reads nothing
    for name, control in CONTROLS.items():
        found = control(SMALL, mask, np.random.default_rng(0))
        assert (found is None) == (name == "degrees")
        assert found is None or found.sum() == 3


def test_controls_of_a_circuit_of_a_real_models_size_take_less_than_a_second() -> None:
    graph, random = Graph(30, 9, 3, parallel=False), np.random.default_rng(0)
    mask = connected_random(graph, 1000, random)
    begun = time.process_time()
    assert all(control(graph, mask, random) is not None for control in CONTROLS.values())
    assert time.process_time() - begun < 1  # 0.1 s in quiet


def test_the_same_seed_gives_the_same_control() -> None:
    graph = Graph(3, 4, 2, parallel=False)
    mask = connected_random(graph, 30, np.random.default_rng(1))
    for control in CONTROLS.values():
        first, second = (control(graph, mask, np.random.default_rng(2)) for _ in range(2))
        assert first is not None
        assert second is not None
        assert np.array_equal(first, second)
