"""Circuits that run as models, alone and together."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from neuroscope.circuits.ablated import source_means
from neuroscope.circuits.circuit import Circuit
from neuroscope.circuits.compiled import CircuitEngine
from neuroscope.circuits.composition import ModelComposer
from neuroscope.circuits.evaluation import CircuitEvaluation
from neuroscope.circuits.finder import CircuitFinder
from neuroscope.circuits.graph import Graph
from neuroscope.circuits.pair_runs import PairRuns
from neuroscope.engines.protocol import GenerationSettings, LogitRequest, TokenBatch
from neuroscope.errors import ArgumentError, CircuitError
from tests import tiny
from tests.backend.circuits.pairs import pairs_with_an_effect, random_pairs

RUNNABLE = ["gpt2", "gpt_neox", "llama", "qwen3", "gpt_oss"]


@pytest.mark.parametrize("architecture", RUNNABLE)
def test_a_compiled_circuit_of_all_edges_is_the_model(architecture: str, framework: str) -> None:
    engine, pairs = tiny.engine_on(framework, architecture, scale=0.1), random_pairs()
    graph = Graph.of(engine.anatomy)
    means = source_means(PairRuns(engine, pairs, share_prefix=False))
    compiled = CircuitEngine(engine, graph.valid, means, pairs.clean)
    batch = TokenBatch.of([[5, 6, 7], [9, 8, 7, 6, 5]], side="left")
    bare, found = engine.forward(batch).logits, compiled.forward(batch).logits
    assert engine.ops.to_numpy(found)[batch.real] == pytest.approx(engine.ops.to_numpy(bare)[batch.real], abs=1e-4)
    settings = GenerationSettings(max_tokens=5)
    tokens = [[step.tokens.tolist() for step in one.generate(batch, settings)] for one in (engine, compiled)]
    assert tokens[0] == tokens[1]


@pytest.mark.parametrize("architecture", RUNNABLE)
def test_a_compiled_circuit_measures_as_mean_ablation_does(architecture: str, framework: str) -> None:
    engine, pairs = tiny.engine_on(framework, architecture, scale=0.1), random_pairs()
    evaluation = CircuitEvaluation(engine, pairs, ablation="mean")
    mask = evaluation.graph.valid & (np.random.default_rng(0).random(evaluation.graph.valid.shape) < 0.5)
    compiled = CircuitEngine(engine, mask, source_means(PairRuns(engine, pairs, share_prefix=False)), pairs.corrupt)
    request = LogitRequest.last(pairs.clean, np.stack([pairs.metric.answers, pairs.metric.wrongs], 1))
    logits = engine.ops.to_numpy(compiled.forward(pairs.clean, logits=request).logits)
    assert logits[:, 0] - logits[:, 1] == pytest.approx(evaluation.metric(mask), abs=1e-4)


def test_generation_through_a_circuit_equals_running_it_anew_each_time() -> None:
    engine, pairs = tiny.engine("gpt2", scale=0.2), random_pairs()
    mask = Graph.of(engine.anatomy).valid & (np.random.default_rng(1).random(Graph.of(engine.anatomy).valid.shape) < 0.6)
    compiled = CircuitEngine(engine, mask, source_means(PairRuns(engine, pairs, share_prefix=False)), pairs.clean)
    ids = [5, 6, 7]
    found = [int(step.tokens[0]) for step in compiled.generate(TokenBatch.of([ids]), GenerationSettings(max_tokens=6))]
    for token in found:
        batch = TokenBatch.of([ids])
        logits = engine.ops.to_numpy(compiled.forward(batch, logits=LogitRequest.last(batch)).logits)
        assert int(logits[0].argmax()) == token
        ids = [*ids, token]


def test_what_a_compiled_circuit_cannot_do_it_says() -> None:
    engine, pairs = tiny.engine("gpt2"), random_pairs()
    compiled = CircuitEngine(
        engine, Graph.of(engine.anatomy).valid, source_means(PairRuns(engine, pairs, share_prefix=False)), pairs.clean
    )
    with pytest.raises(CircuitError, match="no gradients"):
        compiled.gradients(pairs.clean, lambda logits: logits[:, 0], [])
    with pytest.raises(CircuitError, match="start at the embedding"):
        compiled.forward(pairs.clean, start=1)


@pytest.fixture(scope="module")
def circuit() -> Circuit:
    model = tiny.model("gpt2", scale=0.1)
    return CircuitFinder(model, target=0.5).search("induction", pairs_with_an_effect(model))


def edited(circuit: Circuit, mask: np.ndarray[tuple[int, ...], np.dtype[np.bool_]], task: str, seed: int = 1) -> Circuit:
    return dataclasses.replace(circuit, task=task, _mask=mask, _pairs=random_pairs(6, seed=seed))


def test_a_composite_has_the_edges_of_its_circuits_and_runs(circuit: Circuit) -> None:
    other = edited(circuit, np.roll(circuit.mask, 3, 1) & circuit.graph.valid, "addition")
    composer = ModelComposer()
    composer.add_circuit(circuit, priority=1)
    composer.add_circuit(other, priority=3)
    composer.resolve_dependencies().optimize_data_flow().validate_compatibility()
    composite = composer.compile()
    dropped = {(c.source, c.receiver) for c in composer.conflicts if not c.kept}
    union = circuit.mask | other.mask
    for receiver, source in np.argwhere(composite.mask):
        assert union[receiver, source]
        assert (str(circuit.graph.source_site(int(source))), str(circuit.graph.receiver_site(int(receiver)))) not in dropped
    assert composite.edge_count <= int(union.sum())
    assert len(composite.generate("w5 w6 w7", max_tokens=3).split()) <= 3
    assert composite.logits("w5 w6").numpy() != pytest.approx(circuit.model.logits("w5 w6").numpy(), abs=1e-4)


def test_the_higher_priority_wins_a_conflict(circuit: Circuit) -> None:
    other = edited(circuit, circuit.graph.pruned(circuit.graph.valid & ~circuit.mask), "addition", seed=2)
    for mine, theirs in ((1, 3), (3, 1)):
        composer = ModelComposer()
        composer.add_circuit(circuit, priority=mine)
        composer.add_circuit(other, priority=theirs)
        conflicts = composer.conflicts
        assert conflicts
        for conflict in conflicts:
            assert conflict.gain > 0
            assert conflict.harm > 0
            owner = mine if conflict.owner == circuit.task else theirs
            assert conflict.kept is (owner == 3)


def test_dependencies_say_which_circuit_feeds_which(circuit: Circuit) -> None:
    graph = circuit.graph
    early, late = (np.zeros_like(graph.valid) for _ in range(2))
    early[graph.node_receivers(graph.mlp(0)), 0] = True
    early[graph.logits, graph.mlp(0)] = True
    late[graph.node_receivers(graph.mlp(2)), graph.mlp(0)] = True
    late[graph.logits, graph.mlp(2)] = True
    composer = ModelComposer()
    composer.add_circuit(edited(circuit, early, "addition"), priority=1)
    composer.add_circuit(edited(circuit, late, "subtraction"), priority=1)
    assert [(d.feeder, d.fed, d.edges) for d in composer.dependencies] == [("addition", "subtraction", 1)]


def test_what_cannot_be_composed_is_refused(circuit: Circuit, tmp_path: Path) -> None:
    with pytest.raises(CircuitError, match="nothing to compose"):
        ModelComposer().compile()
    composer = ModelComposer()
    composer.add_circuit(circuit, priority=1)
    with pytest.raises(ArgumentError, match="priority 1 and again with 2"):
        composer.add_circuit(circuit, priority=2)
    composer.add_circuit(circuit, priority=1)
    assert len(composer.circuits) == 1
    for wrong in ("high", 1.5, True):
        with pytest.raises(ArgumentError, match="whole number"):
            composer.add_circuit(circuit, priority=wrong)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="A composition needs a Circuit"):
        composer.add_circuit("syntax", priority=1)  # type: ignore[arg-type]
    other = tiny.model("gpt2", seed=3, scale=0.1)
    foreign = CircuitFinder(other, target=0.5).search("induction", pairs_with_an_effect(other))
    composer.add_circuit(foreign, priority=1)
    with pytest.raises(CircuitError, match="one model"):
        composer.validate_compatibility()
