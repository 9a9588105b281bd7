"""The analyses on models whose inner workings are known."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from neuroscope.analyses.answers import AnswerTrace
from neuroscope.analyses.stream import StreamAnalysis, participation_ratio
from neuroscope.analyses.writing import WritingAnalysis
from neuroscope.engines.sites import Component, Site
from neuroscope.errors import ArgumentError
from neuroscope.lenses.attention import AttentionPatterns
from neuroscope.lenses.attribution import LogitAttribution
from neuroscope.tasks.dataset import Example
from tests import tiny
from tests.backend.circuits.examples import handmade, induction_examples


@pytest.fixture(scope="module")
def trace() -> AnswerTrace:
    found = handmade().analyze("factual_recall", induction_examples(16))
    assert isinstance(found, AnswerTrace)
    return found


def test_an_answer_is_traced_through_the_circuit_set_by_hand(trace: AnswerTrace) -> None:
    assert trace.accuracy.value == 1
    assert (trace.exists, trace.reason) == (True, None)
    assert trace.gap is not None
    assert trace.gap.low > 0
    assert trace.gap.n == 8  # half of the pairs, which nothing else rests on
    assert len(trace.prompts) == 8
    recovered = np.array(trace.heads)
    assert recovered[0, 0] > 0.9
    assert recovered[1, 0] > 0.9
    assert np.abs(recovered[:, 1]).max() < 1e-6
    assert trace.mlps == pytest.approx([0, 0], abs=1e-6)
    assert {part.site for part in trace.components} == {"0.headOutput[0]", "1.headOutput[0]"}
    assert all(part.q_value < 0.05 for part in trace.components)
    first = next(part for part in trace.components if part.site == "0.headOutput[0]")
    assert first.recovered.value == recovered[0, 0]
    assert first.direct == pytest.approx(0, abs=1e-3)
    last = next(part for part in trace.components if part.site == "1.headOutput[0]")
    # It looks at the token after the changed one, not at the changed ones, and writes the whole lead.
    assert last.direct == pytest.approx(trace.clean_lead.value, abs=1e-3)


def test_only_the_last_head_writes_the_answer(trace: AnswerTrace) -> None:
    assert trace.attribution is not None
    direct = np.array(trace.attribution.heads)
    assert direct[1, 0] == pytest.approx(trace.clean_lead.value, abs=1e-3)
    assert np.abs(np.delete(direct.ravel(), 2)).max() < 1e-3
    assert trace.answer_rank[-1] == 0
    assert trace.decided == "layer 1"
    assert "denoising" in trace.summary()
    assert trace.as_dictionary()["residualMap"]["values"]


def test_pairs_that_show_no_effect_are_not_traced() -> None:
    # The first and the fifth word of a prompt, or the other way round: nothing makes one likelier than the other.
    unrelated = []
    for number, each in enumerate(induction_examples(16)):
        words = each.clean.split()
        answer, wrong = (words[0], words[4])[:: 1 if number % 2 else -1]
        unrelated.append(dataclasses.replace(each, answer=answer, wrong=wrong))
    found = handmade().analyze("factual_recall", unrelated)
    assert isinstance(found, AnswerTrace)
    assert not found.exists
    assert "do not differ significantly" in (found.reason or "")
    first = found.summary().splitlines()[0]
    assert first == f"No effect. Factual recall in induction by hand: {found.reason}"
    assert "recovered" not in found.summary()
    data = found.as_dictionary()
    assert (data["exists"], data["reason"]) == (False, found.reason)
    assert data["heads"] == data["components"] == []
    assert data["residualMap"] is data["attribution"] is None


def test_what_the_model_gets_wrong_is_told() -> None:
    turned = [dataclasses.replace(each, answer=each.wrong, wrong=each.answer) for each in induction_examples(16)]
    found = handmade().analyze("factual_recall", turned)
    assert isinstance(found, AnswerTrace)
    assert (found.exists, found.accuracy.value) == (False, 0)
    assert "higher on corrupt prompts" in (found.reason or "")


def test_too_few_pairs_tell_no_effect() -> None:
    for name in ("factual_recall", "logit_attribution"):
        found: Any = handmade().analyze(name, induction_examples(7))
        assert not found.exists
        assert "7 pairs are too few" in found.reason
        assert "7 pairs are too few" in found.summary().splitlines()[0]


@pytest.mark.slow
def test_random_models_explain_nothing() -> None:
    """Twenty random models on random pairs: at most one effect, and at most one with a head of a known role."""
    traced = attributed = named = 0
    for seed in range(20):
        random, model = np.random.default_rng(seed), tiny.model("gpt2", seed=seed)
        pairs = []
        for words in random.integers(3, tiny.VOCABULARY, (24, 8)):
            clean, other, answer, wrong = list(words[:5]), words[5], words[6], words[7]
            corrupt = [*clean[:2], other, *clean[3:]]
            texts = [" ".join(f"w{word}" for word in prompt) for prompt in (clean, corrupt)]
            if other != clean[2] and answer != wrong:
                pairs.append(Example(texts[0], texts[1], f"w{answer}", f"w{wrong}"))
        trace, attribution = (model.analyze(name, pairs) for name in ("mathematical_reasoning", "logit_attribution"))
        assert isinstance(trace, AnswerTrace)
        assert isinstance(attribution, LogitAttribution)
        traced += trace.exists
        attributed += attribution.exists
        patterns = model.analyze("attention_patterns", pairs[0].clean)
        assert isinstance(patterns, AttentionPatterns)
        named += any(head.roles for head in patterns.heads)
    assert max(traced, attributed, named) <= 1


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
    assert all(sample.shuffled_p_value == 1 for sample in written.samples if sample.surprise.n == 1)
    for sample in written.samples:
        words = [text.split() for text in sample.texts]
        if sample.temperature:
            flat = [word for text in words for word in text]
            assert sample.distinct_1 == pytest.approx(len(set(flat)) / len(flat))


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
