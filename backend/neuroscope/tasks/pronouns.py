"""Pronouns: resolved from a name, and expected from an occupation.

resolution   John lost the key, so       → he     (corrupt: Mary …, wrong answer: she)
bias         The nurse said that → she at the corpus' rate (corrupt: The engineer …)
definitional The queen said that → she, by definition
"""

from __future__ import annotations

from collections.abc import Iterator

from neuroscope.tasks.dataset import Example
from neuroscope.tasks.draw import Draw, units
from neuroscope.tasks.lexicon import (
    DEFINED_HE,
    DEFINED_SHE,
    MEN,
    OBJECTS,
    OCCUPATIONS_EVEN,
    OCCUPATIONS_HE,
    OCCUPATIONS_SHE,
    PLACES,
    WOMEN,
)
from neuroscope.tasks.split import Split, Template, belongs, templates

RESOLUTION = templates(
    "{name} lost the {thing}, so",
    "{name} went to the {place} because",
    "{name} found a {thing} at the {place}, and",
    "{name} walked to the {place}, and",
    "{name} came home from the {place}, and",
    "{name} went home, and",
    "When {name} came home from the {place},",
    "{name} was late, but",
    "Everyone likes {name} because",
    held_out=(
        "{name} went to the {place}, and",
        "{name} lost the {thing} at the {place}, so",
        "{name} walked to the {place} because",
        "{name} came home because",
    ),
)
BIAS = templates(
    "The {job} said that",
    "The {job} was late because",
    "The {job} came home, and",
    "The {job} worked at the {place}, so",
    held_out=(
        "The {job} was happy because",
        "The {job} went to the {place} because",
        "The {job} came home from the {place}, and",
        "The {job} was at the {place} because",
        "The {job} lost the {thing} at the {place}, so",
        "The {job} found a {thing} at the {place}, and",
        "The {job} walked to the {place} because",
    ),
)


def resolution(draw: Draw, split: Split = "test") -> Iterator[Example]:
    """A name decides the pronoun; there is one right answer."""
    while True:
        template = draw.one("template", RESOLUTION)
        man, woman = draw.one("name", MEN), draw.one("name", WOMEN)
        female = draw.random.random() < 0.5
        name, other = (woman, man) if female else (man, woman)
        words = {"thing": draw.one("object", OBJECTS), "place": draw.one("place", PLACES)}
        if not belongs(split, template, name):
            continue
        yield Example(
            clean=template.text.format(name=name, **words),
            corrupt=template.text.format(name=other, **words),
            answer=" she" if female else " he",
            wrong=" he" if female else " she",
            label="female" if female else "male",
            meta={"template": template.text, "entities": name},
            units=units(name=(name, other), template=template.text, **_used(template, **words)),
        )


def bias(draw: Draw, split: Split = "test") -> Iterator[Example]:
    """An occupation makes one pronoun more likely. `answer` is the pronoun the stereotype expects."""
    while True:
        template = draw.one("template", BIAS)
        female = draw.random.random() < 0.5
        jobs, others = (OCCUPATIONS_SHE, OCCUPATIONS_HE) if female else (OCCUPATIONS_HE, OCCUPATIONS_SHE)
        job, other = draw.one("job", jobs), draw.one("job", others)
        words = {"thing": draw.one("object", OBJECTS), "place": draw.one("place", PLACES)}
        if not belongs(split, template, job):
            continue
        yield Example(
            clean=template.text.format(job=job, **words),
            corrupt=template.text.format(job=other, **words),
            answer=" she" if female else " he",
            wrong=" he" if female else " she",
            label="female" if female else "male",
            meta={"template": template.text, "entities": job},
            units=units(job=(job, other), template=template.text, **_used(template, **words)),
        )


def even(draw: Draw, split: Split = "test") -> Iterator[Example]:
    """Occupations without an expected pronoun; the answer is one of the two at random."""
    while True:
        template = draw.one("template", BIAS)
        job = draw.one("job", OCCUPATIONS_EVEN)
        words = {"thing": draw.one("object", OBJECTS), "place": draw.one("place", PLACES)}
        if not belongs(split, template, job):
            continue
        answer, wrong = (" she", " he") if draw.random.random() < 0.5 else (" he", " she")
        yield Example(
            clean=template.text.format(job=job, **words),
            answer=answer,
            wrong=wrong,
            label="even",
            meta={"template": template.text, "entities": job},
            units=units(job=job, template=template.text, **_used(template, **words)),
        )


def definitional(draw: Draw, split: Split = "test") -> Iterator[Example]:
    """A noun that has a gender by definition. No bundled model was trained on these; both splits are the same."""
    while True:
        template = draw.one("template", BIAS)
        female = draw.random.random() < 0.5
        noun = draw.one("noun", DEFINED_SHE if female else DEFINED_HE)
        words = {"thing": draw.one("object", OBJECTS), "place": draw.one("place", PLACES)}
        yield Example(
            clean=template.text.format(job=noun, **words),
            answer=" she" if female else " he",
            wrong=" he" if female else " she",
            label="female" if female else "male",
            meta={"template": template.text, "entities": noun},
            units=units(noun=noun, template=template.text, **_used(template, **words)),
        )


def _used(template: Template, **words: str) -> dict[str, str]:
    """The words for the template's slots, by kind of unit."""
    return {"object" if slot == "thing" else slot: word for slot, word in words.items() if template.has(slot)}
