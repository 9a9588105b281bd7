"""Each objective is what it says, and its gradient is that of finite differences."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from neuroscope.circuits.evaluation import CircuitEvaluation
from neuroscope.engines.protocol import TokenBatch
from neuroscope.engines.torch.engine import TorchEngine
from neuroscope.engines.tuning import StepSettings
from neuroscope.engines.weights import WeightSite
from neuroscope.models.model import TransformerModel
from neuroscope.tuning.objectives import Coherence, Preservation, TaskItems, own_text
from tests import tiny
from tests.backend.circuits.pairs import random_pairs
from tests.backend.tuning import made

ROWS = np.arange(3)
SITES = ("0.attn.W_V[1]", "1.attn.W_Q[1]", "1.attn.W_O[2]", "2.mlp.W_in", "2.mlp.W_out")


def double(architecture: str) -> TransformerModel:
    """A model that computes in float64 throughout; transformers' RMS norms would go through float32."""
    model = tiny.hf_model(architecture).double()
    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = functools.partial(rms_norm, module)
    engine = TorchEngine(model)
    return TransformerModel(engine, tiny.tokenizer(), f"double {architecture}", "hash")


def rms_norm(module: Any, x: torch.Tensor) -> torch.Tensor:
    found: torch.Tensor = module.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + module.variance_epsilon)
    return found


def check(engine: Any, loss: Callable[[], Any]) -> None:
    """Gradients of the tuned weights against central differences, at some numbers of each."""
    tuner = engine.tuner([WeightSite.parse(site) for site in SITES], StepSettings())
    gradients = tuner.gradients(lambda: [loss()], [1.0])
    random, eps = np.random.default_rng(0), 1e-6
    assert len(gradients) >= 4
    for name, parameter in engine.model.named_parameters():
        if name not in gradients:
            continue
        flat, found = parameter.detach().reshape(-1), gradients[name].reshape(-1)
        for at in random.choice(np.flatnonzero(found), 4, replace=False):
            was, ends = float(flat[at]), []
            for side in (1, -1):
                flat[at] = was + side * eps
                ends.append(float(loss().detach()))
            flat[at] = was
            assert (ends[0] - ends[1]) / (2 * eps) == pytest.approx(found[at], rel=1e-4, abs=1e-7), (name, at)


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_the_task(architecture: str) -> None:
    model = double(architecture)
    items = TaskItems(model, list(made.dataset(3)))
    logits = model.engine.ops.to_numpy(model.run([e.clean for e in made.dataset(3)]).logits)[:, -1]
    logs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    assert float(items.loss(model.engine, ROWS)) == pytest.approx(-logs[:, 9].mean())
    check(model.engine, lambda: items.loss(model.engine, ROWS))


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "gpt_neox"])
def test_the_coherence(architecture: str) -> None:
    model, pairs = double(architecture), random_pairs(3)
    circuit = made.circuit(model, *made.NODES)
    coherence = Coherence(model.engine, circuit, pairs)
    runs = CircuitEvaluation(model.engine, pairs)
    gap = (runs.clean - runs.empty).mean()
    expected = (((runs.metric(circuit.mask) - runs.clean) / gap) ** 2).mean()
    assert float(coherence.loss(model.engine, ROWS)) == pytest.approx(expected, rel=1e-6)
    assert expected > 1e-3
    constant, ablated = coherence.constants(model.engine, ROWS)

    def loss() -> Any:
        return coherence.loss_against(model.engine, constant, dataclasses.replace(ablated, _projected={}))

    check(model.engine, loss)


def test_the_coherence_of_the_whole_graph_is_perfect() -> None:
    model = double("llama")
    circuit = made.circuit(model, *made.NODES)
    whole = dataclasses.replace(circuit, _mask=circuit.graph.valid)
    assert float(Coherence(model.engine, whole, random_pairs(3)).loss(model.engine, ROWS)) < 1e-20


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_the_preservation(architecture: str) -> None:
    model = double(architecture)
    text = TokenBatch.of([[5, 6, 7, 8], [9, 10, 11], [12, 13, 14, 15]])
    engine = model.engine.copy()
    kept = Preservation(model.engine, text)
    assert float(kept.loss(engine, ROWS)) == 0
    assert isinstance(engine, TorchEngine)
    with torch.no_grad():
        for parameter in engine.model.parameters():
            parameter.mul_(1.05)
    before, after = (torch.log_softmax(torch.as_tensor(e.forward(text).logits), -1).numpy() for e in (model.engine, engine))
    kl = [(np.exp(b) * (b - a)).sum(-1)[real].mean() for b, a, real in zip(before, after, text.real, strict=True)]
    assert float(kept.loss(engine, ROWS)) == pytest.approx(np.mean(kl))
    check(engine, lambda: kept.loss(engine, ROWS))


def test_the_text_of_a_model_is_its_own() -> None:
    model = tiny.model("gpt2", scale=0.5)
    text = own_text(model, 5, 7, seed=0)
    assert text.rows == 5
    assert (text.ids[:, 0] == 2).all()
    assert (own_text(model, 5, 7, seed=0).ids == text.ids).all()
    assert own_text(model, 5, 7, seed=1).ids.tolist() != text.ids.tolist()
