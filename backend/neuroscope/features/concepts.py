"""Concepts: texts that show something beside matched texts that do not.

A word concept is read at its word: the same carrier sentence holds a word of the concept or another word. A text
concept is read over the whole text. Both halves are split in two: one half finds units, the other judges them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from neuroscope.errors import ArgumentError, DatasetError, did_you_mean
from neuroscope.naming import fold
from neuroscope.tasks import domains, register
from neuroscope.tasks.lexicon import BAD, COUNTRIES, GOOD, NAMES, OBJECTS, PLACES, REVIEWED

#: The fewest texts of either kind that a concept can be found with.
FEWEST = 20
_CARRIERS = (
    "Yesterday I read something about {word}",
    "Everyone was talking about {word}",
    "There was a picture of {word}",
    "She wrote a long letter about {word}",
)


@dataclass(frozen=True)
class ConceptTexts:
    """Texts with their labels. at_end: whether a text is read at its last token (a word's end) or over all its tokens."""

    name: str
    texts: list[str]
    labels: list[bool]
    at_end: bool

    def split(self, seed: int) -> tuple[ConceptTexts, ConceptTexts]:
        """Two halves with the labels in equal shares."""
        random = np.random.default_rng(seed)
        halves: tuple[list[int], list[int]] = ([], [])
        for label in (True, False):
            mine = random.permutation([index for index, value in enumerate(self.labels) if value is label])
            for side, part in zip(halves, np.array_split(mine, 2), strict=True):
                side.extend(int(index) for index in part)
        first, second = (self._take(sorted(half)) for half in halves)
        return first, second

    def _take(self, indices: Sequence[int]) -> ConceptTexts:
        return ConceptTexts(self.name, [self.texts[i] for i in indices], [self.labels[i] for i in indices], self.at_end)


Texts = Callable[[np.random.Generator], str]


def _filled(words: Sequence[str]) -> Texts:
    return lambda random: str(random.choice(_CARRIERS)).format(word=random.choice(words))


def _sentence(formal: bool) -> Texts:
    return lambda random: register.sentence(random, formal)


def _review(words: Sequence[str]) -> Texts:
    return lambda random: f"The {random.choice(REVIEWED)} was {random.choice(words)}."


@dataclass(frozen=True)
class _Concept:
    positive: Texts
    negative: Texts
    at_end: bool


_COUNTRY_NAMES = [country.name for country in COUNTRIES]
_OTHER_WORDS = [*NAMES, *OBJECTS, *PLACES]
_CONCEPTS: Mapping[str, _Concept] = {
    "country_names": _Concept(_filled(_COUNTRY_NAMES), _filled(_OTHER_WORDS), True),
    "person_names": _Concept(_filled(NAMES), _filled([*_COUNTRY_NAMES, *OBJECTS]), True),
    "programming_syntax": _Concept(domains.program, domains.prose, False),
    "mathematics": _Concept(domains.mathematics, domains.prose, False),
    "literature": _Concept(domains.prose, domains.mathematics, False),
    "text_formality": _Concept(_sentence(True), _sentence(False), False),
    "positive_sentiment": _Concept(_review(GOOD), _review(BAD), False),
}
_ALIASES = {
    "countries": "country_names",
    "names": "person_names",
    "programming": "programming_syntax",
    "code_syntax": "programming_syntax",
    "formality": "text_formality",
    "formal_style": "text_formality",
    "math": "mathematics",
    "sentiment": "positive_sentiment",
}


def names() -> list[str]:
    """The concepts that need no texts of the user's own."""
    return list(_CONCEPTS)


def concept_texts(
    concept: str | Sequence[str], against: Sequence[str] | None = None, *, n: int = 120, seed: int = 0
) -> ConceptTexts:
    """Up to `n` different texts of either kind.

    `concept`: a name, or the user's own words or texts with `against` what they are compared with (words: names, objects and
    places by default). Raises `ArgumentError` for an unknown name (with the nearest) and `DatasetError` for too few texts.
    """
    if not isinstance(concept, str):
        return _own([str(text) for text in concept], against, seed)
    folded = {fold(name): name for name in _CONCEPTS} | {fold(alias): name for alias, name in _ALIASES.items()}
    name = folded.get(fold(concept))
    if name is None:
        raise ArgumentError(
            f"There is no concept {concept!r}.",
            remedy=did_you_mean(concept, names(), listing="Concepts") + " Or give your own words: findNeuronsFor: #('…' '…').",
        )
    found = _CONCEPTS[name]
    random = np.random.default_rng(seed)
    return _labelled(name, several(found.positive, n, random), several(found.negative, n, random), found.at_end)


def _own(texts: Sequence[str], against: Sequence[str] | None, seed: int) -> ConceptTexts:
    words = all(len(text.split()) == 1 for text in texts)
    few = FEWEST // len(_CARRIERS)
    if words and min(len(set(texts)), few if against is None else len(set(against))) < few:
        beside = "" if against is None else f" and {_words(against)} against it"
        raise DatasetError(
            f"{_words(texts)} for the concept{beside} are too few to find units and judge them.",
            remedy=f"Give at least {few} of either kind.",
        )
    if against is None and not words:
        raise DatasetError("Own texts need texts to compare them with.", remedy="findNeuronsFor: myTexts against: otherTexts")
    others = [str(text) for text in against] if against is not None else _OTHER_WORDS
    if not words:
        return _labelled("own texts", texts, others, False)
    random = np.random.default_rng(seed)
    count = max(FEWEST, 4 * len(texts))
    return _labelled("own words", several(_filled(texts), count, random), several(_filled(others), count, random), True)


def _words(words: Sequence[str]) -> str:
    count = len(set(words))
    return f"{count} word{'' if count == 1 else 's'}"


def several(make: Texts, n: int, random: np.random.Generator) -> list[str]:
    """Up to `n` different texts."""
    found: dict[str, None] = {}
    for _ in range(20 * n):
        if len(found) == n:
            break
        found.setdefault(make(random))
    return list(found)


def _labelled(name: str, positive: Sequence[str], negative: Sequence[str], at_end: bool) -> ConceptTexts:
    clash = set(positive) & set(negative)
    if clash:
        raise DatasetError(f"{min(clash)!r} stands on both sides of the concept {name}.")
    for kind, texts in (("texts of", positive), ("texts against", negative)):
        if len(set(texts)) < FEWEST:
            raise DatasetError(
                f"There are {len(set(texts))} {kind} the concept {name}, too few to find units and judge them.",
                remedy=f"Give at least {FEWEST} of either kind (5 words make {FEWEST} texts).",
            )
    texts = [*dict.fromkeys(positive), *dict.fromkeys(negative)]
    return ConceptTexts(name, texts, [True] * len(set(positive)) + [False] * len(set(negative)), at_end)
