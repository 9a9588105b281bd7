"""Concepts: texts with a property, and matched texts without it.

A word concept is read at the word: the same carrier sentence has a word of the concept or another word. A text concept is read
over the whole text. Texts that share their word or template stay together (`features.grouping`): half of the words in half of
the carriers find units, the other words in the other carriers judge them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from neuroscope.errors import ArgumentError, DatasetError
from neuroscope.features import texts
from neuroscope.features.grouping import group_by_units, group_texts
from neuroscope.features.ranks import distinct
from neuroscope.features.texts import Source, Text, several
from neuroscope.names import Names
from neuroscope.remedies import Remedy
from neuroscope.tasks import registry, synonyms
from neuroscope.tasks.dataset import Dataset, Example
from neuroscope.tasks.lexicon import BAD, COUNTRIES, GOOD, NAMES, OBJECTS, PLACES, REVIEWED

#: Carriers end in their word. One half finds units, the other judges them.
_CARRIERS = (
    "Yesterday I read something about {word}",
    "Everyone was talking about {word}",
    "There was a picture of {word}",
    "She wrote a long letter about {word}",
)

Own = str | Sequence[str] | Dataset


@dataclass(frozen=True)
class ConceptTexts:
    """Texts with their labels.

    groups: the group of each text: its word, its template, or the text itself. carriers: the sentence around a word, which both
    kinds share; "" for a text. at_end: whether a text is read at its last token (a word's end) or over all its tokens. kind: a
    group's name in messages.
    """

    name: str
    texts: list[str]
    labels: list[bool]
    groups: list[str]
    carriers: list[str]
    at_end: bool
    kind: str

    def counts(self) -> tuple[int, int]:
        """Number of groups of either kind."""
        kinds = dict(zip(self.groups, self.labels, strict=True))
        return sum(kinds.values()), sum(not label for label in kinds.values())

    def split(self, seed: int) -> tuple[ConceptTexts, ConceptTexts]:
        """Choosing and judging texts, which share no group and, if there are several, no carrier.

        If a number is odd, the judging half is larger. Texts of a choosing group in a judging carrier, and vice versa, are in
        neither.
        """
        random = np.random.default_rng(seed)
        chosen: set[str] = set()
        for label in (True, False):
            mine = _groups(group for group, value in zip(self.groups, self.labels, strict=True) if value is label)
            chosen |= set(_some(random, mine))
        carriers = _groups(self.carriers)
        choosing = set(_some(random, carriers)) if len(carriers) > 1 else set(carriers)
        judging = set(carriers) - choosing if len(carriers) > 1 else set(carriers)
        of = list(zip(self.groups, self.carriers, strict=True))
        return (
            self._take([at for at, (group, carrier) in enumerate(of) if group in chosen and carrier in choosing]),
            self._take([at for at, (group, carrier) in enumerate(of) if group not in chosen and carrier in judging]),
        )

    def group_labels(self) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """The label of each group, in the order of `ranks.distinct`."""
        kinds = dict(zip(self.groups, self.labels, strict=True))
        return np.array([kinds[str(group)] for group in distinct(self.groups)])

    def _take(self, at: Sequence[int]) -> ConceptTexts:
        fields = (self.texts, self.labels, self.groups, self.carriers)
        texts, labels, groups, carriers = ([field[index] for index in at] for field in fields)
        return ConceptTexts(self.name, texts, labels, groups, carriers, self.at_end, self.kind)  # type: ignore[arg-type]


def _groups(groups: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(groups))


def _some(random: np.random.Generator, among: Sequence[str]) -> list[str]:
    """Half of them, rounded down."""
    return [among[int(index)] for index in random.permutation(len(among))[: len(among) // 2]]


@dataclass(frozen=True)
class _Words:
    """A concept of words, read at the word."""

    positive: Sequence[str]
    negative: Sequence[str]
    carriers: Sequence[str] = _CARRIERS
    at_end: bool = True


@dataclass(frozen=True)
class _Domain:
    """A concept of texts, read over the whole text."""

    positive: Source
    negative: Source


_COUNTRY_NAMES = [country.name for country in COUNTRIES]
_OTHER_WORDS = [*NAMES, *OBJECTS, *PLACES]
_REVIEWS = ("The new {work} was {{word}}.", "We found the whole {work} {{word}}.")
_CONCEPTS: Mapping[str, _Words | _Domain] = {
    "country_names": _Words(_COUNTRY_NAMES, _OTHER_WORDS),
    "person_names": _Words(NAMES, [*_COUNTRY_NAMES, *OBJECTS, *PLACES]),
    "programming_syntax": _Domain(texts.program, texts.prose),
    "mathematics": _Domain(texts.mathematics, texts.prose),
    "literature": _Domain(texts.prose, texts.mathematics),
    "text_formality": _Domain(texts.formal, texts.informal),
    "positive_sentiment": _Words(
        GOOD, BAD, tuple(review.format(work=work) for work in REVIEWED for review in _REVIEWS), at_end=False
    ),
}
#: The task whose answers depend on a concept.
_TASKS = {
    "country_names": "capital_of_country",
    "person_names": "indirect_object_identification",
    "mathematics": "addition",
    "text_formality": "register",
    "positive_sentiment": "sentiment_analysis",
}


def names() -> list[str]:
    """The names of the built-in concepts."""
    return list(_CONCEPTS)


def concept_name(concept: str) -> str:
    """The canonical name of a concept. Raises `ArgumentError`, with the nearest, for an unknown one."""
    return _NAMES.name(concept)


_NAMES = Names(
    "concept",
    {name: name for name in _CONCEPTS},
    aliases=synonyms.aliases(_CONCEPTS),
    listing="Concepts",
    more=Remedy(
        "Or give your own words: find_neurons_for(['…', '…']).",
        smalltalk="Or give your own words: findNeuronsFor: #('…' '…').",
    ),
)


def _known(concept: str) -> str | None:
    return _NAMES.find(concept)


def concept_task(concept: Own, *, seed: int = 0) -> tuple[str, Dataset]:
    """The name and dataset for choosing by effect: of the concept's task, of a named task, or the user's own.

    Raises `ArgumentError` for a concept without a task, an unknown name and for words or texts.
    """
    if isinstance(concept, Dataset):
        return concept.name, concept
    if not isinstance(concept, str):
        raise ArgumentError(
            "Words and texts have no answers, which choosing by effect needs.", remedy="Give a dataset or a task's name."
        )
    name = _known(concept)
    task = registry.get(concept).name if name is None else _TASKS.get(name)
    if task is None:
        raise ArgumentError(
            f"The concept {name} has no task, which choosing by effect needs.",
            remedy=f"These have one: {', '.join(_TASKS)}. Or give a dataset or a task's name.",
        )
    return name or task, registry.get(task).dataset(seed=seed)


def concept_texts(concept: Own, against: Own | None = None, *, n: int = 120, seed: int = 0) -> ConceptTexts:
    """Texts of a concept and of its contrast, about `n` of either kind in both halves of a `split` together.

    `concept`: a name, or the user's words, texts or dataset (its prompts); `against`: their contrast (for words, by default
    names, objects and places). Raises `ArgumentError` for an unknown name (with the nearest) and `DatasetError` for texts on
    both sides.
    """
    if not isinstance(concept, str):
        return _own(concept, against, n, seed)
    name = concept_name(concept)
    found = _CONCEPTS[name]
    random = np.random.default_rng(seed)
    if isinstance(found, _Words):
        return _carried(name, found.positive, found.negative, found.carriers, n, random, at_end=found.at_end)
    positive, negative = several(found.positive, n, random), several(found.negative, n, random)
    return _labelled(name, positive, negative, kind="template")


def _own(concept: Sequence[str] | Dataset, against: Own | None, n: int, seed: int) -> ConceptTexts:
    if isinstance(concept, Dataset) or isinstance(against, Dataset):
        if not (isinstance(concept, Dataset) and isinstance(against, Dataset)):
            raise ArgumentError(
                "A dataset can only be compared with a dataset.",
                remedy=Remedy(
                    "find_neurons_for(my_dataset, against=other_dataset)",
                    smalltalk="findNeuronsFor: myDataset against: otherDataset",
                ),
            )
        return _labelled(
            concept.name,
            *group_by_units(_prompts(concept), _prompts(against)),
            kind="group of prompts without common words or template",
        )
    mine = _groups(str(text).strip() for text in concept)
    others = None if against is None else _groups(str(text).strip() for text in against)
    if not mine or others == [] or not all([*mine, *(others or [])]):
        raise DatasetError("A concept needs texts that are not empty.")
    if any(len(text.split()) > 1 for text in mine):
        if others is None:
            raise DatasetError(
                "Your own texts need texts to compare them with.",
                remedy=Remedy(
                    "find_neurons_for(my_texts, against=other_texts)", smalltalk="findNeuronsFor: myTexts against: otherTexts"
                ),
            )
        return _labelled("own texts", *group_texts(mine, others), kind="text")
    if others is None:
        others = [word for word in _OTHER_WORDS if word not in set(mine)]
    return _carried("own words", mine, others, _CARRIERS, n, np.random.default_rng(seed), at_end=True)


def _prompts(dataset: Dataset) -> list[tuple[str, frozenset[str]]]:
    """Each distinct prompt, with its example's units, or itself if there are none."""
    found: dict[str, frozenset[str]] = {}
    for example in dataset:
        found.setdefault(example.clean, frozenset(example_units(example)) or frozenset([example.clean]))
    return list(found.items())


def example_units(example: Example) -> Sequence[str]:
    """`Example.units`, or `meta` of a user's file."""
    units = getattr(example, "units", ()) or example.meta.get("units", ())
    return units.split("|") if isinstance(units, str) else tuple(map(str, units))


def _carried(
    name: str,
    positive: Sequence[str],
    negative: Sequence[str],
    carriers: Sequence[str],
    n: int,
    random: np.random.Generator,
    *,
    at_end: bool,
) -> ConceptTexts:
    """Every word in every carrier, with enough words of either kind for `n` texts in both halves of a split together."""
    _distinct_sides(name, positive, negative)
    most = max(2, n // (len(carriers) // 2))
    rows = [
        (carrier.format(word=word), label, word, carrier)
        for label, words in ((True, positive), (False, negative))
        for word in _at_most(random, words, most)
        for carrier in carriers
    ]
    found, labels, groups, used = (list(column) for column in zip(*rows, strict=True))
    return ConceptTexts(name, found, labels, groups, used, at_end, "word")


def _at_most(random: np.random.Generator, words: Sequence[str], count: int) -> list[str]:
    return [words[int(index)] for index in random.permutation(len(words))[:count]]


def _labelled(name: str, positive: Sequence[Text], negative: Sequence[Text], *, kind: str) -> ConceptTexts:
    _distinct_sides(name, [text.text for text in positive], [text.text for text in negative])
    both = [*positive, *negative]
    labels = [True] * len(positive) + [False] * len(negative)
    groups = [text.group for text in both]
    return ConceptTexts(name, [text.text for text in both], labels, groups, [""] * len(both), False, kind)


def _distinct_sides(name: str, positive: Sequence[str], negative: Sequence[str]) -> None:
    clash = set(positive) & set(negative)
    if clash:
        raise DatasetError(f"{min(clash)!r} is on both sides of the concept {name}.")
