"""Subject–verb agreement with a distracting noun between (Linzen et al. 2016).

clean    The keys near the cabinet   → are
corrupt  The key near the cabinet    (wrong answer: is)
"""

from __future__ import annotations

from collections.abc import Iterator

from neuroscope.tasks.dataset import Example
from neuroscope.tasks.draw import Draw, units
from neuroscope.tasks.lexicon import PEOPLE, PREPOSITIONS, THINGS, VERBS
from neuroscope.tasks.split import Split, belongs, templates

TEMPLATES = templates(
    "The {subject} {preposition} the {other}",
    "Today the {subject} {preposition} the {other}",
    "Everyone says that the {subject} {preposition} the {other}",
    "I know that the {subject} {preposition} the {other}",
    "We think that the {subject} {preposition} the {other}",
    held_out=(
        "I think that the {subject} {preposition} the {other}",
        "Everyone knows that the {subject} {preposition} the {other}",
        "We know that the {subject} {preposition} the {other}",
    ),
)


def examples(draw: Draw, split: Split = "test") -> Iterator[Example]:
    """Endless examples; the distractor has either number."""
    random = draw.random
    while True:
        template = draw.one("template", TEMPLATES)
        nouns = PEOPLE if random.random() < 0.6 else THINGS
        subject = draw.one("noun", nouns)
        other = draw.one("noun", THINGS)
        preposition = draw.one("preposition", PREPOSITIONS)
        singular_verb, plural_verb = VERBS[random.integers(len(VERBS) if nouns is PEOPLE else 2)]
        plural, plural_other = random.random() < 0.5, random.random() < 0.5
        if subject == other or not belongs(split, template, subject.singular, preposition, other.singular):
            continue
        words = {"preposition": preposition, "other": other.plural if plural_other else other.singular}
        yield Example(
            clean=template.text.format(subject=subject.plural if plural else subject.singular, **words),
            corrupt=template.text.format(subject=subject.singular if plural else subject.plural, **words),
            answer=f" {plural_verb if plural else singular_verb}",
            wrong=f" {singular_verb if plural else plural_verb}",
            label="plural" if plural else "singular",
            meta={
                "template": template.text,
                "entities": f"{subject.singular} {preposition} {other.singular}",
                "distractor": "same" if plural == plural_other else "other",
            },
            units=units(noun=(subject.singular, other.singular), preposition=preposition, template=template.text),
        )
