"""Sentiment of reviews.

clean    The film was wonderful and the acting was superb. Sentiment:   → positive
corrupt  The film was terrible and the acting was awful. Sentiment:     (wrong answer: negative)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from neuroscope.tasks.dataset import Example
from neuroscope.tasks.draw import Draw, units
from neuroscope.tasks.lexicon import ASPECTS, BAD, GOOD, REVIEWED
from neuroscope.tasks.split import Split, Template, belongs, templates

TEMPLATES = templates(
    "The {work} was {x} and the {aspect} was {y}. Sentiment:",
    "Review: the {x} {work} with the {y} {aspect}. Sentiment:",
    "I saw the {work}. It was {x}, and the {aspect} was {y}. Sentiment:",
    "Oh, the {x} {work}! The {aspect} was {y}. Sentiment:",
    held_out=(
        "I saw the {x} {work}, and the {aspect} was {y}. Sentiment:",
        "Review: the {work} was {x} and the {aspect} was {y}. Sentiment:",
        "The {x} {work} was {y}, and I saw the {aspect}. Sentiment:",
        "Oh, the {work} was {x}! The {aspect} was {y}. Sentiment:",
        "Oh, I saw the {x} {work}! The {aspect} was {y}. Sentiment:",
        "Oh, the {x} {work} with the {y} {aspect}! Sentiment:",
    ),
)


#: Exclamations.
EXCLAMATIONS = tuple(template for template in TEMPLATES if template.text.startswith("Oh,"))


def examples(draw: Draw, split: Split = "test") -> Iterator[Example]:
    """Reviews whose two adjectives agree."""
    return _reviews(draw, split, TEMPLATES)


def exclamations(draw: Draw, split: Split = "test") -> Iterator[Example]:
    """The exclamations among the reviews."""
    return _reviews(draw, split, EXCLAMATIONS)


def _reviews(draw: Draw, split: Split, among: Sequence[Template]) -> Iterator[Example]:
    while True:
        template = draw.one("template", among)
        work, aspect = draw.one("work", REVIEWED), draw.one("aspect", ASPECTS)
        good = draw.several("adjective", GOOD, 2)
        bad = draw.several("adjective", BAD, 2)
        positive = draw.random.random() < 0.5
        (x, y), (other_x, other_y) = (good, bad) if positive else (bad, good)
        if not belongs(split, template, x, y):
            continue
        yield Example(
            clean=template.text.format(work=work, aspect=aspect, x=x, y=y),
            corrupt=template.text.format(work=work, aspect=aspect, x=other_x, y=other_y),
            answer=" positive" if positive else " negative",
            wrong=" negative" if positive else " positive",
            label="positive" if positive else "negative",
            meta={"template": template.text, "entities": f"{x} {y}"},
            units=units(adjective=(*good, *bad), work=work, aspect=aspect, template=template.text),
        )
