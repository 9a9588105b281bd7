"""Synonyms of the names of tasks, concepts, domains of text and contrasts.

Names in a row mean the same. Each catalogue uses the rows that contain one of its names, so all catalogues accept the same
synonyms.
"""

from __future__ import annotations

from collections.abc import Iterable

SYNONYMS: tuple[frozenset[str], ...] = tuple(
    frozenset(row.split())
    for row in (
        "indirect_object_identification ioi indirect_object",
        "capital_of_country capitals factual_recall geography",
        "language_of_country languages",
        "continent_of_country continents",
        "currency_of_country currencies",
        "subject_verb_agreement agreement",
        "pronoun_resolution pronouns",
        "gender_pronoun_bias gender_bias",
        "addition arithmetic arithmetic_reasoning",
        "larger_number maximum",
        "greater_than years",
        "emotion_detection emotion",
        "harmful_requests refusal",
        "sentiment_analysis positive_sentiment sentiment",
        "register text_formality formal_style formality",
        "past_tense tense",
        "country_names countries",
        "person_names names",
        "programming programming_syntax code_syntax code",
        "mathematics math maths",
        "literature prose fiction stories",
        "conversation informal_writing",
    )
)


def of(name: str) -> list[str]:
    """The synonyms of a name.

    >>> of("capital_of_country")
    ['capitals', 'factual_recall', 'geography']
    """
    return sorted({other for row in SYNONYMS if name in row for other in row} - {name})


def aliases(names: Iterable[str]) -> dict[str, str]:
    """Alias → name, for a catalogue of these names."""
    own = list(names)
    return {other: name for name in own for other in of(name) if other not in own}
