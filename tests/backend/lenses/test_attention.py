"""Attention patterns and head roles, on the induction circuit set by hand."""

from __future__ import annotations

import re

import numpy as np
import pytest

from neuroscope.lenses.attention import attention_patterns
from tests import tiny
from tests.backend.circuits.examples import handmade


def test_the_heads_set_by_hand_have_their_roles() -> None:
    model = handmade()
    found = attention_patterns(model, "w5 w6 w7 w8 w5")
    assert [(head.layer, head.head) for head in found.with_role("previous-token")] == [(0, 0)]
    assert [(head.layer, head.head) for head in found.with_role("induction")] == [(1, 0)]
    assert found.heads[-1].scores["induction"] == pytest.approx(found.uniform_score, abs=1e-3)
    assert found.uniform_score < 0.25
    assert re.search(r"induction +1 heads  1\.0 \(", found.summary())
    assert "attends as induction" in found.heads[2].print_string()


@pytest.mark.parametrize("architecture", ["gpt2", "gpt_oss", "gemma2"])
def test_patterns_are_the_models_own(architecture: str, framework: str) -> None:
    model = tiny.model(architecture, on=framework)
    found = attention_patterns(model, "w5 w6 w7 w8")
    assert found.patterns.shape == (tiny.LAYERS, 4, 4, 4)
    sums = found.patterns.sum(-1)
    assert sums.max() <= 1 + 1e-5
    assert architecture == "gpt_oss" or sums == pytest.approx(np.ones_like(sums), abs=1e-5)
    assert np.triu(found.patterns, 1).max() == 0
    assert len(found.heads) == tiny.LAYERS * 4
    assert np.array(found.as_dictionary()["patterns"])[1, 2] == pytest.approx(np.array(found.pattern(1, 2)), abs=1e-4)
    assert all(0 <= head.entropy <= 2 for head in found.heads)


def test_a_head_that_looks_nowhere_in_particular_has_no_role() -> None:
    found = attention_patterns(tiny.model("gpt2", scale=0.0001), "w5 w6 w7 w8")
    assert all(not {"previous-token", "duplicate-token", "induction"} & set(head.roles) for head in found.heads)
    previous = [head.scores["previous-token"] for head in found.heads]
    assert previous == pytest.approx([found.uniform_score] * len(previous), abs=1e-3)


def test_what_a_head_scores_on_a_text_is_counted_over_its_tokens_but_the_first() -> None:
    found = attention_patterns(tiny.model("gpt2", scale=0.3), "w5 w6 w7 w8 w9")
    for head in found.heads:
        pattern = found.patterns[head.layer, head.head].astype(np.float64)
        entropies, distances = [], []
        for query in range(1, 5):
            row = pattern[query, : query + 1]
            entropies.append(-sum(share * np.log2(share) for share in row))
            distances.append(sum(share * (query - key) for key, share in enumerate(row)))
        assert head.entropy == pytest.approx(np.mean(entropies), abs=1e-4)
        assert head.distance == pytest.approx(np.mean(distances), abs=1e-4)
        assert head.scores["first-token"] == pytest.approx(pattern[1:, 0].mean(), abs=1e-5)


def test_a_head_parks_only_if_it_does_so_whatever_the_first_token_is() -> None:
    """Random models look at some first tokens by chance, and at none of random sequences."""
    for seed in range(6):
        found = attention_patterns(tiny.model("llama", seed=seed), "w5 w6 w7 w8 w5")
        assert not found.with_role("first-token")
    assert max(head.scores["first-token"] for head in found.heads) > 0.5


def test_heads_of_random_models_attend_as_no_kind_of_head() -> None:
    kinds = {"previous-token", "duplicate-token", "induction"}
    named, heads = 0, 0
    for seed in range(20):
        found = attention_patterns(tiny.model(("gpt2", "llama")[seed % 2], seed=seed), "w5 w6 w7 w8")
        named += sum(bool(kinds & set(head.roles)) for head in found.heads)
        heads += len(found.heads)
    assert named <= 0.05 * heads
