"""Path patching of several edges at once, against runs of the whole graph without these edges."""

from __future__ import annotations

import numpy as np
import pytest

from neuroscope.circuits.edge_patching import edge_effects
from neuroscope.circuits.evaluation import CircuitEvaluation
from neuroscope.circuits.graph import Graph
from neuroscope.circuits.paths import PathPatcher, Paths
from neuroscope.engines.sites import Component, Site
from neuroscope.errors import CircuitError
from tests import tiny
from tests.backend.circuits.pairs import random_pairs


@pytest.mark.parametrize("architecture", ["gpt2", "gpt_neox", "llama", "gemma2", "gpt_oss"])
def test_paths_weigh_what_the_whole_graph_loses_without_them(architecture: str, framework: str) -> None:
    engine, pairs = tiny.engine_on(framework, architecture, scale=0.1), random_pairs(3)
    graph, random = Graph.of(engine.anatomy), np.random.default_rng(0)
    readers = [c for c in range(graph.receivers) if graph.receiver_site(c).component is not Component.MLP_INPUT]
    patched = []
    for source in [0, graph.head(0, 1), graph.mlp(0), graph.head(1, 3), graph.head(2, 0)]:
        reached = [receiver for receiver in readers if graph.valid[receiver, source]]
        patched += [Paths(source, tuple(random.permutation(reached)[: random.integers(1, 8)].tolist())) for _ in range(2)]
        patched.append(Paths(source, (graph.logits,)))
    patcher = PathPatcher(engine, pairs)
    falls = patcher.falls(patched)
    evaluation = CircuitEvaluation(engine, pairs)
    assert patcher.gaps == pytest.approx(evaluation.clean - evaluation.empty, abs=1e-5)
    assert np.abs(falls).max() > 1e-3
    for fall, one in zip(falls, patched, strict=True):
        mask = graph.valid.copy()
        mask[list(one.receivers), one.source] = False
        assert fall == pytest.approx(evaluation.clean - evaluation.metric(mask), abs=2e-4), one


def test_one_path_is_one_edge() -> None:
    engine, pairs = tiny.engine("qwen2"), random_pairs(3)
    graph = Graph.of(engine.anatomy)
    edges = [(graph.logits, graph.head(1, 2)), (graph.receiver(2, Component.QUERY, 1), graph.mlp(0))]
    falls = PathPatcher(engine, pairs).falls([Paths(source, (receiver,)) for receiver, source in edges])
    assert falls == pytest.approx(edge_effects(engine, pairs, edges), abs=1e-6)


def test_direct_effects_call_no_block_beyond_the_two_runs() -> None:
    engine, pairs = tiny.engine("gpt2"), random_pairs(3)
    graph = Graph.of(engine.anatomy)
    before = engine.block_calls
    PathPatcher(engine, pairs).falls([Paths(source, (graph.logits,)) for source in range(graph.sources)])
    assert engine.block_calls - before <= 3 * tiny.LAYERS  # the shared tokens, clean, corrupt


@pytest.mark.parametrize(("receiver", "says"), [("0.query[0]", "0.query"), ("2.mlpInput", "mlpInput")])
def test_a_receiver_that_cannot_be_patched_is_named(receiver: str, says: str) -> None:
    engine = tiny.engine("gpt2")
    graph = Graph.of(engine.anatomy)
    with pytest.raises(CircuitError, match=says):
        PathPatcher(engine, random_pairs(2)).falls([Paths(graph.head(1, 0), (graph.receiver_of(Site.parse(receiver)),))])


def test_no_receivers_are_no_paths() -> None:
    with pytest.raises(CircuitError, match="have no receivers"):
        PathPatcher(tiny.engine("gpt2"), random_pairs(2)).falls([Paths(1, ())])
