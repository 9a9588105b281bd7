"""The graph: counts, names, and what pruning keeps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuroscope.circuits.graph import Graph
from neuroscope.engines.sites import Site
from neuroscope.errors import CircuitError

GRAPH = Graph(layers=3, heads=4, key_value_heads=2, parallel=False)


def edge(graph: Graph, source: str, receiver: str) -> tuple[int, int]:
    return graph.receiver_of(Site.parse(receiver)), graph.source_of(Site.parse(source))


def test_counts_follow_from_the_anatomy() -> None:
    assert GRAPH.sources == 1 + 3 * 5
    assert GRAPH.receivers == 3 * (4 + 2 + 2 + 1) + 1
    attention = sum(8 * (1 + 5 * layer) for layer in range(3))
    mlps = sum(1 + 5 * layer + 4 for layer in range(3))
    assert GRAPH.edges == attention + mlps + GRAPH.sources


def test_in_a_parallel_block_the_mlp_does_not_read_its_layers_heads() -> None:
    parallel = Graph(3, 4, 4, parallel=True)
    assert not parallel.valid[edge(parallel, "1.headOutput[0]", "1.mlpInput")]
    assert GRAPH.valid[edge(GRAPH, "1.headOutput[0]", "1.mlpInput")]


@given(st.integers(0, GRAPH.sources - 1), st.integers(0, GRAPH.receivers - 1))
def test_sites_name_sources_and_receivers_one_to_one(source: int, receiver: int) -> None:
    assert GRAPH.source_of(GRAPH.source_site(source)) == source
    assert GRAPH.receiver_of(GRAPH.receiver_site(receiver)) == receiver


@given(st.lists(st.integers(0, 10**6), max_size=60))
def test_pruning_keeps_exactly_the_edges_on_a_path(picks: list[int]) -> None:
    every = np.argwhere(GRAPH.valid)
    mask = np.zeros_like(GRAPH.valid)
    for pick in picks:
        mask[tuple(every[pick % len(every)])] = True
    pruned = GRAPH.pruned(mask)
    assert not (pruned & ~mask).any()
    assert np.array_equal(GRAPH.pruned(pruned), pruned)
    assert {tuple(e) for e in np.argwhere(pruned)} == _on_a_path(mask)


def _on_a_path(mask: np.ndarray) -> set[tuple[int, ...]]:  # type: ignore[type-arg]
    """By walking: an edge counts when the embedding leads to its source and its receiver leads to the logits."""
    edges = {(int(receiver), int(source)) for receiver, source in np.argwhere(mask)}
    feeds = {source: set(GRAPH.node_receivers(source).tolist()) for source in range(GRAPH.sources)}
    reached, leads = {0}, {GRAPH.logits}
    for _ in range(GRAPH.sources):
        reached |= {node for node in feeds for receiver, source in edges if receiver in feeds[node] and source in reached}
        leads |= {receiver for node in feeds for c, s in edges if s == node and c in leads for receiver in feeds[node]}
    return {(receiver, source) for receiver, source in edges if source in reached and receiver in leads}


def test_a_site_that_is_no_node_is_refused() -> None:
    with pytest.raises(CircuitError, match="Sources"):
        GRAPH.source_of(Site.parse("1.mlp"))
    with pytest.raises(CircuitError, match="Receivers"):
        GRAPH.receiver_of(Site.parse("1.key[2]"))
