"""Induction: the second half of a random sequence that is repeated (Olsson et al. 2022).

The prompt is random words, then the same words again up to the answer. The corrupt prompt has another word at the first
occurrence of the answer.
"""

from __future__ import annotations

from collections.abc import Iterator

from neuroscope.tasks.dataset import Example
from neuroscope.tasks.draw import Draw, units
from neuroscope.tasks.lexicon import ASPECTS, BAD, COUNTRIES, GOOD, NAMES, OBJECTS, PEOPLE, PLACES, THINGS
from neuroscope.tasks.split import Split, Template, belongs

WORDS = tuple(
    dict.fromkeys(
        [
            *NAMES, *PLACES, *OBJECTS, *GOOD, *BAD, *ASPECTS,
            *(noun.singular for noun in (*PEOPLE, *THINGS)),
            *(noun.plural for noun in (*PEOPLE, *THINGS)),
            *(country.name for country in COUNTRIES), *(country.capital for country in COUNTRIES),
        ]
    )
)  # fmt: skip
_TEMPLATE = Template("{words} {words}")
_LENGTHS = (6, 17)


def examples(draw: Draw, split: Split = "test") -> Iterator[Example]:
    """Sequences of 6 to 16 different words, cut at a random place of their repetition (not its first word)."""
    random = draw.random
    while True:
        # One word more than the sequence: it replaces the answer in the corrupt prompt.
        *words, other = draw.several("word", WORDS, int(random.integers(*_LENGTHS)) + 1)
        cut = int(random.integers(1, len(words)))
        if not belongs(split, _TEMPLATE, *words):
            continue
        changed = [*words[:cut], other, *words[cut + 1 :]]
        again = words[:cut]
        yield Example(
            clean=" ".join([*words, *again]),
            corrupt=" ".join([*changed, *again]),
            answer=f" {words[cut]}",
            wrong=f" {other}",
            meta={"template": _TEMPLATE.text, "entities": " ".join(words)},
            units=units(word=(*words, other), template=_TEMPLATE.text),
        )
