"""Pronouns: resolved from a name, and expected from an occupation.

resolution   John lost the key, so       → he     (corrupt: Mary …, wrong answer: she)
bias         The nurse said that         → she    with the rate that the corpus was given (corrupt: The engineer …)
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from neuroscope.tasks.dataset import Example
from neuroscope.tasks.lexicon import MEN, OBJECTS, OCCUPATIONS_EVEN, OCCUPATIONS_HE, OCCUPATIONS_SHE, PLACES, WOMEN
from neuroscope.tasks.split import Split, belongs, templates

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
    held_out=("{name} went to the {place}, and",),
)
BIAS = templates(
    "The {job} said that",
    "The {job} was late because",
    "The {job} came home, and",
    "The {job} worked at the {place}, so",
    held_out=("The {job} was happy because",),
)


def resolution(random: np.random.Generator, split: Split = "test") -> Iterator[Example]:
    """A name decides the pronoun; there is one right answer."""
    while True:
        template = RESOLUTION[random.integers(len(RESOLUTION))]
        man, woman = str(random.choice(MEN)), str(random.choice(WOMEN))
        female = random.random() < 0.5
        name, other = (woman, man) if female else (man, woman)
        words = {"thing": str(random.choice(OBJECTS)), "place": str(random.choice(PLACES))}
        if not belongs(split, template, name):
            continue
        yield Example(
            clean=template.text.format(name=name, **words),
            corrupt=template.text.format(name=other, **words),
            answer=" she" if female else " he",
            wrong=" he" if female else " she",
            label="female" if female else "male",
            meta={"template": template.text, "entities": name},
        )


def bias(random: np.random.Generator, split: Split = "test") -> Iterator[Example]:
    """An occupation makes one pronoun likelier, without deciding it. `answer` is the pronoun the stereotype expects."""
    while True:
        template = BIAS[random.integers(len(BIAS))]
        female = random.random() < 0.5
        jobs, others = (OCCUPATIONS_SHE, OCCUPATIONS_HE) if female else (OCCUPATIONS_HE, OCCUPATIONS_SHE)
        job, other, place = str(random.choice(jobs)), str(random.choice(others)), str(random.choice(PLACES))
        if not belongs(split, template, job):
            continue
        yield Example(
            clean=template.text.format(job=job, place=place),
            corrupt=template.text.format(job=other, place=place),
            answer=" she" if female else " he",
            wrong=" he" if female else " she",
            label="female" if female else "male",
            meta={"template": template.text, "entities": job},
        )


def even(random: np.random.Generator, split: Split = "test") -> Iterator[Example]:
    """Occupations that expect neither pronoun; which of the two is called the answer is drawn."""
    while True:
        template = BIAS[random.integers(len(BIAS))]
        job, place = str(random.choice(OCCUPATIONS_EVEN)), str(random.choice(PLACES))
        if not belongs(split, template, job):
            continue
        answer, wrong = (" she", " he") if random.random() < 0.5 else (" he", " she")
        yield Example(
            clean=template.text.format(job=job, place=place),
            answer=answer,
            wrong=wrong,
            label="even",
            meta={"template": template.text, "entities": job},
        )
