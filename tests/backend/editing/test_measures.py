"""Rates over facts, and what a continuation begins with."""

from __future__ import annotations

import numpy as np
import pytest

from neuroscope.editing.measures import FactRate, Known, begins_with, judged, mean_rate
from neuroscope.editing.probes import Probes, Question
from neuroscope.editing.statements import Fact
from neuroscope.tasks.statistics import Estimate, mean_of, wilson
from tests import tiny


def rated(*shares: tuple[float, int]) -> FactRate:
    found = mean_rate([FactRate(*[Estimate(value, 0.0, 1.0, n)] * 2) for value, n in shares])
    assert found is not None
    assert found.probability == found.generation
    return found


def test_of_one_question_a_fact_the_mean_is_a_share() -> None:
    assert rated(*[(1.0, 1)] * 48, (0.0, 1)).probability == wilson(48, 49)
    assert rated(*[(1.0, 1)] * 50).probability.low == pytest.approx(0.929, abs=1e-3)  # not certain, though none failed


def test_of_several_questions_a_fact_is_one_observation() -> None:
    found, expected = rated((0.5, 8), (1.0, 8), (0.75, 4)).probability, mean_of([0.5, 1.0, 0.75])
    assert (found.value, found.n, found.low) == (0.75, 3, expected.low)
    assert found.high == 1.0 < expected.high  # a share is never more
    assert mean_rate([]) is None


def test_a_continuation_begins_with_a_whole_word() -> None:
    assert begins_with(" Rome.", " Rome")
    assert begins_with("Rome", " Rome")
    assert not begins_with(" Romeo", " Rome")


def test_scores_are_the_mean_over_an_objects_tokens_and_questions_are_put_once(framework: str) -> None:
    model = tiny.model(on=framework)
    known = Known(model)
    pairs = [("w5 w6", " w7 w8 w9"), ("w30 w31 w32 w33", " w7"), ("w5 w6", " w7 w20"), ("w5 w6", " w40")]

    def score(prompt: str, answer: str) -> float:
        """Token by token, each prompt alone."""
        logs = []
        for word in answer.split():
            logits = np.asarray(model.logits(prompt))[0, -1].astype(np.float64)
            logs.append(logits[model.token(word)] - np.log(np.exp(logits).sum()))
            prompt = f"{prompt} {word}"
        return float(np.mean(logs))

    np.testing.assert_allclose(known.scores(pairs), [score(*pair) for pair in pairs], atol=1e-5)
    fact = Fact("w5 w6", "w6", " w9")
    others = [Question("w5 w6", " w7", "w6", "own"), Question("w30 w6", " w8", "w6", "own")]
    asked = [Probes(fact, " w8", own=others), Probes(Fact("w5 w40", "w40", " w9"), " w8", neighbours=others)]
    found = judged(known, asked)
    texts = model.continuations([one.prompt for one in others], 4)
    assert found[0].found["ownFacts"].texts == found[1].found["specificity"].texts == texts
    np.testing.assert_allclose(found[0].found["ownFacts"].second, [score(one.prompt, " w9") for one in others], atol=1e-5)
    before = model.engine.block_calls
    assert judged(known, asked[:1])[0].rates == found[0].rates
    assert model.engine.block_calls == before
