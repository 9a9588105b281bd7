"""What experiments on circuits need not do twice: runs, layers, tokens and datasets, each counted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers.pytorch_utils import Conv1D

from neuroscope.circuits import comparison
from neuroscope.circuits import evaluation as evaluation_module
from neuroscope.circuits.ablated import source_means
from neuroscope.circuits.attribution import edge_scores
from neuroscope.circuits.compiled import CircuitEngine
from neuroscope.circuits.composition import ModelComposer
from neuroscope.circuits.discovery import CircuitDiscovery
from neuroscope.circuits.evaluation import CircuitEvaluation, CircuitRun
from neuroscope.circuits.finder import CircuitFinder
from neuroscope.circuits.graph import Graph
from neuroscope.circuits.library import CircuitLibrary
from neuroscope.circuits.pair_runs import PairRuns
from neuroscope.circuits.quality import CircuitQualityAssurance
from neuroscope.engines.protocol import BoolArray
from neuroscope.engines.sites import Component, Site
from neuroscope.engines.torch.engine import TorchEngine
from neuroscope.errors import ArgumentError, CircuitError
from neuroscope.tasks import registry
from neuroscope.tasks.dataset import Dataset
from neuroscope.tasks.evaluate import evaluate_alike
from neuroscope.tasks.pairs import make_pairs
from tests import tiny
from tests.backend.circuits.examples import handmade, induction_examples
from tests.backend.circuits.pairs import random_pairs


@pytest.fixture(scope="module")
def engine() -> TorchEngine:
    return TorchEngine(tiny.hf_model("gpt2").double())


@contextmanager
def counted(owner: Any, name: str) -> Iterator[list[tuple[Any, ...]]]:
    """The arguments of every call of a method while the block runs."""
    calls: list[tuple[Any, ...]] = []
    real = getattr(owner, name)

    def call(*arguments: Any, **named: Any) -> Any:
        calls.append(arguments)
        return real(*arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, call)
        yield calls


def some_edges(graph: Graph, share: float, seed: int = 0) -> BoolArray:
    return graph.valid & (np.random.default_rng(seed).random(graph.valid.shape) < share)


# --- runs -----------------------------------------------------------------------------------------------------------


def test_clean_and_corrupt_run_as_rows_of_one_batch(engine: TorchEngine) -> None:
    before = engine.block_calls
    runs = PairRuns(engine, random_pairs())
    assert engine.block_calls - before == 2 * tiny.LAYERS  # the shared tokens, then both
    assert np.abs(runs.clean.metric - runs.corrupt.metric).max() > 1e-3


def test_clean_and_corrupt_run_apart_where_a_batch_holds_only_one(engine: TorchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    together = PairRuns(engine, random_pairs())
    monkeypatch.setattr(engine, "rows_that_fit", lambda positions: 4)
    before = engine.block_calls
    apart = PairRuns(engine, random_pairs())
    assert engine.block_calls - before == 3 * tiny.LAYERS
    for one, other in ((together.clean, apart.clean), (together.corrupt, apart.corrupt)):
        assert one.metric == pytest.approx(other.metric, abs=1e-12)
        assert torch.allclose(one.streams[-1], other.streams[-1])


def test_a_circuit_is_measured_once(engine: TorchEngine) -> None:
    evaluation = CircuitEvaluation(engine, random_pairs())
    one, other = (some_edges(evaluation.graph, 0.6, seed) for seed in (0, 1))
    with counted(CircuitRun, "begin") as runs:
        twice = evaluation.metrics([one, other, one])
        assert len(runs) == 1
        assert int(runs[0][1].shape[0]) == 2 * evaluation.pairs.rows
        again = evaluation.metric(one)
        assert len(runs) == 1
    assert (twice[0] == twice[2]).all()
    assert (again == twice[0]).all()
    assert np.abs(twice[0] - twice[1]).max() > 1e-6


def test_a_run_that_takes_more_memory_than_is_meant_for_it_still_runs(
    engine: TorchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluation = CircuitEvaluation(engine, random_pairs())
    monkeypatch.setattr(evaluation_module, "MEMORY", 1)
    masks = [some_edges(evaluation.graph, 0.6, seed) for seed in (0, 1)]
    apart = CircuitEvaluation(engine, random_pairs())
    assert len(apart.runs_of()) == apart.pairs.rows
    assert apart.metrics(masks) == pytest.approx(evaluation.metrics(masks), abs=1e-12)


def test_what_was_measured_is_not_given_for_other_weights() -> None:
    engine = TorchEngine(tiny.hf_model("gpt2"))
    evaluation = CircuitEvaluation(engine, random_pairs())
    mask = some_edges(evaluation.graph, 0.6)
    evaluation.metric(mask)
    engine.weights("0.mlp.W_out").write(engine.weights("0.mlp.W_out").read() * 2)
    with pytest.raises(CircuitError, match="weights were changed"):
        evaluation.metric(mask)


def test_edges_are_scored_on_runs_that_are_kept(engine: TorchEngine) -> None:
    pairs = random_pairs(8)
    evaluation = CircuitEvaluation(engine, pairs)
    alone = edge_scores(engine, pairs, method="hybrid")
    with counted(PairRuns, "__init__") as runs:
        kept = edge_scores(engine, pairs, method="hybrid", runs=evaluation.runs_of())
    assert not runs
    assert kept == pytest.approx(alone, abs=1e-12)


def test_rows_of_kept_runs_are_scored_as_they_are_alone(engine: TorchEngine) -> None:
    pairs = random_pairs(9)
    parts = CircuitEvaluation(engine, pairs).runs_of(slice(2, 7))
    assert [part.rows for part in parts] == [5]
    alone = edge_scores(engine, pairs.take(slice(2, 7)), method="eap_ig")
    assert edge_scores(engine, pairs.take(slice(2, 7)), method="eap_ig", runs=parts) == pytest.approx(alone, abs=1e-12)


def test_a_finder_runs_each_part_of_its_pairs_once() -> None:
    finder = CircuitFinder(handmade(distractor=True))
    with counted(PairRuns, "__init__") as runs:
        assert finder.of_size("induction", induction_examples(60), 3) is not None
        assert len(runs) == 3
        finder.of_size("induction", induction_examples(60), 3)
    assert len(runs) == 6  # other pairs, for all that is known


def test_discovery_runs_each_part_of_its_pairs_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEUROSCOPE_CACHE", str(tmp_path))
    discovery = CircuitDiscovery()
    discovery.model, discovery.target_capability = handmade(distractor=True), "induction"
    discovery.examples = induction_examples(60)
    with counted(PairRuns, "__init__") as runs:
        for hypothesis in discovery.generate_hypotheses():
            discovery.test_hypothesis(hypothesis)
    assert len(runs) == 3


def test_a_comparison_runs_each_part_once_in_each_model_and_phrasing() -> None:
    models = handmade(), handmade(distractor=True)
    comparator = comparison.CircuitComparator(*models, pairs=36, others=())
    dataset = Dataset(induction_examples(36), name="induction by hand")
    with counted(PairRuns, "__init__") as runs:
        comparator.analyze_circuit_growth("induction", dataset)
    parts = [run for run, engine, _ in runs if engine is models[0].engine]
    roles = 2  # a role is measured on runs of its own, on the task and on repeats
    assert len(parts) <= 3 + roles


# --- layers and tokens ------------------------------------------------------------------------------------------------


def test_queries_keys_and_values_read_the_stream_in_one_product(engine: TorchEngine) -> None:
    evaluation = CircuitEvaluation(engine, random_pairs())
    with counted(CircuitRun, "_read") as reads:
        evaluation.metric(some_edges(evaluation.graph, 0.9))
    assert len(reads) == 2 * tiny.LAYERS + 1  # what attention reads, what the MLP reads; the logits


@contextmanager
def rows_through_projections() -> Iterator[dict[int, int]]:
    """How many rows GPT-2's projections compute, by their number of inputs and outputs."""
    rows: dict[Any, int] = {}
    real = Conv1D.forward

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        key = tuple(self.weight.shape)
        rows[key] = rows.get(key, 0) + int(np.prod(x.shape[:-1]))
        return real(self, x)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Conv1D, "forward", forward)
        yield rows


def test_what_no_circuit_reads_is_not_computed(engine: TorchEngine) -> None:
    pairs = random_pairs()
    evaluation = CircuitEvaluation(engine, pairs)
    graph = evaluation.graph
    one, other, direct = (np.zeros_like(graph.valid) for _ in range(3))
    for mask, mlp in ((one, 0), (other, 1)):
        mask[graph.receiver(mlp, Component.MLP_INPUT), 0] = True
        mask[graph.logits, graph.mlp(mlp)] = True
    direct[graph.logits, 0] = True
    tokens = evaluation.runs_of()[0].positions * pairs.rows
    with rows_through_projections() as rows:
        found = evaluation.metrics([one, other, direct])
    assert rows[128, 32] == 2 * tokens + 1  # each MLP in the rows of its circuit; one token of the last layer's
    assert (32, 96) not in rows  # no queries, keys and values
    assert (32, 32) not in rows  # no head's output
    assert found == pytest.approx(np.tile(evaluation.empty, (3, 1)), abs=1e-9)  # the last token is the same in both prompts


def test_queries_keys_and_values_are_computed_from_what_a_circuit_reads_alone(engine: TorchEngine) -> None:
    evaluation = CircuitEvaluation(engine, random_pairs())
    with rows_through_projections() as rows:
        found = evaluation.metric(evaluation.graph.valid)
    assert (32, 96) not in rows  # those of the block itself would be replaced
    assert rows[32, 32] > 0
    assert found == pytest.approx(evaluation.clean, abs=1e-9)


@pytest.mark.parametrize("architecture", ["gpt2", "gpt_neox", "llama", "phi3", "gemma2", "gpt_oss"])
def test_circuits_measure_alike_whether_or_not_somebody_watches(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, pairs = tiny.engine(architecture, scale=0.1), random_pairs()
    graph = Graph.of(engine.anatomy)
    masks = [graph.pruned(some_edges(graph, share, seed)) for seed, share in enumerate((0.02, 0.05, 0.1, 0.3, 0.8))]
    spared = CircuitEvaluation(engine, pairs).metrics(masks)
    init = CircuitRun.__init__
    monkeypatch.setattr(CircuitRun, "__init__", lambda self, *given, watched=False: init(self, *given, watched=True))
    assert spared == pytest.approx(CircuitEvaluation(engine, pairs).metrics(masks), abs=1e-5)
    bare = engine.forward(pairs.clean).logits
    assert torch.equal(engine.forward(pairs.clean).logits, bare)


def test_whoever_looks_into_a_compiled_circuit_sees_what_it_leaves_out(engine: TorchEngine) -> None:
    pairs = random_pairs()
    graph = Graph.of(engine.anatomy)
    mask = np.zeros_like(graph.valid)
    mask[graph.logits, 0] = True
    compiled = CircuitEngine(engine, mask, source_means(PairRuns(engine, pairs, share_prefix=False)), pairs.clean)
    site = Site(1, Component.MLP_OUTPUT)
    watched, alone = compiled.forward(pairs.clean, capture=[site]), compiled.forward(pairs.clean)
    assert float(watched[site].abs().max()) > 1e-3
    assert torch.allclose(watched.logits, alone.logits)
    with rows_through_projections() as rows:
        compiled.forward(pairs.clean)
    assert rows == {(32, 128): tiny.LAYERS, (128, 32): tiny.LAYERS}


# --- datasets ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def induction() -> Any:
    return CircuitLibrary.load("tokenization")


def test_refusals_are_asked_of_one_dataset_in_one_batch_each(induction: Any) -> None:
    assurance = CircuitQualityAssurance(induction, items=24)
    engine = induction.model.engine
    before = engine.block_calls
    with counted(Dataset, "for_models") as fits:
        score = assurance.test_safety()
    assert len(fits) == 1
    runs, probes = 2 + assurance.controls, 1 + assurance.controls
    assert engine.block_calls - before == (runs + probes) * engine.anatomy.layers
    assert score.evidence["harmful requests, refusal preferred"].n == 24


def test_a_composite_and_its_controls_are_asked_the_same_items(induction: Any) -> None:
    composite = ModelComposer().add_circuit(induction).compile()
    with counted(Dataset, "for_models") as fits, counted(registry.Task, "dataset") as datasets:
        report = composite.measure(12)
    assert len(fits) == len(datasets) == 1
    assert [scores[0].accuracy.n for scores in (report.composite, report.full, report.random)] == [12] * 3  # type: ignore[union-attr]


def test_models_of_one_tokenizer_share_the_parts_of_a_task(induction: Any) -> None:
    from neuroscope.models.model import TransformerModel
    from neuroscope.tasks import independence

    other = TransformerModel.from_hugging_face("bundled:gpt-oss-20b")
    with pytest.raises(ArgumentError, match="different tokenizers"):
        evaluate_alike([induction.model, other], ["addition"], 4)
    dataset = registry.get("addition").dataset(seed=12345)
    with counted(independence, "_filled") as filled:
        one = dataset.parts_for_model(induction.model, [4, 4], seed=3)
        once = len(filled)
        assert once > 0
        assert dataset.parts_for_model(other, [4, 4], seed=3) == one
        assert len(filled) == once
        for changed in (
            lambda: dataset.parts_for_model(other, [4, 4], seed=4),
            lambda: registry.get("subtraction").dataset(seed=12345).parts_for_model(other, [4, 4], seed=3),
            lambda: (other.tokenizer.add_tokens(["37+"]), dataset.parts_for_model(other, [4, 4], seed=3)),
        ):
            before = len(filled)
            changed()
            assert len(filled) > before


def test_pairs_and_prompts_are_tokenised_together(induction: Any) -> None:
    model = induction.model
    examples = list(registry.get("indirect_object_identification").dataset(30, seed=5).for_model(model))
    with counted(type(model.tokenizer), "__call__") as calls:
        pairs = make_pairs(model, examples)
        batch = model.encode([example.clean for example in examples])
    assert len(calls) <= 6  # both once, and twice each to see what the tokenizer puts before a text
    assert (batch.ids == pairs.clean.ids).all()
    assert pairs.metric.answers.tolist() == [model.answer_token(e.clean, e.answer) for e in examples]
