"""The memory that scoring takes is as predicted: against torch's profiler on models whose activations outweigh all else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from transformers import AutoModelForCausalLM, GptOssConfig, LlamaConfig

from neuroscope.circuits.attribution import edge_scores
from neuroscope.circuits.finder import CircuitFinder
from neuroscope.circuits.needs import memory_needed
from neuroscope.engines.protocol import TokenBatch
from neuroscope.engines.torch.engine import TorchEngine
from neuroscope.errors import ArgumentError
from neuroscope.tasks.metrics import PromptMetric
from neuroscope.tasks.pairs import PairBatch
from tests import tiny

VOCABULARY = 300


def engine(kind: str, dtype: str = "float32", **changes: Any) -> TorchEngine:
    shape = {
        "vocab_size": VOCABULARY,
        "hidden_size": 192,
        "intermediate_size": 320,
        "num_hidden_layers": 4,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 40,
    } | changes
    if kind == "gpt_oss":
        config: Any = GptOssConfig(**shape, num_local_experts=6, num_experts_per_tok=3, sliding_window=16)
    else:
        config = LlamaConfig(**shape)
    return TorchEngine(AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype)))


def pairs(rows: int, tokens: int, shared: int) -> PairBatch:
    random = np.random.default_rng(0)
    clean = random.integers(3, VOCABULARY, (rows, tokens))
    corrupt = clean.copy()
    corrupt[:, shared] = clean[:, shared] % (VOCABULARY - 10) + 5
    metric = PromptMetric("logit_difference", *random.integers(3, VOCABULARY, (2, rows)))
    return PairBatch(TokenBatch.of(clean.tolist()), TokenBatch.of(corrupt.tolist()), metric)


def peak(engine: TorchEngine, batch: PairBatch, steps: int) -> int:
    """The most bytes that tensors held at once, besides the weights."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        edge_scores(engine, batch, method="eap_ig", steps=steps)
    events = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]  # type: ignore[union-attr]
    held = np.cumsum([event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())])
    return int(held.max())


@pytest.mark.parametrize(
    ("kind", "changes", "rows", "tokens", "shared", "steps"),
    [
        ("llama", {}, 2, 40, 0, 5),
        ("llama", {"num_hidden_layers": 2, "intermediate_size": 64, "head_dim": 64}, 3, 24, 8, 3),
        ("gpt_oss", {}, 2, 40, 4, 4),
        ("gpt_oss", {"dtype": "bfloat16", "num_hidden_layers": 3}, 3, 32, 0, 5),
    ],
)
def test_a_batch_takes_what_is_predicted(
    kind: str, changes: dict[str, Any], rows: int, tokens: int, shared: int, steps: int
) -> None:
    made = engine(kind, **changes)
    found = peak(made, pairs(rows, tokens, shared), steps)
    need = memory_needed(
        made.anatomy, 0, pairs=rows, tokens=tokens, steps=steps, shared=shared, dtype=changes.get("dtype", "float32")
    )
    assert need.peak == pytest.approx(found, rel=0.15)


def test_a_finder_knows_its_models_weights_and_steps() -> None:
    model = tiny.model("llama")
    need = CircuitFinder(model, steps=3).memory_needed(pairs=4, tokens=16)
    weights = sum(tensor.numel() for tensor in model.engine.model.parameters()) * 4
    assert (need.weights, need.steps, need.pairs) == (weights, 3, 4)
    assert need.as_dictionary()["weights"] == weights
    assert "EAP-IG, 4 pairs of 16 tokens in 3 steps" in need.summary()
    with pytest.raises(ArgumentError, match="no batch of 0 pairs"):
        CircuitFinder(model).memory_needed(pairs=0, tokens=16)
