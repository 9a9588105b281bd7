"""Every figure shows the numbers of its result: read out of the page and held against the result's own data."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest

from neuroscope.analyses.answers import AnswerTrace
from neuroscope.analyses.stream import StreamAnalysis
from neuroscope.analyses.writing import WritingAnalysis
from neuroscope.lenses.attention import AttentionPatterns, attention_patterns
from neuroscope.lenses.attribution import LogitAttribution
from neuroscope.lenses.logit_lens import LogitLens
from neuroscope.results import Result
from tests import tiny
from tests.backend.circuits.examples import handmade, induction_examples
from tests.backend.views.drawn import Shown, shown
from tests.backend.views.test_pages import steering

TEXT = "w5 w6 w7 w8 w5 w6"


def analyzed(name: str, on: Any, *, by_hand: bool = False) -> tuple[Any, Shown]:
    model = handmade() if by_hand else tiny.model("gpt2", scale=0.05)
    result = model.analyze(name, on)
    return result, shown(result)


def test_a_page_begins_with_what_the_result_prints() -> None:
    result = steering()
    page = shown(result)
    assert page.heading == result.print_string()
    assert page.summary == result.summary()


def test_the_lens_table_is_the_lens() -> None:
    lens, page = analyzed("logit_lens", TEXT)
    assert isinstance(lens, LogitLens)
    table = page.figure("What each layer").trace(kind="heatmap")
    assert np.array(table["z"]) == pytest.approx(np.array(lens.probability))
    assert table["y"] == lens.layers
    assert np.array(table["customdata"])[..., 0] == pytest.approx(np.array(lens.final_probability))
    assert np.array(table["customdata"])[..., 1] == pytest.approx(np.array(lens.kl))
    assert [text.strip() for text in table["text"][-1]] == [token.strip() for token in lens.predictions]
    distance = page.figure("Distance").traces
    assert distance[0]["y"] == pytest.approx([row[-1] for row in lens.kl])
    assert distance[1]["y"] == pytest.approx([np.mean(row) for row in lens.kl])


def test_an_attribution_is_drawn_as_it_is() -> None:
    result, page = analyzed("logit_attribution", induction_examples(16), by_hand=True)
    assert isinstance(result, LogitAttribution)
    bars = page.figure("Contributions to the lead").trace(kind="bar")
    parts = dict(
        zip(bars["y"], zip(bars["x"], bars["error_x"]["array"], bars["error_x"]["arrayminus"], strict=True), strict=True)
    )
    assert set(parts) == {part.site for part in result.components}
    for part in result.components:
        value, above, below = parts[part.site]
        assert (value, value + above, value - below) == pytest.approx((part.value.value, part.value.high, part.value.low))
    assert f"{result.lead.value:.2f}" in page.figure("Contributions to the lead").title
    assert np.array(page.figure("Direct contribution of each head").trace()["z"]) == pytest.approx(np.array(result.heads))
    layers = page.figure("Layer by layer")
    assert layers.trace("attention")["y"] == pytest.approx(np.array(result.heads).sum(1) + np.array(result.attention_biases))
    assert layers.trace("MLP")["y"] == pytest.approx(result.mlps)
    assert layers.trace("written so far")["y"][-1] == pytest.approx(result.lead.value, abs=1e-3)


def test_a_trace_is_drawn_as_it_is() -> None:
    result, page = analyzed("mathematical_reasoning", induction_examples(16), by_hand=True)
    assert isinstance(result, AnswerTrace)
    assert result.residual_map is not None
    assert np.array(page.figure("Recovery by denoising the residual stream").trace()["z"]) == pytest.approx(
        np.array(result.residual_map.values)
    )
    by_layer = page.figure("The answer after each layer")
    assert by_layer.trace("probability of the answer")["y"] == pytest.approx(result.answer_probability)
    assert by_layer.traces[1]["y"] == pytest.approx([rank + 1 for rank in result.answer_rank])
    assert np.array(page.figure("Recovery by denoising one head").trace()["z"]) == pytest.approx(np.array(result.heads))
    assert page.figure("Recovery by denoising one MLP").trace()["y"] == pytest.approx(result.mlps)
    heads = [part for part in result.components if part.to_changed is not None]
    movers = page.figure("Attention of the strongest heads")
    assert movers.trace("to the changed tokens")["x"] == [part.site for part in heads]
    assert movers.trace("to the changed tokens")["y"] == pytest.approx([part.to_changed for part in heads])
    assert movers.trace("to an average other token")["y"] == pytest.approx([part.elsewhere for part in heads])


def test_without_an_effect_only_the_leads_are_drawn() -> None:
    result, page = analyzed("mathematical_reasoning", induction_examples(7), by_hand=True)
    assert page.summary.startswith("No effect.")
    (figure,) = page.figures
    bars = figure.trace()
    assert bars["y"] == pytest.approx([result.clean_lead.value, result.corrupt_lead.value])
    assert bars["error_y"]["array"] == pytest.approx(
        [each.high - each.value for each in (result.clean_lead, result.corrupt_lead)]
    )
    attribution, empty = analyzed("logit_attribution", induction_examples(7), by_hand=True)
    assert not attribution.exists
    assert empty.figures == []


def test_the_stream_is_drawn_as_it_is() -> None:
    result, page = analyzed("residual_stream", TEXT)
    assert isinstance(result, StreamAnalysis)
    growth = page.figure("Norm of the stream")
    assert growth.trace("norm of the stream")["y"] == pytest.approx(np.array(result.norms)[:, 1:].mean(1))
    assert growth.trace("KL to the final prediction")["y"] == pytest.approx(result.kl)
    writes = page.figure("What each layer writes")
    for name, size, cosine in (
        ("attention", result.attention_size, result.attention_cosine),
        ("MLP", result.mlp_size, result.mlp_cosine),
    ):
        assert writes.trace(name, "bar")["y"] == pytest.approx(size)
        assert writes.trace(name, "scatter")["y"] == pytest.approx(cosine)
    spread = page.figure("Dimension of the tokens")
    assert spread.traces[0]["y"] == pytest.approx(result.dimensions)
    assert spread.traces[1]["y"] == pytest.approx(result.turning)
    assert np.array(page.figure("What each layer would").trace()["z"]) == pytest.approx(np.array(result.lens.probability))


def test_writing_is_drawn_as_it_is() -> None:
    result, page = analyzed("creative_writing", TEXT)
    assert isinstance(result, WritingAnalysis)
    choices = page.figure("Entropy of each choice")
    assert choices.trace("entropy of the choice")["y"] == pytest.approx(result.entropy)
    assert choices.trace("surprise of the chosen token")["y"] == pytest.approx(result.surprise)
    assert page.figure("First layer from which").trace()["y"] == result.decided
    assert np.array(page.figure("Direct contribution of each head").trace()["z"]) == pytest.approx(np.array(result.heads))
    variety = page.figure("By temperature")
    for name in ("distinct_1", "distinct_2", "repeated"):
        drawn = variety.trace(name.replace("_", "-"))["y"]
        assert drawn == pytest.approx([getattr(sample, name) for sample in result.samples])
    assert variety.trace("as written")["y"] == pytest.approx([sample.surprise.value for sample in result.samples])
    shuffled = [sample.shuffled_surprise.value for sample in result.samples]
    assert variety.trace("the same tokens shuffled")["y"] == pytest.approx(shuffled)
    looks = page.figure("Attention of the new tokens")
    assert looks.trace("to the prompt")["y"] == pytest.approx(result.looks_at_prompt)
    assert looks.trace("to its own tokens")["y"] == pytest.approx(result.looks_at_own)
    assert looks.trace("to the first token")["y"] == pytest.approx(result.looks_at_first)


def test_attention_travels_in_steps_of_a_byte() -> None:
    result = attention_patterns(handmade(), "w5 w6 w7 w8 w5")
    assert isinstance(result, AttentionPatterns)
    data = shown(result).panels["attention"]
    weights = np.frombuffer(base64.b64decode(data["patterns"]), dtype=np.uint8).reshape(result.patterns.shape) / 255
    assert weights == pytest.approx(result.patterns, abs=0.5 / 255 + 1e-6)
    assert data["tokens"] == result.tokens
    most = max(head.entropy for head in result.heads)
    for drawn, head in zip(data["heads"], result.heads, strict=True):
        assert (drawn["layer"], drawn["head"], drawn["roles"]) == (head.layer, head.head, head.roles)
        assert drawn["scores"] == pytest.approx({**head.scores, "sharpness": 1 - head.entropy / most})


def test_steering_is_drawn_as_it_is() -> None:
    result = steering()
    page = shown(result)
    doses = page.figure("formal_style at 5.residual")
    measured = [result.effect, result.preference, result.fluency]
    assert len(doses.traces) == sum(map(len, measured))
    expected = iter((mode, by_strength) for by_mode in measured for mode, by_strength in by_mode.items())
    for trace, (mode, by_strength) in zip(doses.traces, expected, strict=True):
        assert trace["name"] == mode.replace("_", " ")
        assert trace["x"] == [float(strength) for strength in by_strength]
        assert trace["y"] == pytest.approx([each.value for each in by_strength.values()])
        assert trace["error_y"]["array"] == pytest.approx([each.high - each.value for each in by_strength.values()])
        assert trace["error_y"]["arrayminus"] == pytest.approx([each.value - each.low for each in by_strength.values()])
    growth = page.figure("Growth per unit of strength")
    assert "p = 0.048" in growth.title
    asked, random, of_text, random_of_text = growth.traces
    for trace, by_mode in ((asked, result.growth), (of_text, result.effect_growth)):
        assert trace["y"] == pytest.approx([by_mode[mode].value for mode in ("one_token", "all_tokens", "growing")])
    assert random["y"] == result.random_growth
    assert random_of_text["y"] == result.random_effect_growth
    density = page.figure("Score by token position").trace()
    assert density["x"] == [each.position for each in result.density]
    assert density["y"] == pytest.approx([each.score.value for each in result.density])


def test_every_figure_of_these_results_has_a_number_here(request: pytest.FixtureRequest) -> None:
    """Results with figures that this file and its neighbours know."""
    from neuroscope.views.page import figures, has_figures

    assert has_figures(steering())
    known = {kind for kind in figures.registry if isinstance(kind, type) and issubclass(kind, Result)}
    tested = {
        "AnswerTrace", "StreamAnalysis", "WritingAnalysis", "LogitLens", "LogitAttribution", "AttentionPatterns",
        "SteeringResults", "NeuronSet", "AblationResults", "EntangledFeatures", "Circuit", "FaithfulnessCurve",
        "GrowthAnalysis", "QualityReport", "CausalTestResults", "ResidualMap", "SuiteResult", "ValidationReport",
        "FactEdit", "FactCircuit", "WeightTransform", "CircuitTraining", "Detection", "HarmfulCircuits", "SafetyReport", "TokenScores", "StreamMap", "CircuitInstallation", "PatchingMap",
    }  # fmt: skip
    assert {kind.__name__ for kind in known} <= tested
