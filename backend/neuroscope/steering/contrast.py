"""Contrast pairs: the same content said with a quality and without it, so that what differs is the quality.

A pair belongs to a group, its content; groups are held out whole, so that what is judged was never seen in other words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from neuroscope.errors import DatasetError
from neuroscope.naming import fold, snake_case
from neuroscope.tasks import register
from neuroscope.tasks.lexicon import ASPECTS, BAD, GOOD, REVIEWED

#: The fewest pairs that a vector can be computed from; as many again must be left to judge it.
FEWEST = 4
_SETS = 60
_SENTIMENT_OPENINGS = tuple(f"I saw the {work}, and I think that" for work in REVIEWED)


@dataclass(frozen=True)
class ContrastPairs:
    """Pair i: positive[i] has the quality, negative[i] has not. openings: texts that could go on either way."""

    name: str
    positive: list[str]
    negative: list[str]
    groups: list[int]
    openings: tuple[str, ...] = ()

    @classmethod
    def of(cls, name: str, positive: Sequence[str], negative: Sequence[str]) -> ContrastPairs:
        """The user's own. Raises `DatasetError` when they are no pairs, too few, or a text stands on both sides."""
        positive, negative = [str(text) for text in positive], [str(text) for text in negative]
        if len(positive) != len(negative):
            raise DatasetError(
                f"{name} has {len(positive)} positive and {len(negative)} negative texts.",
                remedy="Give pairs: the first positive text beside the first negative one, and so on.",
            )
        if len(positive) < 2 * FEWEST:
            raise DatasetError(
                f"{len(positive)} contrast pairs are too few to compute {name} from and to judge it.",
                remedy=f"Give at least {2 * FEWEST} pairs.",
            )
        clash = set(positive) & set(negative)
        if clash:
            raise DatasetError(f"{min(clash)!r} stands on both sides of the contrast {name}.")
        return cls(snake_case(name.replace(" ", "_")), positive, negative, list(range(len(positive))))

    def split(self) -> tuple[ContrastPairs, ContrastPairs]:
        """Two thirds of the groups to compute from, and a third to judge by."""
        held_out = {group for index, group in enumerate(sorted(set(self.groups))) if index % 3 == 2}
        return self._take(lambda group: group not in held_out), self._take(lambda group: group in held_out)

    def _take(self, wanted: Callable[[int], bool]) -> ContrastPairs:
        at = [index for index, group in enumerate(self.groups) if wanted(group)]
        positive, negative = ([texts[index] for index in at] for texts in (self.positive, self.negative))
        return ContrastPairs(self.name, positive, negative, [self.groups[index] for index in at], self.openings)

    def __len__(self) -> int:
        return len(self.positive)


def _rewritings() -> tuple[str, ...]:
    """Half ask for a formal wording, half for an informal one: the model starts from the middle and can move either way."""
    random = np.random.default_rng(0)
    asked = []
    for content in range(2, len(register.CONTENTS), 3):
        formal, informal = register.pair(random, content)
        asked += [f"Informal: {informal} Formal:", f"Formal: {formal} Informal:"]
    return tuple(asked)


def _registers(random: np.random.Generator) -> Iterator[tuple[int, str, str]]:
    while True:
        for group in range(len(register.CONTENTS)):
            formal, informal = register.pair(random, group)
            yield group, formal, informal


def _reviews(random: np.random.Generator) -> Iterator[tuple[int, str, str]]:
    while True:
        for group, work in enumerate(REVIEWED):
            aspect = random.choice(ASPECTS)
            good, bad = random.choice(GOOD, 2, replace=False), random.choice(BAD, 2, replace=False)
            positive, negative = (f"The {work} was {x} and the {aspect} was {y}." for x, y in (good, bad))
            yield group, positive, negative


_NAMED: Mapping[str, tuple[Callable[[np.random.Generator], Iterator[tuple[int, str, str]]], tuple[str, ...]]] = {
    "formal_style": (_registers, _rewritings()),
    "positive_sentiment": (_reviews, _SENTIMENT_OPENINGS),
}
_ALIASES = {"formality": "formal_style", "text_formality": "formal_style", "sentiment": "positive_sentiment"}


def names() -> list[str]:
    """The contrasts that need no texts of the user's own."""
    return list(_NAMED)


def named(name: str, *, n: int = _SETS, seed: int = 0) -> ContrastPairs | None:
    """`n` different pairs of a contrast by any of its names; None when there is none of that name."""
    folded = {fold(known): known for known in _NAMED} | {fold(alias): known for alias, known in _ALIASES.items()}
    known = folded.get(fold(name))
    if known is None:
        return None
    make, openings = _NAMED[known]
    found: dict[tuple[str, str], int] = {}
    for _, (group, positive, negative) in zip(range(20 * n), make(np.random.default_rng(seed)), strict=False):
        found.setdefault((positive, negative), group)
        if len(found) == n:
            break
    return ContrastPairs(known, [p for p, _ in found], [q for _, q in found], list(found.values()), openings)
