"""Patching, attribution and circuit runs against independent truths: numpy brute force and finite differences."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import spearmanr

from neuroscope.circuits import edges as edges_module
from neuroscope.circuits.attribution import edge_scores
from neuroscope.circuits.edges import edge_effects
from neuroscope.circuits.graph import Graph
from neuroscope.circuits.masked import MaskedModel, Removal
from neuroscope.circuits.pairs import PairBatch
from neuroscope.circuits.reference import PairRuns
from neuroscope.circuits.sweeps import sweep
from neuroscope.errors import SiteError
from neuroscope.models.engines.torch_engine import TorchEngine
from neuroscope.models.sites import Component, Site
from tests import tiny
from tests.backend.circuits.brute import BruteGPT2, Channel, Numbers
from tests.backend.circuits.pairs import random_pairs


@pytest.fixture(scope="module")
def brute() -> BruteGPT2:
    return BruteGPT2(tiny.hf_model("gpt2").double())


@pytest.fixture(scope="module")
def engine() -> TorchEngine:
    return TorchEngine(tiny.hf_model("gpt2").double())


def prompts(pairs: PairBatch, row: int) -> tuple[list[int], list[int]]:
    real = pairs.clean.real[row]
    return pairs.clean.ids[row][real].tolist(), pairs.corrupt.ids[row][real].tolist()


def difference(logits: Numbers, pairs: PairBatch, row: int) -> float:
    return float(logits[-1, pairs.metric.answers[row]] - logits[-1, pairs.metric.wrongs[row]])


def test_node_patching_equals_brute_force(brute: BruteGPT2, engine: TorchEngine) -> None:
    pairs = random_pairs()
    runs = PairRuns(engine, pairs)
    nodes = [Site(layer, Component.HEAD_OUTPUT, head=head) for layer in range(3) for head in range(4)]
    nodes += [Site(layer, Component.MLP_OUTPUT) for layer in range(3)]
    denoised = sweep(runs, runs.corrupt, runs.clean, nodes)
    noised = sweep(runs, runs.clean, runs.corrupt, nodes)
    for row in range(pairs.rows):
        clean, corrupt = prompts(pairs, row)
        clean_trace, corrupt_trace = brute.run(clean), brute.run(corrupt)
        assert difference(clean_trace.logits, pairs, row) == pytest.approx(runs.clean.metric[row], abs=1e-9)
        for index, site in enumerate(nodes):
            for found, base, source in ((denoised, corrupt, clean_trace), (noised, clean, corrupt_trace)):
                assert site.layer is not None
                if site.component is Component.HEAD_OUTPUT:
                    assert site.head is not None
                    patched = brute.run(base, heads={(site.layer, site.head): source.heads[site.layer, site.head]})
                else:
                    patched = brute.run(base, mlps={site.layer: source.mlps[site.layer]})
                assert found[index, row] == pytest.approx(difference(patched.logits, pairs, row), abs=1e-9), site


def test_residual_patching_at_a_position_equals_brute_force(brute: BruteGPT2, engine: TorchEngine) -> None:
    pairs = random_pairs(2)
    runs = PairRuns(engine, pairs)
    sites = [Site(layer, Component.RESIDUAL, position=p) for layer in range(3) for p in range(6)]
    found = sweep(runs, runs.corrupt, runs.clean, sites)
    for row in range(pairs.rows):
        clean, corrupt = prompts(pairs, row)
        trace = brute.run(clean)
        for index, site in enumerate(sites):
            assert site.layer is not None
            assert site.position is not None
            value = trace.streams[site.layer + 1][site.position]
            patched = brute.run(corrupt, streams={(site.layer, site.position): value})
            assert found[index, row] == pytest.approx(difference(patched.logits, pairs, row), abs=1e-9), site


def test_edge_patching_equals_brute_force(brute: BruteGPT2, engine: TorchEngine) -> None:
    pairs = random_pairs(2)
    graph = Graph.of(engine.anatomy)
    edges = [(int(channel), int(source)) for channel, source in np.argwhere(graph.valid)]
    found = edge_effects(engine, pairs, edges)
    names = {Component.QUERY: "q", Component.KEY: "k", Component.VALUE: "v", Component.MLP_INPUT: "mlp"}
    for row in range(pairs.rows):
        clean, corrupt = prompts(pairs, row)
        good, bad = brute.run(clean), brute.run(corrupt)
        whole = difference(good.logits, pairs, row)
        for index, (channel, source) in enumerate(edges):
            site, target = graph.source_site(source), graph.channel_site(channel)
            if site.component is Component.EMBEDDING:
                delta = bad.embedding - good.embedding
            elif site.component is Component.HEAD_OUTPUT:
                key = (site.layer or 0, site.head or 0)
                delta = bad.head_writes[key] - good.head_writes[key]
            else:
                delta = bad.mlps[site.layer or 0] - good.mlps[site.layer or 0]
            where: Channel = (3, "logits", 0)
            if target.component is not Component.LOGITS:
                where = (target.layer or 0, names[target.component], target.head or 0)
            patched = brute.run(clean, reads={where: delta})
            fall = whole - difference(patched.logits, pairs, row)
            assert found[index, row] == pytest.approx(fall, abs=1e-9), (site, target)


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_the_whole_graph_is_the_clean_run_and_the_empty_one_the_corrupt_run(architecture: str) -> None:
    masked = MaskedModel(tiny.engine(architecture, scale=0.1), random_pairs())
    graph = masked.graph
    assert masked.metric(graph.valid.copy()) == pytest.approx(masked.clean, abs=1e-5)
    assert masked.metric(np.zeros_like(graph.valid)) == pytest.approx(masked.corrupt, abs=1e-5)


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_removing_an_edge_from_the_whole_graph_equals_patching_it(architecture: str) -> None:
    engine, pairs = tiny.engine(architecture, scale=0.1), random_pairs()
    masked = MaskedModel(engine, pairs)
    every = np.argwhere(masked.graph.valid)
    chosen = every[np.random.default_rng(0).choice(len(every), 16, replace=False)]
    edges = [(int(channel), int(source)) for channel, source in chosen]
    removed = masked.removals(masked.graph.valid.copy(), [Removal(*edge) for edge in edges])
    assert masked.clean - removed == pytest.approx(edge_effects(engine, pairs, edges), abs=2e-5)
    for index, edge in enumerate(edges[:4]):
        mask = masked.graph.valid.copy()
        mask[edge] = False
        assert masked.metric(mask) == pytest.approx(removed[index], abs=2e-5)


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_attribution_ranks_edges_as_exact_patching_does(
    architecture: str, record_property: Callable[[str, object], None]
) -> None:
    engine, pairs = tiny.engine(architecture, scale=0.08), random_pairs()
    graph = Graph.of(engine.anatomy)
    edges = [(int(channel), int(source)) for channel, source in np.argwhere(graph.valid)]
    exact = edge_effects(engine, pairs, edges).mean(1)
    for steps in (1, 5):
        scores = edge_scores(engine, pairs, steps=steps)
        correlation = spearmanr(np.abs([scores[edge] for edge in edges]), np.abs(exact))[0]
        record_property(f"rank correlation, {steps} steps", float(correlation))
        assert correlation > 0.7


def test_plain_attribution_is_the_slope_of_exact_patching(engine: TorchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = random_pairs()
    graph = Graph.of(engine.anatomy)
    edges = [(int(channel), int(source)) for channel, source in np.argwhere(graph.valid)]
    scores = edge_scores(engine, pairs, steps=1)
    step = 1e-4
    whole = edges_module.source_differences
    monkeypatch.setattr(edges_module, "source_differences", lambda graph, runs: whole(graph, runs) * step)
    slopes = edge_effects(engine, pairs, edges).mean(1) / step
    assert [scores[edge] for edge in edges] == pytest.approx(slopes, rel=1e-2, abs=1e-5)


@pytest.mark.parametrize("metric", ["logit_difference", "probability", "kl"])
def test_every_metric_can_be_patched_and_attributed(engine: TorchEngine, metric: str) -> None:
    pairs = random_pairs(metric=metric)
    masked = MaskedModel(engine, pairs)
    if metric == "kl":
        assert masked.clean == pytest.approx(np.zeros(pairs.rows), abs=1e-9)
        assert (masked.corrupt < 0).all()
    scores = edge_scores(engine, pairs, steps=3)
    graph = masked.graph
    edges = [(int(channel), int(source)) for channel, source in np.argwhere(graph.valid)]
    exact = edge_effects(engine, pairs, edges).mean(1)
    assert spearmanr(np.abs([scores[edge] for edge in edges]), np.abs(exact))[0] > 0.7


def test_a_sweep_calls_the_blocks_that_resuming_implies(engine: TorchEngine) -> None:
    pairs = random_pairs(2, length=8)
    runs = PairRuns(engine, pairs)
    layers, positions = 3, 6
    sites = [Site(layer, Component.RESIDUAL, position=p) for layer in range(layers) for p in range(positions)]
    before = engine.block_calls
    sweep(runs, runs.corrupt, runs.clean, sites)
    # Cells of one layer run together from the next layer on: 2 + 1 + 0 blocks, not 18 cells × 3.
    assert engine.block_calls - before == sum(layers - 1 - layer for layer in range(layers))
    before = engine.block_calls
    sweep(
        runs,
        runs.corrupt,
        runs.clean,
        [Site(layer, Component.HEAD_OUTPUT, head=h) for layer in range(layers) for h in range(4)],
    )
    assert engine.block_calls - before == sum(layers - layer for layer in range(layers))


def test_tokens_before_the_first_difference_run_once(engine: TorchEngine) -> None:
    runs = PairRuns(engine, random_pairs())
    assert runs.first == 2
    assert tuple(runs.clean.streams[0].shape)[:2] == (4, 6)


def test_a_component_that_cannot_be_exchanged_is_refused(engine: TorchEngine) -> None:
    runs = PairRuns(engine, random_pairs())
    with pytest.raises(SiteError, match="mlpOutput"):
        sweep(runs, runs.clean, runs.corrupt, [Site(1, Component.QUERY)])
