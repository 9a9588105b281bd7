"""The analyses on models whose inner workings are known."""

from __future__ import annotations

import numpy as np
import pytest

from neuroscope.analyses.answers import AnswerTrace
from neuroscope.analyses.stream import StreamAnalysis, participation_ratio
from neuroscope.analyses.writing import WritingAnalysis
from neuroscope.errors import ArgumentError, DatasetError
from neuroscope.models.engines.protocol import TokenBatch
from neuroscope.models.sites import Component, Site
from neuroscope.tasks.dataset import Example
from tests import tiny
from tests.backend.circuits.examples import handmade, induction_examples


@pytest.fixture(scope="module")
def trace() -> AnswerTrace:
    found = handmade().analyze("factual_recall", induction_examples(8))
    assert isinstance(found, AnswerTrace)
    return found


def test_an_answer_is_traced_through_the_circuit_set_by_hand(trace: AnswerTrace) -> None:
    assert trace.accuracy.value == 1
    recovered = np.array(trace.heads)
    assert recovered[0, 0] > 0.9
    assert recovered[1, 0] > 0.9
    assert np.abs(recovered[:, 1]).max() < 1e-6
    assert trace.mlps == pytest.approx([0, 0], abs=1e-6)
    assert {part.site for part in trace.components[:2]} == {"0.headOutput[0]", "1.headOutput[0]"}


def test_only_the_last_head_writes_the_answer(trace: AnswerTrace) -> None:
    direct = np.array(trace.attribution.heads)
    assert direct[1, 0] == pytest.approx(trace.clean_lead.value, abs=1e-3)
    assert np.abs(np.delete(direct.ravel(), 2)).max() < 1e-3
    assert trace.answer_rank[-1] == 0
    assert trace.decided == "layer 1"
    assert "denoising" in trace.summary()
    assert trace.as_dictionary()["residualMap"]["values"]


def test_what_the_model_gets_wrong_is_told() -> None:
    model = tiny.model("gpt2")
    logits = model.engine.ops.to_numpy(model.engine.bare_logits(TokenBatch.of([[5, 6]])))[0, -1]
    best, worst = f"w{3 + int(logits[3:].argmax())}", f"w{3 + int(logits[3:].argmin())}"
    with pytest.raises(DatasetError, match="none of 1 prompts right"):
        model.analyze("factual_recall", Example("w5 w6", corrupt="w7 w6", answer=worst, wrong=best))


def test_the_stream_is_what_is_written_into_it(framework: str) -> None:
    model = tiny.model("llama", on=framework)
    text = "w5 w6 w7 w8 w9 w10"
    found = model.analyze("residual_stream", text)
    assert isinstance(found, StreamAnalysis)
    sites = [Site(0, Component.ATTENTION), Site(0, Component.RESIDUAL_PRE), Site(2, Component.RESIDUAL)]
    run = model.engine.forward(model.encode(text), capture=sites)
    attention, before, top = (model.engine.ops.to_numpy(run[site])[0, 1:] for site in sites)
    sizes = np.linalg.norm(attention, axis=-1) / np.linalg.norm(before, axis=-1)
    assert found.attention_size[0] == pytest.approx(sizes.mean(), rel=1e-4)
    assert found.norms[-1][1:] == pytest.approx(np.linalg.norm(top, axis=-1), rel=1e-4)
    assert found.kl[-1] == pytest.approx(0, abs=1e-6)
    assert len(found.turning) == tiny.LAYERS
    assert "KL to final" in found.summary()
    with pytest.raises(ArgumentError, match="too short"):
        model.analyze("residual_stream", "w5 w6")


def test_participation_ratio_counts_dimensions() -> None:
    line = np.outer(np.arange(5.0), [1, 2, 3])
    assert participation_ratio(line) == pytest.approx(1)
    assert participation_ratio(np.concatenate([np.eye(4), -np.eye(4)])) == pytest.approx(4)
    assert participation_ratio(np.ones((3, 2))) == 0


@pytest.fixture(scope="module")
def written(framework: str) -> WritingAnalysis:
    found = tiny.model("gpt2", scale=0.05, on=framework).analyze("creative_writing", "w5 w6 w7")
    assert isinstance(found, WritingAnalysis)
    return found


def test_writing_varies_with_temperature(written: WritingAnalysis) -> None:
    greedy, *_, hot = written.samples
    assert greedy.temperature == 0
    assert greedy.distinct_2 < hot.distinct_2
    assert greedy.surprise.value <= hot.surprise.value
    assert len(hot.texts) == 8


def test_each_choice_is_accounted_for(written: WritingAnalysis) -> None:
    model = tiny.model("gpt2", scale=0.05)
    count = len(written.tokens)
    batch = model.encode("w5 w6 w7 " + " ".join(written.tokens))
    logs = model.engine.ops.to_numpy(model.engine.ops.log_softmax(model.engine.bare_logits(batch)))[0, 2:-1].astype(np.float64)
    chosen = batch.ids[0, 3:]
    assert written.surprise == pytest.approx(-logs[np.arange(count), chosen], abs=1e-4)
    assert written.entropy == pytest.approx(-(np.exp(logs) * logs).sum(-1), abs=1e-4)
    likeliest = logs.argmax(-1) == chosen
    assert [row < len(written.layers) for row in written.decided] == likeliest.tolist()
    total = np.array(written.looks_at_prompt) + np.array(written.looks_at_own) + np.array(written.looks_at_first)
    assert total == pytest.approx([1] * tiny.LAYERS, abs=1e-4)
    assert "freest choice" in written.summary()
