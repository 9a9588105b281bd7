"""Repeated sequences: the scores are the attention that they name, and each pair differs in one token only."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from neuroscope.engines.protocol import TokenBatch
from neuroscope.engines.sites import Component, Site
from neuroscope.lenses import attention
from neuroscope.lenses.attention import attention_patterns
from neuroscope.lenses.repeats import REPEAT_THRESHOLD, repeat_pairs, repeat_scores, uniform_score
from tests import tiny


def engine_of(vocabulary: int, context: int | None) -> Any:
    return SimpleNamespace(anatomy=SimpleNamespace(vocabulary=vocabulary, context=context))


def test_scores_are_mean_attention_from_the_second_half() -> None:
    engine, rows, length = tiny.engine("llama", scale=0.4), 8, 20
    found = repeat_scores(engine, [0, 2], 3)
    once = np.random.default_rng(3).integers(0, tiny.VOCABULARY, (rows, length))
    batch = TokenBatch.of(np.concatenate([once, once], axis=1).tolist())
    for layer in (0, 2):
        site = Site(layer, Component.ATTENTION_PATTERN)
        pattern = engine.ops.to_numpy(engine.forward(batch, capture=[site])[site])
        for name, back in (("previous-token", 1), ("duplicate-token", length), ("induction", length - 1)):
            for head in range(4):
                each = [pattern[row, head, at, at - back] for row in range(rows) for at in range(length, 2 * length)]
                assert found[name][layer][head] == pytest.approx(np.mean(each), abs=1e-6)
    assert set(found["induction"]) == {0, 2}


def test_uniform_attention_is_one_of_all_tokens_so_far() -> None:
    assert uniform_score(engine_of(50, 4)) == pytest.approx((1 / 3 + 1 / 4) / 2)
    assert uniform_score(engine_of(50, None)) == uniform_score(engine_of(50, 41)) == uniform_score(engine_of(50, 500))
    assert uniform_score(engine_of(50, 39)) > uniform_score(engine_of(50, 40))


@pytest.mark.parametrize(
    ("vocabulary", "context", "length"), [(97, 128, 12), (97, None, 12), (5, None, 4), (97, 10, 5), (9, 24, 8)]
)
def test_a_pair_differs_in_the_token_before_the_answer(vocabulary: int, context: int | None, length: int) -> None:
    pairs = repeat_pairs(engine_of(vocabulary, context), 40, 1)
    assert pairs is not None
    places = set()
    for row in range(40):
        clean, corrupt = (list(batch.ids[row][batch.real[row]]) for batch in (pairs.clean, pairs.corrupt))
        once, at = clean[:length], len(clean) - length - 1
        places.add(at)
        assert len(set(once)) == length
        assert clean[length:] == once[: at + 1]
        assert [index for index in range(len(clean)) if clean[index] != corrupt[index]] == [at]
        assert corrupt[at] not in clean
        assert pairs.metric.answers[row] == once[at + 1]
        assert pairs.metric.wrongs[row] in set(once) - {once[at], once[at + 1]}
    assert places == set(range(min(3 * length // 4, length - 2), length - 1))
    again = repeat_pairs(engine_of(vocabulary, context), 40, 1)
    assert again is not None
    assert np.array_equal(again.clean.ids, pairs.clean.ids)
    # Any other token of the first half may be the wrong one.
    drawn = {list(pairs.clean.ids[row]).index(pairs.metric.wrongs[row]) for row in range(40)}
    assert drawn == {place for at in places for place in range(length) if place not in (at, at + 1)}


@pytest.mark.parametrize(("vocabulary", "context"), [(4, None), (97, 7), (97, 6)])
def test_too_small_a_model_has_no_pairs(vocabulary: int, context: int | None) -> None:
    assert repeat_pairs(engine_of(vocabulary, context), 4, 0) is None


def test_kinds_are_named_from_the_threshold_on_strongest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = {
        "previous-token": {layer: np.array([0.3, REPEAT_THRESHOLD, 0.0, 0.6]) for layer in range(3)},
        "duplicate-token": {layer: np.full(4, 0.1) for layer in range(3)},
        "induction": {layer: np.array([0.9, REPEAT_THRESHOLD - 1e-9, 0.0, 0.5]) for layer in range(3)},
    }
    monkeypatch.setattr(attention, "repeat_scores", lambda *_: scores)
    found = attention_patterns(tiny.model("gpt2"), "w5 w6 w7")
    kinds = [[role for role in head.roles if role != "first-token"] for head in found.heads[:4]]
    assert kinds == [["induction", "previous-token"], ["previous-token"], [], ["previous-token", "induction"]]
    assert [head.head for head in found.with_role("previous-token")][:3] == [3, 3, 3]
    assert [head.head for head in found.with_role("induction")] == [0, 0, 0, 3, 3, 3]
    assert found.heads[5].site == "1.headOutput[1]"
    assert found.heads[2].print_string().endswith("attends as no known kind of head)")
    told = next(line for line in found.summary().splitlines() if "previous-token" in line)
    assert "9 heads" in told
    assert told.count("(0.") == 8
    assert told.endswith(", …")


def test_a_sink_attends_to_the_first_token_here_and_of_random_sequences(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.model("gpt2")
    engine, sites = model.engine, [Site(layer, Component.ATTENTION_PATTERN) for layer in range(3)]
    found = attention._sinks(engine, sites, 5)
    batch = TokenBatch.of(np.random.default_rng(5).integers(0, tiny.VOCABULARY, (8, 24)).tolist())
    run = engine.forward(batch, capture=sites)
    for layer, site in enumerate(sites):
        pattern = engine.ops.to_numpy(run[site])
        assert found[layer] == pytest.approx([pattern[:, head, 12:, 0].mean() for head in range(4)], abs=1e-6)
    plain = attention_patterns(model, "w5 w6 w7 w8")
    shares = np.array([head.scores["first-token"] for head in plain.heads]).reshape(3, 4)
    layer, head = np.unravel_index(shares.argmax(), shares.shape)
    monkeypatch.setattr(attention, "_SINK_SHARE", shares.max())
    for sinks, named in (
        (np.ones((3, 4)), 1),
        (np.where(shares == shares.max(), 1, 0.0), 1),
        (np.where(shares == shares.max(), 0.0, 1), 0),
    ):
        monkeypatch.setattr(attention, "_sinks", lambda *_, sinks=sinks: sinks)
        parked = attention_patterns(model, "w5 w6 w7 w8").with_role("first-token")
        assert [(each.layer, each.head) for each in parked] == [(layer, head)] * named
