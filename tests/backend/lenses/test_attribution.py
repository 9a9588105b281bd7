"""Direct logit attribution: the terms sum to the lead, and each is what the weights say."""

from __future__ import annotations

import numpy as np
import pytest

from neuroscope.engines.protocol import TokenBatch
from neuroscope.engines.sites import Component, Site
from neuroscope.errors import ArgumentError
from neuroscope.lenses.attribution import attribute_logits, contributions
from tests import tiny
from tests.backend.features.planted import planted_model

ROWS = [[5, 6, 7, 8], [9, 10, 11], [12, 5, 13, 14, 15]]
ANSWERS, WRONGS = np.array([20, 21, 22]), np.array([30, 31, 32])


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_the_terms_sum_to_the_lead(architecture: str, framework: str) -> None:
    engine = tiny.engine_on(framework, architecture)
    batch = TokenBatch.of(ROWS)
    found = contributions(engine, batch, ANSWERS, WRONGS)
    logits = engine.ops.to_numpy(engine.bare_logits(batch))[np.arange(3), batch.column(-1)]
    lead = logits[np.arange(3), ANSWERS] - logits[np.arange(3), WRONGS]
    assert found.lead == pytest.approx(lead, abs=1e-4)
    assert found.total == pytest.approx(lead, abs=1e-3)


@pytest.mark.parametrize(("architecture", "epsilon"), [("gpt2", 1e-5), ("llama", 1e-6), ("gpt_oss", 1e-5)])
def test_a_term_is_the_write_through_the_frozen_norm_and_the_unembedding(
    architecture: str, epsilon: float, framework: str
) -> None:
    engine = tiny.engine_on(framework, architecture)
    batch = TokenBatch.of(ROWS[:1])
    found = contributions(engine, batch, ANSWERS[:1], WRONGS[:1])
    sites = [Site(1, Component.MLP_OUTPUT), Site(tiny.LAYERS - 1, Component.RESIDUAL), Site(1, Component.HEAD_OUTPUT)]
    run = engine.forward(batch, capture=sites)
    write, stream = (engine.ops.to_numpy(run[site])[0, -1].astype(np.float64) for site in sites[:2])
    head = engine.ops.to_numpy(run[sites[2]])[0, -1, 2].astype(np.float64) @ engine.weights("1.attn.W_O[2]").read()
    answer, wrong = (engine.weights(f"unembed.W_U[{ids[0]}]").read().astype(np.float64) for ids in (ANSWERS, WRONGS))
    direction = engine.weights("ln_final.w").read() * (answer - wrong)
    if architecture == "gpt2":
        scale = (stream.var() + epsilon) ** -0.5
        direction = direction - direction.mean()
    else:
        scale = ((stream**2).mean() + epsilon) ** -0.5
    assert found.mlps[0, 1] == pytest.approx(float(write @ direction * scale), abs=1e-4)
    assert found.heads[0, 1, 2] == pytest.approx(float(head @ direction * scale), abs=1e-4)


def test_the_result_tells_the_largest_first(framework: str) -> None:
    model = tiny.model("llama", on=framework)
    result = attribute_logits(model, ["w5 w6 w7", "w8 w9"], np.array([20, 21]), np.array([30, 31]))
    sizes = [abs(part.value.value) for part in result.components]
    assert sizes == sorted(sizes, reverse=True)
    assert result.gap < 1e-3
    assert result.answers == ["w20", "w21"]
    assert "lead" in result.summary()
    data = result.as_dictionary()
    assert np.array(data["heads"]).shape == (tiny.LAYERS, 4)
    assert data["lead"]["n"] == 2


def test_an_answer_has_no_lead_over_itself() -> None:
    with pytest.raises(ArgumentError, match="no lead"):
        attribute_logits(tiny.model("gpt2"), ["w5 w6"], np.array([7]), np.array([7]))


def test_a_result_is_the_mean_of_its_prompts_terms() -> None:
    model = planted_model(layers=9)
    prompts, answers, wrongs = ["w5 w6 w7", "w8 w9", "w5 w50"], np.array([20, 21, 22]), np.array([30, 31, 32])
    result = attribute_logits(model, prompts, answers, wrongs)
    each = contributions(model.engine, model.encode(prompts), answers, wrongs)
    assert result.lead.value == pytest.approx(each.lead.mean())
    assert (result.embedding, result.constant) == pytest.approx((each.embedding.mean(), each.constant.mean()))
    assert np.array(result.heads) == pytest.approx(each.heads.mean(0))
    assert result.attention_biases == pytest.approx(each.biases.mean(0))
    assert result.mlps == pytest.approx(each.mlps.mean(0))
    assert result.gap == pytest.approx(np.abs(each.lead - each.total).max())
    means = {"embedding": each.embedding.mean()}
    means |= {f"{layer}.mlpOutput": each.mlps[:, layer].mean() for layer in range(9)}
    means |= {f"{layer}.headOutput[{head}]": each.heads[:, layer, head].mean() for layer in range(9) for head in range(4)}
    largest = sorted(means, key=lambda site: -abs(means[site]))
    assert [part.site for part in result.components] == largest[:40]
    assert [part.value.value for part in result.components] == pytest.approx([means[site] for site in largest[:40]])
    told = result.summary().splitlines()
    assert [line.split()[0] for line in told[5:]] == largest[:12]
    assert told[1].endswith("and 2 more")
    assert f"[{result.components[0].value.low:+.3f}, {result.components[0].value.high:+.3f}]" in told[5]
    alone = attribute_logits(model, prompts[:1], answers[:1], wrongs[:1]).summary().splitlines()
    assert "[" not in alone[5]
    assert "more" not in alone[1]


def test_without_a_lead_there_are_no_terms() -> None:
    result = attribute_logits(tiny.model("gpt2"), ["w5 w6"], np.array([20]), np.array([30]), reason="nothing is answered")
    assert (result.exists, result.heads, result.attention_biases, result.mlps, result.components) == (False, [], [], [], [])
    assert result.summary().startswith("No effect. Direct logit attribution in tiny gpt2: nothing is answered")
    assert result.print_string() == "a LogitAttribution(1 prompts, no effect)"
