"""Analyses by name, and what they may be run on."""

from __future__ import annotations

import pytest

from neuroscope import events
from neuroscope.analyses import registry
from neuroscope.analyses.inputs import pairs_of, text_of
from neuroscope.errors import AnalysisNotFoundError, ArgumentError, DatasetError
from neuroscope.hooks.hook import ActivationHook
from neuroscope.tasks.dataset import Example
from tests import tiny


def test_every_name_leads_to_its_analysis() -> None:
    for analysis in registry.ANALYSES:
        assert registry.get(analysis.name) is analysis
        assert all(registry.get(alias) is analysis for alias in analysis.aliases)
    assert registry.get("attentionPatterns").name == "attention_patterns"


def test_an_unknown_analysis_names_the_nearest() -> None:
    with pytest.raises(AnalysisNotFoundError) as caught:
        tiny.model("gpt2").analyze("logit_lense")
    assert "logit_lens" in str(caught.value.remedy)
    with pytest.raises(AnalysisNotFoundError) as caught:
        registry.get("horoscope")
    assert "attention_patterns" in str(caught.value.remedy)


@pytest.mark.parametrize(
    ("on", "says"),
    [("w5", "too short"), ("  ", "empty"), (3, "works on a text"), ("w5 " * 200, "at most")],
)
def test_a_text_that_cannot_be_analysed_is_told(on: object, says: str) -> None:
    with pytest.raises(ArgumentError, match=says):
        tiny.model("gpt2").analyze("logit_lens", on)
    with pytest.raises(ArgumentError, match=says):
        text_of(tiny.model("gpt2"), on, "w1 w2", most=64)


@pytest.mark.parametrize(
    ("on", "error", "says"),
    [
        ("additoin", ArgumentError, "neither a task nor a prompt"),
        ("register", ArgumentError, "has no pairs"),
        (17, ArgumentError, "not 17"),
        ([], ArgumentError, "not \\[\\]"),
        ("w5 w6 w7", DatasetError, "to exchange for"),
        ([{"clean": "w5 w6", "answer": "w7 w8"}], DatasetError, "fit the tokenizer"),
    ],
)
def test_what_makes_no_pairs_is_told(on: object, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        pairs_of(tiny.model("gpt2"), on, "addition", 8)


def test_own_pairs_come_as_examples_or_dictionaries() -> None:
    model = tiny.model("gpt2")
    pair = {"clean": "w5 w6", "corrupt": "w7 w6", "answer": "w8", "wrong": "w9"}
    for on in (pair, [pair], [pair, {**pair, "clean": "w4 w6"}], Example(**pair), [tuple(pair.values())]):
        found = pairs_of(model, on, "addition", 8)
        assert found[0].corrupt == "w7 w6"


def test_hooks_that_are_left_out_are_told() -> None:
    model = tiny.model("gpt2")
    model.hook_manager.add_hook(ActivationHook(1, "residual", lambda activations: activations * 2))
    told: list[str] = []
    with events.listen(lambda event: told.append(getattr(event, "message", ""))):
        model.analyze("logit_lens", "w5 w6 w7")
    assert any("bare model" in message for message in told)
