"""How much is generated: near the end of the context, and by settings that are none."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from neuroscope.engines.lengths import new_tokens
from neuroscope.engines.protocol import GenerationSettings
from neuroscope.errors import ArgumentError
from neuroscope.models.model import TransformerModel
from tests import tiny

CONTEXT = 128


@pytest.fixture(scope="module")
def model(framework: str) -> TransformerModel:
    found = tiny.model("llama", on=framework)
    found.tokenizer.eos_token = None
    found.engine.end_tokens = ()
    return found


def words(number: int) -> str:
    return " ".join(["w5"] * number)


@pytest.mark.parametrize(("prompt", "new"), [(3, 64), (64, 64), (65, 63), (100, 28), (127, 1)])
def test_without_a_number_a_continuation_is_as_long_as_there_is_room(model: TransformerModel, prompt: int, new: int) -> None:
    assert len(model.generate(words(prompt)).split()) == new


def test_what_was_asked_for_and_does_not_fit_is_refused(model: TransformerModel) -> None:
    with pytest.raises(ArgumentError, match="Ask for at most 28 new tokens"):
        model.generate(words(100), max_tokens=29)
    for prompt in (CONTEXT, CONTEXT + 5):
        with pytest.raises(ArgumentError, match=r"fill the model's context of 128.\n.*Shorten"):
            model.generate(words(prompt))
    assert new_tokens(0, 5000, None, 64) == 64


@pytest.mark.parametrize(
    "wrong", [{"max_tokens": 0}, {"max_tokens": 3.5}, {"max_tokens": "3"}, {"temperature": "1"}, {"top_p": None}, {"seed": 0.5}]
)
def test_settings_that_are_none_are_named(model: TransformerModel, wrong: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=next(iter(wrong))):
        model.generate("w5 w6", **wrong)


def test_fractions_of_scripts_are_numbers(model: TransformerModel) -> None:
    assert GenerationSettings(temperature=Fraction(1, 2)).temperature == 0.5  # type: ignore[arg-type]
    half: Any = Fraction(1, 2)
    assert model.generate("w5", 4, temperature=half, seed=3) == model.generate("w5", 4, temperature=0.5, seed=3)


@pytest.mark.parametrize("wrong", [5, None, ["w5", 6]])
def test_what_is_no_text_is_no_prompt(model: TransformerModel, wrong: Any) -> None:
    with pytest.raises(ArgumentError, match="is a text, not"):
        model.generate(wrong)
