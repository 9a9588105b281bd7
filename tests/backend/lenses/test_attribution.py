"""Direct logit attribution: the terms sum to the lead, and each is what the weights say."""

from __future__ import annotations

import numpy as np
import pytest

from neuroscope.engines.protocol import TokenBatch
from neuroscope.engines.sites import Component, Site
from neuroscope.errors import ArgumentError
from neuroscope.lenses.attribution import attribute_logits, contributions
from tests import tiny

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
