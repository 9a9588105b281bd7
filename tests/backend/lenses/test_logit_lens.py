"""The logit lens ends at the model's own prediction, and reads what the weights make of each layer."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax

from neuroscope.engines.protocol import TokenBatch
from neuroscope.engines.sites import Component, Site
from neuroscope.lenses import logit_lens as logit_lenses
from neuroscope.lenses.logit_lens import answers_by_layer, decided_from, logit_lens
from tests import tiny

TEXT = "w5 w6 w7 w8 w9"


@pytest.mark.parametrize("architecture", ["gpt2", "gpt_oss", "gemma2"])
def test_the_last_row_is_the_models_prediction(architecture: str, framework: str) -> None:
    model = tiny.model(architecture, on=framework)
    lens = logit_lens(model, TEXT)
    logits = model.engine.ops.to_numpy(model.engine.bare_logits(model.encode(TEXT)))[0]
    assert lens.predictions == [model.tokenizer.decode([int(token)]) for token in logits.argmax(-1)]
    assert lens.kl[-1] == pytest.approx([0] * 5, abs=1e-6)
    assert lens.layers == ["embedding", "0", "1", "2"]
    assert min(map(min, lens.kl)) >= 0
    assert all(0 < p <= 1 for row in lens.probability for p in row)


def test_a_layer_is_read_through_the_final_norm_and_the_unembedding(framework: str) -> None:
    model = tiny.model("llama", on=framework)
    engine = model.engine
    lens = logit_lens(model, TEXT)
    site = Site(0, Component.RESIDUAL)
    stream = engine.ops.to_numpy(engine.forward(model.encode(TEXT), capture=[site])[site])[0].astype(np.float64)
    normalised = stream / np.sqrt((stream**2).mean(-1, keepdims=True) + 1e-6) * engine.weights("ln_final.w").read()
    expected = softmax(normalised @ engine.weights("unembed.W_U").read(), axis=-1)
    assert lens.probability[1] == pytest.approx(expected.max(-1), abs=1e-5)


def test_where_a_prediction_is_decided() -> None:
    table = np.array([[1, 5, 7], [2, 6, 7], [2, 5, 7], [2, 6, 7]])
    assert decided_from(table).tolist() == [1, 3, 0]
    assert decided_from(np.array([[3, 1], [2, 2], [3, 1], [3, 1]])).tolist() == [2, 2]


def test_the_divergence_is_that_of_each_layer_from_the_final_prediction() -> None:
    lens = logit_lens(model := tiny.model("gpt2"), TEXT)
    engine, batch = model.engine, model.encode(TEXT)
    sites = [Site(None, Component.EMBEDDING), *(Site(layer, Component.RESIDUAL) for layer in range(tiny.LAYERS))]
    run = engine.forward(batch, capture=sites)
    shares = [
        softmax(engine.ops.to_numpy(engine.forward(batch, start=tiny.LAYERS, residual=run[site]).logits)[0], axis=-1)
        for site in sites
    ]
    final = shares[-1].astype(np.float64)
    for row, layer in enumerate(shares):
        assert lens.kl[row] == pytest.approx((final * np.log(final / layer)).sum(-1), abs=1e-4)
        assert lens.final_probability[row] == pytest.approx(layer[np.arange(5), final.argmax(-1)], abs=1e-5)
    assert min(lens.kl[0]) > 0.1


def test_answers_are_ranked_at_the_last_token(framework: str) -> None:
    engine = tiny.engine_on(framework, "gpt2")
    batch = TokenBatch.of([[5, 6, 7], [8, 9]])
    logits = engine.ops.to_numpy(engine.bare_logits(batch))[np.arange(2), batch.column(-1)]
    probability, rank = answers_by_layer(engine, batch, logits.argmax(-1))
    assert rank[-1].tolist() == [0, 0]
    assert probability.shape == (tiny.LAYERS + 1, 2)
    shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    assert probability[-1] == pytest.approx(shares.max(-1), abs=1e-5)


def test_the_summary_reads_the_last_token_layer_by_layer() -> None:
    lens = logit_lens(tiny.model("gpt2"), TEXT)
    told = lens.summary().splitlines()
    assert [line.split("  ")[1] for line in told[2:6]] == ["embedding", "layer 0", "layer 1", "layer 2"]
    for row, line in enumerate(told[2:6]):
        figures = [lens.probability[row][-1], lens.final_probability[row][-1], lens.kl[row][-1]]
        assert [float(number) for number in line.split()[-3:]] == pytest.approx(figures, abs=6e-4)
        assert repr(lens.top[row][-1]) in line
    decided = ["embedding", "layer 0", "layer 1", "layer 2"][lens.decided[-1]]
    assert told[6] == f"  decided from {decided} on"
    assert len(told) == 7


def test_ties_count_half_of_a_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    logs = np.log(np.array([[0.4, 0.2, 0.2, 0.2], [0.1, 0.1, 0.3, 0.5]]))
    monkeypatch.setattr(logit_lenses, "read_streams", lambda *_: [None])
    monkeypatch.setattr(logit_lenses, "read_out", lambda *_: logs)
    probability, rank = answers_by_layer(tiny.engine("gpt2"), TokenBatch.of([[5], [6]]), np.array([1, 2]))
    assert probability.tolist() == [pytest.approx([0.2, 0.3])]
    assert rank.tolist() == [[2.0, 1.0]]
