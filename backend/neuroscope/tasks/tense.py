"""The same events in the past and in the present tense."""

from __future__ import annotations

import numpy as np

from neuroscope.tasks.lexicon import MEN, OBJECTS, PLACES, WOMEN

#: (past, present) verbs and their objects.
EVENTS = tuple(
    tuple(f"{verb} {rest}" for verb in verbs.split("/"))
    for verbs, rest in (
        ("walked/walks", "to the {place}"),
        ("went/goes", "to the {place}"),
        ("ran/runs", "home from the {place}"),
        ("took/takes", "the {thing}"),
        ("found/finds", "the {thing} at the {place}"),
        ("opened/opens", "the {thing}"),
        ("kept/keeps", "the {thing}"),
        ("lost/loses", "the {thing} at the {place}"),
        ("bought/buys", "the {thing} in the {place}"),
        ("sold/sells", "the {thing} to {other}"),
        ("gave/gives", "the {thing} to {other}"),
        ("saw/sees", "{other} at the {place}"),
        ("met/meets", "{other} near the {place}"),
        ("waited/waits", "for {other} at the {place}"),
        ("told/tells", "{other} a story"),
        ("smiled/smiles", "at {other}"),
        ("was/is", "happy at the {place}"),
        ("thought/thinks", "of the {place} by the sea"),
    )
)
#: Openings that do not reveal the tense.
OPENINGS = ("A story about {name}:", "In the {place} by the sea,", "Here is what {name} told us:", "About {name} and {other}:")


def pair(random: np.random.Generator, content: int) -> tuple[str, str]:
    """An event in the past and in the present tense, with the same words in its slots."""
    words = _words(random)
    past, present = (f"{words['name']} {event.format(**words)}." for event in EVENTS[content])
    return past, present


def text(random: np.random.Generator, past: bool, sentences: int, opening: bool = True) -> str:
    """Sentences about one person in one tense, after an opening that fits either."""
    words = _words(random)
    begun = [str(random.choice(OPENINGS)).format(**words)] if opening else []
    for index in range(sentences):
        event = EVENTS[random.integers(len(EVENTS))][0 if past else 1]
        subject = words["name"] if index % 2 == 0 else words["pronoun"]
        begun.append(f"{subject} {event.format(**{**_words(random), 'other': words['other']})}.")
    return " ".join(begun)


def _words(random: np.random.Generator) -> dict[str, str]:
    female = random.random() < 0.5
    name, other = (str(random.choice(names)) for names in ((WOMEN, MEN) if female else (MEN, WOMEN)))
    return {
        "name": name,
        "other": other,
        "pronoun": "She" if female else "He",
        "place": str(random.choice(PLACES)),
        "thing": str(random.choice(OBJECTS)),
    }
