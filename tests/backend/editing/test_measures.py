"""Rates over facts, and what a continuation begins with."""

from __future__ import annotations

import pytest

from neuroscope.editing.measures import FactRate, begins_with, mean_rate
from neuroscope.tasks.statistics import Estimate, mean_of, wilson


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
