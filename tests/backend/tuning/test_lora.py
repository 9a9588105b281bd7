"""LoRA of a circuit's size beside its training: by peft where it is installed, and named as left out where it is not."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest
import torch

from neuroscope.engines.protocol import TokenBatch
from neuroscope.engines.tuning import StepSettings
from neuroscope.errors import ArgumentError, MissingExtraError
from neuroscope.tuning.objectives import Coherence
from neuroscope.tuning.trainer import CircuitAwareTrainer
from tests import tiny
from tests.backend.circuits.pairs import random_pairs
from tests.backend.tuning import made

needs_peft = pytest.mark.skipif(
    importlib.util.find_spec("peft") is None, reason="needs peft: pip install 'neuroscope-interp[lora]'"
)
SETTINGS: dict[str, Any] = {"steps": 4, "every": 2, "batch": 8, "items": (24, 12, 12), "learning_rate": 1e-2, "keeping": []}
BATCH = TokenBatch.of([[5, 6, 7, 8], [9, 10, 11, 12]])


def test_where_peft_is_missing_it_is_left_out_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.model("gpt2")
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "peft" else found(name, *more))
    with pytest.raises(MissingExtraError, match=r"neuroscope-interp\[lora\]"):
        CircuitAwareTrainer(model, made.circuit(model, *made.NODES), **SETTINGS, controls="lora")
    one = CircuitAwareTrainer(model, made.circuit(model, *made.NODES), **SETTINGS | {"steps": 1, "every": 1})
    one.add_objective("taskPerformance", 1.0)
    one.train(made.dataset())
    assert [control.weights for control in one.training.controls] == ["random circuit", "all weights"]
    assert any("peft" in note for note in one.training.notes)


@tiny.needs_mlx
def test_on_mlx_it_is_refused() -> None:
    with pytest.raises(ArgumentError, match="torch"):
        tiny.engine_on("mlx", "gpt2").adapters(100, StepSettings())


@needs_peft
@pytest.mark.parametrize("architecture", ["gpt2", "llama", "phi3"])
def test_only_the_adapters_change_and_circuits_see_them(architecture: str) -> None:
    model = tiny.model(architecture)
    engine = model.engine.copy()
    coherence = Coherence(model.engine, made.circuit(model, *made.NODES), random_pairs(3))
    tuner = engine.adapters(2000, StepSettings(learning_rate=0.05))
    assert tuner.numbers == pytest.approx(2000, rel=0.35)
    assert torch.equal(engine.forward(BATCH).logits, model.engine.forward(BATCH).logits)  # B is 0 at first
    for _ in range(3):
        tuner.step(lambda: [coherence.loss(engine, np.arange(3)), -engine.forward(BATCH).logits[:, -1, 7].mean()], [1.0, 1.0])
    base = {n.replace(".base_layer", ""): p for n, p in engine.model.named_parameters() if ".lora_" not in n}
    for name, value in model.engine.model.named_parameters():
        assert torch.equal(base[name], value), name
    plain = model.engine.copy()  # the same matrices, without adapters
    for layer in range(tiny.LAYERS):
        for weight in ("attn.W_Q", "attn.W_K", "attn.W_V", "attn.W_O", "mlp.W_gate", "mlp.W_in", "mlp.W_out"):
            if weight != "mlp.W_gate" or architecture != "gpt2":
                plain.weights(f"{layer}.{weight}").write(engine.weights(f"{layer}.{weight}").read())
    logits = [np.asarray(e.forward(BATCH).logits) for e in (model.engine, engine, plain)]
    assert np.abs(logits[1] - logits[0]).max() > 1e-2
    assert np.abs(logits[1] - logits[2]).max() < 1e-4
    with torch.no_grad():
        losses = [float(coherence.loss(e, np.arange(3))) for e in (model.engine, engine, plain)]
    assert losses[1] == pytest.approx(losses[2], rel=1e-3)
    assert losses[1] != pytest.approx(losses[0], rel=1e-2)


@needs_peft
def test_it_is_measured_beside_the_circuit() -> None:
    model = tiny.model("gpt2")
    found = []
    for _ in range(2):
        one = CircuitAwareTrainer(model, made.circuit(model, *made.NODES), **SETTINGS, controls="LoRA")
        one.add_objective("taskPerformance", 1.0)
        one.train(made.dataset())
        (control,) = one.training.controls
        found.append(control)
    assert found[0] == found[1]  # the seed is the trainer's
    assert control.weights == "LoRA"
    assert control.numbers == pytest.approx(one.training.circuit.numbers, rel=0.35)
    assert control.best_step > 0
    assert "LoRA" in one.training.summary()
