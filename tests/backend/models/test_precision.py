"""Half precision: what is verified, found and recorded in it, on every engine and architecture."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.stats import spearmanr

from neuroscope import events
from neuroscope.circuits.attribution import edge_scores
from neuroscope.circuits.evaluation import CircuitEvaluation
from neuroscope.circuits.finder import CircuitFinder
from neuroscope.circuits.graph import Graph
from neuroscope.circuits.patching import ActivationPatcher
from neuroscope.circuits.storage import read, write
from neuroscope.engines.precision import epsilon, tolerance
from neuroscope.engines.protocol import Apply, Engine, Port, TokenBatch
from neuroscope.engines.sites import Component, Site
from neuroscope.errors import ParityError
from neuroscope.models.model import TransformerModel
from neuroscope.provenance import provenance
from neuroscope.results import Provenance
from tests import tiny
from tests.backend.circuits.pairs import pairs_with_an_effect, random_pairs

HALF = ("bfloat16", "float16")
PRECISIONS = ("float32", *HALF)


def load(architecture: str, framework: str, dtype: str) -> TransformerModel:
    return TransformerModel.from_hugging_face(str(tiny.saved(architecture)), engine=framework, dtype=dtype)


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_verify_passes_in_half_precision(architecture: str, framework: str, dtype: str) -> None:
    model = load(architecture, framework, dtype)
    report = model.verify()
    assert report.passed
    assert report.precision == model.precision == dtype
    assert report.checks[0].tolerance == tolerance(dtype, tiny.LAYERS)


def test_verify_tells_a_fault_in_half_precision(framework: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load("llama", framework, "bfloat16")
    forward = type(model.engine).forward

    def shrunk(self: Engine, batch: TokenBatch, **named: object) -> object:
        run = forward(self, batch, **named)  # type: ignore[arg-type]
        run.logits = None if run.logits is None else run.logits * (0.8 if batch.rows > 1 else 1.0)
        return run

    monkeypatch.setattr(type(model.engine), "forward", shrunk)
    with pytest.raises(ParityError, match="in bfloat16"):
        model.verify()


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_edges_score_in_half_precision_as_in_single(architecture: str, framework: str, dtype: str) -> None:
    models = [load(architecture, framework, one) for one in ("float32", dtype)]
    pairs = random_pairs()
    expected, found = (edge_scores(model.engine, pairs, method="eap_ig", steps=3) for model in models)
    there = Graph.of(models[0].engine.anatomy).valid
    # Random experts have near ties, and another expert is another model.
    least = 0.9 if architecture == "gpt_oss" else 0.95
    assert spearmanr(expected[there], found[there]).statistic >= least


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("architecture", [name for name in tiny.ARCHITECTURES if name != "gpt_oss"])
def test_the_whole_graph_is_the_model(architecture: str, framework: str, dtype: str) -> None:
    model = load(architecture, framework, dtype)
    evaluation = CircuitEvaluation(model.engine, random_pairs())
    whole, clean = evaluation.metric(Graph.of(model.engine.anatomy).valid), evaluation.clean
    logits = model.engine.ops.to_numpy(model.engine.forward(random_pairs().clean).logits)
    assert float(abs(whole - clean).max()) <= tolerance(dtype, tiny.LAYERS) * float(logits.std())


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("architecture", ["gpt2", "gemma2", "gpt_oss"])
def test_a_circuit_is_found_and_tested_in_half_precision(architecture: str, framework: str, dtype: str) -> None:
    model = load(architecture, framework, dtype)
    finder = CircuitFinder(model, target=0.6, random_circuits=1, minimality_sample=3)
    circuit = finder.search("indirect_object_identification", pairs_with_an_effect(model, 30))
    assert circuit.edge_count > 0
    assert circuit.provenance.dtype == dtype
    assert circuit.provenance.device == model.device
    tested = ActivationPatcher(model, controls=2).test_causal_relationship(circuit)
    assert tested.provenance.found_dtype is None


def test_a_circuit_of_another_precision_is_told_and_not_refused(framework: str, tmp_path: object) -> None:
    single, half = (load("gpt2", framework, dtype) for dtype in ("float32", "bfloat16"))
    assert single.weights_hash == half.weights_hash
    finder = CircuitFinder(single, target=0.6, random_circuits=1, minimality_sample=3)
    circuit = finder.search("indirect_object_identification", pairs_with_an_effect(single, 30))
    told: list[str] = []
    with events.listen(lambda event: told.append(event.message) if isinstance(event, events.Notice) else None):
        tested = ActivationPatcher(half, controls=2).test_causal_relationship(circuit)
    assert any("found in float32" in text and "bfloat16" in text for text in told)
    assert (tested.provenance.dtype, tested.provenance.found_dtype) == ("bfloat16", "float32")


def test_a_circuit_file_keeps_the_precision_and_loads_in_it(framework: str, tmp_path: str) -> None:
    model = load("gpt2", framework, "float16")
    circuit = CircuitFinder(model, target=0.6, random_circuits=1, minimality_sample=3).search(
        "indirect_object_identification", pairs_with_an_effect(model, 30)
    )
    again = read(write(circuit, f"{tmp_path}/half.circuit")).circuit()
    assert again.provenance == dataclasses.replace(circuit.provenance)
    assert again.model.precision == "float16"


def test_provenance_of_older_files_loads() -> None:
    old = Provenance(model="m", weights_hash="h", engine="torch", task=None, seed=0, sizes={}, versions={})
    assert (old.dtype, old.device, old.asked_for, old.title) == (None, None, None, "m")


def test_numbers_leave_the_engine_wide(framework: str) -> None:
    for dtype in HALF:
        model = load("gpt2", framework, dtype)
        ops = model.engine.ops
        half = ops.asarray(np.linspace(-3, 3, 50, dtype=np.float32)[None])
        assert ops.to_numpy(half).dtype == np.float32
        logs = ops.to_numpy(ops.log_softmax(half)).astype(np.float64)
        # Rounded to half precision the probabilities of 50 tokens would miss one by a thousandth and more.
        assert abs(np.exp(logs).sum() - 1) < 1e-5


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_gradients_pass_a_norm_in_half_precision(architecture: str, framework: str, dtype: str) -> None:
    models = [load(architecture, framework, one) for one in ("float32", dtype)]
    random = np.random.default_rng(0)
    x, gradient = random.normal(size=(2, 5, 32)) * 3, random.normal(size=(2, 5, 4, 32))
    for port in Port:
        expected, found = (
            model.engine.ops.to_numpy(
                model.engine.normalise_gradient(1, port, model.engine.ops.asarray(x), model.engine.ops.asarray(gradient))
            )
            for model in models
        )
        assert float(abs(found - expected).max() / abs(expected).max()) < 4 * epsilon(dtype)


@pytest.mark.parametrize("dtype", HALF)
def test_edits_and_generation_run_in_half_precision(framework: str, dtype: str) -> None:
    model = load("gpt_oss", framework, dtype)
    louder: Apply = lambda value, _: value * 2  # noqa: E731
    from neuroscope.engines.protocol import Edit

    batch = TokenBatch.of([[5, 17, 40]])
    edited = model.engine.forward(batch, edits=[Edit(Site(1, Component.MLP), louder)])
    assert model.engine.ops.is_finite(edited.logits)
    assert model.generate("w5 w17 w40", max_tokens=3)
    stamp = provenance(model, None, 0)
    assert (stamp.dtype, stamp.engine) == (dtype, framework)
