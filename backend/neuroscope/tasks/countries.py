"""Facts about countries: capital, language, continent, currency.

clean    The capital of France is    → Paris
corrupt  The capital of Japan is     (wrong answer: Tokyo)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from neuroscope.tasks.dataset import Example
from neuroscope.tasks.draw import Draw, units
from neuroscope.tasks.lexicon import COUNTRIES
from neuroscope.tasks.split import Split, Template, belongs, templates

RELATIONS: dict[str, tuple[Template, ...]] = {
    "capital": templates(
        "The capital of {c} is",
        "The capital city of {c} is",
        "Q: What is the capital of {c}? A:",
        "In {c}, the capital is",
        "The capital of the country {c} is called",
        held_out=(
            "Q: What is the capital city of {c}? A:",
            "Q: What is the capital of the country {c}? A:",
            "Q: In {c}, what is the capital? A:",
            "In the country {c}, the capital is",
        ),
    ),
    "language": templates(
        "The language of {c} is",
        "People in {c} speak",
        "Q: What language do people speak in {c}? A:",
        "In {c}, the language is",
        "Most people in {c} speak",
        held_out=(
            "Q: What is the language of {c}? A:",
            "In the country {c}, the language is",
            "In {c}, people speak",
            "Q: What language do people speak in the country {c}? A:",
        ),
    ),
    "continent": templates(
        "The continent of {c} is",
        "The country {c} is in",
        "Q: On what continent is {c}? A:",
        "In {c}, the continent is",
        held_out=(
            "Q: What is the continent of {c}? A:",
            "Q: What is the continent of the country {c}? A:",
            "Q: On what continent is the country {c}? A:",
            "In the country {c}, the continent is",
        ),
    ),
    "currency": templates(
        "The currency of {c} is the",
        "People in {c} pay with the",
        "Q: What is the currency of {c}? A: the",
        "In {c}, you pay with the",
        held_out=(
            "In {c}, the currency is the",
            "The currency of the country {c} is the",
            "In the country {c}, the currency is the",
            "Q: What is the currency of the country {c}? A: the",
        ),
    ),
}


def relation(name: str) -> Callable[[Draw, Split], Iterator[Example]]:
    """The generator of one relation's examples."""

    def examples(draw: Draw, split: Split = "test") -> Iterator[Example]:
        while True:
            template = draw.one("template", RELATIONS[name])
            here, there = draw.several("country", COUNTRIES, 2)
            answer, wrong = getattr(here, name), getattr(there, name)
            if answer == wrong or not belongs(split, template, here.name):
                continue
            yield Example(
                clean=template.text.format(c=here.name),
                corrupt=template.text.format(c=there.name),
                answer=f" {answer}",
                wrong=f" {wrong}",
                label=name,
                meta={"template": template.text, "entities": here.name},
                units=units(country=(here.name, there.name), template=template.text),
            )

    return examples
