"""Addition and subtraction of numbers up to two digits, and years that come later.

    addition       37+45=                                → 82
    larger         max(37,45)=                           → 45
    greater-than   The war lasted from the year 1732 to the year 17  → 33 … 99   (Hanna et al. 2023)

Each digit is a token, so an example asks for the first digit of the result; `meta["result"]` is all of it. The corrupt prompt
changes one operand so that the first digit of the result differs but the prompt has as many digits.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from neuroscope.tasks.dataset import Example
from neuroscope.tasks.draw import Draw, units
from neuroscope.tasks.split import Split, Template, belongs, templates

_SUM, _DIFFERENCE, _LARGER = Template("{a}+{b}="), Template("{a}-{b}="), Template("max({a},{b})=")
YEARS = templates(
    "The {event} lasted from the year {century}{start} to the year {century}",
    "The {event} began in {century}{start} and ended in {century}",
    held_out=(
        "The {event} began in the year {century}{start} and ended in the year {century}",
        "The {event} that began in {century}{start} ended in {century}",
        "The {event} began in the year {century}{start} and lasted to the year {century}",
    ),
)
NUMBERS = tuple(range(100))
CENTURIES, STARTS = tuple(range(11, 20)), tuple(range(20, 80))
EVENTS = "war trip journey reign project study drought strike siege festival".split()


def addition(draw: Draw, split: Split = "test") -> Iterator[Example]:
    """Sums of two numbers from 0 to 99."""
    return _results(draw, split, _SUM, lambda a, b: a + b)


def subtraction(draw: Draw, split: Split = "test") -> Iterator[Example]:
    """Differences of two numbers from 0 to 99 that are not negative."""
    return _results(draw, split, _DIFFERENCE, lambda a, b: a - b)


def larger(draw: Draw, split: Split = "test") -> Iterator[Example]:
    """The larger of two numbers from 0 to 99. No bundled model was trained on it, so it can be taught."""
    return _results(draw, split, _LARGER, max)


def after_shown_sums(example: Example) -> Example:
    """The same sum with spaces, after three solved ones, for models that were not trained on bare sums."""
    return dataclasses.replace(example, clean=_shown(example.clean), corrupt=_shown(str(example.corrupt)))


def _shown(prompt: str) -> str:
    return "12 + 35 = 47\n40 + 21 = 61\n23 + 54 = 77\n" + prompt.replace("+", " + ").replace("=", " = ")


def _results(draw: Draw, split: Split, template: Template, operation: object) -> Iterator[Example]:
    assert callable(operation)
    while True:
        a, b, c = (draw.one("number", NUMBERS) for _ in range(3))
        result, other = operation(a, b), operation(a, c)
        if result < 0 or other < 0 or not belongs(split, template, a, b):
            continue
        if len(str(b)) != len(str(c)) or str(result)[0] == str(other)[0]:
            continue
        yield Example(
            clean=template.text.format(a=a, b=b),
            corrupt=template.text.format(a=a, b=c),
            answer=str(result)[0],
            wrong=str(other)[0],
            meta={"template": template.text, "entities": f"{a} {b}", "result": str(result)},
            units=units(number=(str(a), str(b), str(c)), template=template.text),
        )


def greater_than(draw: Draw, split: Split = "test") -> Iterator[Example]:
    """The tens digit of a later year: `answer` is one above the start's, `wrong` one below; corrupt swaps the two."""
    random = draw.random
    while True:
        template = draw.one("template", YEARS)
        event, century = draw.one("event", EVENTS), draw.one("century", CENTURIES)
        start = draw.one("year", STARTS)
        tens = start // 10
        low, high = int(random.integers(0, tens)), int(random.integers(tens + 1, 10))
        if not belongs(split, template, event, century, start):
            continue
        words = {"event": event, "century": century}
        yield Example(
            clean=template.text.format(start=f"{start:02d}", **words),
            corrupt=template.text.format(start="01", **words),
            answer=str(high),
            wrong=str(low),
            meta={"template": template.text, "entities": f"{event} {century} {start}", "start": f"{start:02d}"},
            units=units(event=event, century=str(century), year=str(start), template=template.text),
        )
