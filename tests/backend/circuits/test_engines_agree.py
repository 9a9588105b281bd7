"""Circuit algorithms give on MLX what they give on torch: sweeps, attribution, masked runs, and the circuit found."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from neuroscope.circuits.attribution import edge_scores
from neuroscope.circuits.evaluation import CircuitEvaluation
from neuroscope.circuits.finder import CircuitFinder
from neuroscope.circuits.graph import Graph
from neuroscope.circuits.pair_runs import PairRuns
from neuroscope.circuits.sweeps import sweep
from neuroscope.engines.sites import Component, Site
from neuroscope.models.model import TransformerModel
from tests import tiny
from tests.backend.circuits.pairs import pairs_with_an_effect, random_pairs

pytestmark = tiny.needs_mlx

TOLERANCE = 1e-4
FRAMEWORKS = ("torch", "mlx")


def relative(theirs: object, ours: object) -> float:
    a, b = np.asarray(theirs), np.asarray(ours)
    return float(abs(a - b).max() / (a.std() + 1e-12))


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_sweeps_and_masked_runs_give_the_same_numbers(architecture: str) -> None:
    pairs = random_pairs()
    found = []
    for framework in FRAMEWORKS:
        engine = tiny.engine_on(framework, architecture)
        runs, graph = PairRuns(engine, pairs), Graph.of(engine.anatomy)
        nodes = [Site(1, Component.HEAD_OUTPUT, head=2, position=3), Site(2, Component.MLP_OUTPUT), Site(0, Component.RESIDUAL)]
        mask = graph.valid & (np.random.default_rng(0).random(graph.valid.shape) < 0.5)
        found.append((sweep(runs, runs.corrupt, runs.clean, nodes), CircuitEvaluation(engine, pairs).metric(mask)))
    for theirs, ours in zip(*found, strict=True):
        assert relative(theirs, ours) < TOLERANCE


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
@pytest.mark.parametrize("method", ["eap", "eap_ig", "eap_ig_activations"])
def test_edges_rank_the_same(architecture: str, method: str) -> None:
    theirs, ours = (
        edge_scores(tiny.engine_on(framework, architecture), random_pairs(), method=method, steps=3) for framework in FRAMEWORKS
    )
    assert relative(theirs, ours) < 10 * TOLERANCE
    there = Graph.of(tiny.engine_on("torch", architecture).anatomy).valid
    assert spearmanr(theirs[there], ours[there]).statistic >= 0.999


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "gpt_oss"])
def test_the_same_circuit_is_found(architecture: str) -> None:
    theirs, ours = (
        CircuitFinder(tiny.model(architecture, on=framework), target=0.6, random_circuits=1, minimality_sample=5).search(
            "random pairs", pairs_with_an_effect(tiny.model(architecture))
        )
        for framework in FRAMEWORKS
    )
    assert theirs.edge_count < theirs.graph.edges
    assert (theirs.mask == ours.mask).all()
    assert ours.faithfulness.value == pytest.approx(theirs.faithfulness.value, rel=1e-3)


@pytest.mark.parametrize("name", ["gpt2-medium", "gpt-oss-20b"])
def test_the_bundled_models_give_the_same_numbers(name: str) -> None:
    found = []
    for framework in FRAMEWORKS:
        model = TransformerModel.from_hugging_face(f"bundled:{name}", engine=framework)
        batch = model.encode(["When Mary and John went to the store", "The capital of France is"])
        sites = [Site(layer, kind) for layer in (0, 12) for kind in (Component.RESIDUAL, Component.MLP, Component.HEAD_OUTPUT)]
        run = model.engine.forward(batch, capture=sites)
        found.append([model.engine.ops.to_numpy(array)[batch.real] for array in (run.logits, *(run[site] for site in sites))])
    for theirs, ours in zip(*found, strict=True):
        assert relative(theirs, ours) < TOLERANCE
