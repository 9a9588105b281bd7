"""What a score is: each method against numpy brute force, and integrated gradients by what they must add up to."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from neuroscope.circuits.attribution import RULES, checked_rule, edge_scores, node_scores, path
from neuroscope.circuits.graph import Graph
from neuroscope.circuits.pair_runs import PairRuns
from neuroscope.engines.sites import Component, Site
from neuroscope.engines.torch.engine import TorchEngine
from neuroscope.errors import ArgumentError
from neuroscope.tasks.pairs import PairBatch
from tests import tiny
from tests.backend.circuits.brute import BruteGPT2, Numbers, Receiver, Trace
from tests.backend.circuits.pairs import random_pairs

CHANNELS = {Component.QUERY: "q", Component.KEY: "k", Component.VALUE: "v", Component.MLP_INPUT: "mlp"}


@pytest.fixture(scope="module")
def brute() -> BruteGPT2:
    return BruteGPT2(tiny.hf_model("gpt2").double())


@pytest.fixture(scope="module")
def engine() -> TorchEngine:
    return TorchEngine(tiny.hf_model("gpt2").double())


def gap(engine: TorchEngine, pairs: PairBatch) -> float:
    runs = PairRuns(engine, pairs)
    return float((runs.clean.metric - runs.corrupt.metric).mean())


def error(engine: TorchEngine, pairs: PairBatch, **options: Any) -> float:
    """How far the scores of the embedding's edges are from adding up to m(clean) − m(corrupt), as a share of it."""
    whole = gap(engine, pairs)
    return abs(node_scores(edge_scores(engine, pairs, **options))[0] - whole) / abs(whole)


@pytest.mark.parametrize("architecture", ["gpt2", "gpt_neox", "llama", "qwen3", "gemma2"])
@pytest.mark.parametrize("method", ["eap_ig", "eap_ig_activations"])
def test_the_embeddings_scores_add_up_to_clean_minus_corrupt(architecture: str, method: str) -> None:
    """Completeness (Sundararajan et al. 2017): over the whole way from corrupt to clean, gradients integrate to the change."""
    engine, pairs = tiny.engine(architecture), random_pairs()
    assert error(engine, pairs, method="eap") > 0.1  # the gradient at the clean prompt alone does not
    assert error(engine, pairs, method=method, steps=100) < 0.005


@pytest.mark.parametrize("method", ["eap_ig", "eap_ig_activations"])
def test_with_five_steps_the_midpoints_are_nearest(method: str) -> None:
    models = [tiny.engine("gpt2", seed=seed, scale=0.12) for seed in range(6)]
    errors = {rule: [error(engine, random_pairs(), method=method, rule=rule) for engine in models] for rule in RULES}
    middle = np.median(errors["midpoint"])
    assert middle < 0.02
    assert middle < np.median(errors["paper"]) / 4
    assert middle < np.median(errors["hanna"]) / 4
    engine = models[0]
    assert error(engine, random_pairs(), method=method) == errors["midpoint"][0]


def test_rules_name_the_places_of_their_papers() -> None:
    assert path("midpoint", 5) == pytest.approx([0.1, 0.3, 0.5, 0.7, 0.9])
    assert path("hanna", 5) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8])
    assert path("paper", 5) == pytest.approx([0.2, 0.4, 0.6, 0.8, 1])


def test_rules_methods_and_steps_that_do_not_exist_are_refused(engine: TorchEngine) -> None:
    assert checked_rule(" Hanna") == "hanna"
    with pytest.raises(ArgumentError) as caught:
        edge_scores(engine, random_pairs(), rule="midpiont")
    assert "midpoint" in caught.value.remedy
    with pytest.raises(ArgumentError, match="eap_gi"):
        edge_scores(engine, random_pairs(), method="eap_gi")
    with pytest.raises(ArgumentError, match="at least one step"):
        edge_scores(engine, random_pairs(), steps=0)


@pytest.mark.parametrize("method", ["eap", "eap_ig", "eap_ig_activations"])
@pytest.mark.parametrize("rule", RULES)
def test_a_score_is_the_slope_along_its_edge_where_the_method_takes_it(
    brute: BruteGPT2, engine: TorchEngine, method: str, rule: str
) -> None:
    """Σ over tokens of (s_clean − s_corrupt) · ∂m/∂c by central differences, at the inputs that the method names."""
    pairs, steps = random_pairs(2), 3
    graph = Graph.of(engine.anatomy)
    edges = np.argwhere(graph.valid)
    edges = edges[np.random.default_rng(0).choice(len(edges), 24, replace=False)]
    scores = edge_scores(engine, pairs, method=method, steps=steps, rule=rule)
    alphas = [1.0] if method == "eap" else path(rule, steps)
    expected = np.zeros(len(edges))
    for row in range(pairs.rows):
        real = pairs.clean.real[row]
        tokens = pairs.clean.ids[row][real].tolist()
        clean, corrupt = brute.run(tokens), brute.run(pairs.corrupt.ids[row][real].tolist())
        for index, (receiver, source) in enumerate(edges.tolist()):
            delta = write(clean, graph.source_site(source)) - write(corrupt, graph.source_site(source))
            for alpha in alphas:
                moved = inputs(graph, source, clean, corrupt, alpha) if method == "eap_ig_activations" else {}
                if method == "eap_ig":
                    moved = {"embedding": clean.embedding + (alpha - 1) * (clean.embedding - corrupt.embedding)}
                slope = 0.0
                for sign in (1, -1):
                    reads = {where(graph.receiver_site(receiver), brute.layers): sign * 1e-5 * delta}
                    logits = brute.run(tokens, reads=reads, **moved).logits[-1]
                    value = logits[pairs.metric.answers[row]] - logits[pairs.metric.wrongs[row]]
                    slope += sign * float(value) / 2e-5
                expected[index] += slope / len(alphas) / pairs.rows
    found = scores[edges[:, 0], edges[:, 1]]
    assert np.abs(expected).max() > 0.1
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-7)


def inputs(graph: Graph, source: int, clean: Trace, corrupt: Trace, alpha: float) -> dict[str, Any]:
    """What the run of a source holds fixed: its own write (for a head, those of all heads of its layer) at α."""

    def between(high: Numbers, low: Numbers) -> Numbers:
        return high + (alpha - 1) * (high - low)

    site = graph.source_site(source)
    if site.component is Component.EMBEDDING:
        return {"embedding": between(clean.embedding, corrupt.embedding)}
    assert site.layer is not None
    if site.component is Component.MLP_OUTPUT:
        return {"mlps": {site.layer: between(clean.mlps[site.layer], corrupt.mlps[site.layer])}}
    keys = [(site.layer, head) for head in range(graph.heads)]
    return {"heads": {key: between(clean.heads[key], corrupt.heads[key]) for key in keys}}


def write(trace: Trace, site: Site) -> Numbers:
    if site.component is Component.EMBEDDING:
        return trace.embedding
    assert site.layer is not None
    if site.component is Component.MLP_OUTPUT:
        return trace.mlps[site.layer]
    assert site.head is not None
    return trace.head_writes[site.layer, site.head]


def where(target: Site, layers: int) -> Receiver:
    if target.component is Component.LOGITS:
        return layers, "logits", 0
    return target.layer or 0, CHANNELS[target.component], target.head or 0
