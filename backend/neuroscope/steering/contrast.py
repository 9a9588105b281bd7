"""Contrast pairs: the same content with and without a quality, such as formality.

A pair belongs to a group, its content. Groups are held out whole, and held-out contents use separate words, so a vector or
probe is judged on contents and words that it was not computed from. Openings, which a steered model continues, are held out
too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from neuroscope.errors import DatasetError
from neuroscope.names import Names
from neuroscope.naming import snake_case
from neuroscope.tasks import formality, synonyms, tense
from neuroscope.tasks.lexicon import ASPECTS, BAD, GOOD, NAMES, OBJECTS, PLACES, REVIEWED

#: The fewest pairs for a vector; equally many must be left to judge it.
FEWEST = 4
_SETS = 60
_REVIEW_OPENINGS = ("I saw the {work}, and I think that", "They asked me how the {work} had been, and I said that")

Units = frozenset[str]
#: A pair: its group, positive and negative text, and its units.
_Made = tuple[int, str, str, Units]


@dataclass(frozen=True)
class ContrastPairs:
    """Pair i: positive[i] has the quality, negative[i] does not. openings: texts that could continue either way.

    units, opening_units: units of each pair and each opening, as "kind:value"; by default a pair's group and an opening's text.
    held_out: the groups for judging; by default every third, or every second if groups are few.
    """

    name: str
    positive: list[str]
    negative: list[str]
    groups: list[int]
    openings: tuple[str, ...] = ()
    units: list[Units] = field(default_factory=list)
    opening_units: tuple[Units, ...] = ()
    held_out: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        if not self.units:
            self.units.extend(frozenset([f"content:{group}"]) for group in self.groups)
        if not self.opening_units:
            object.__setattr__(self, "opening_units", tuple(frozenset([f"text:{text}"]) for text in self.openings))
        if not self.held_out:
            known = sorted(set(self.groups))
            chosen = (group for index, group in enumerate(known) if _is_held_out(index, len(known)))
            object.__setattr__(self, "held_out", frozenset(chosen))

    @classmethod
    def of(cls, name: str, positive: Sequence[str], negative: Sequence[str]) -> ContrastPairs:
        """Pairs of a user's texts. Pairs with a common text are one group.

        Raises `DatasetError` if the texts are not in pairs, are too few, or one is on both sides.
        """
        positive, negative = [str(text) for text in positive], [str(text) for text in negative]
        if len(positive) != len(negative):
            raise DatasetError(
                f"{name} has {len(positive)} positive and {len(negative)} negative texts.",
                remedy="Give pairs: the first negative text matches the first positive one, and so on.",
            )
        clash = set(positive) & set(negative)
        if clash:
            raise DatasetError(f"{min(clash)!r} is on both sides of the contrast {name}.")
        groups = _groups(positive, negative)
        if len(set(groups)) < 2 * FEWEST:
            shared = " that share no text" if len(set(groups)) < len(groups) else ""
            raise DatasetError(
                f"{len(set(groups))} contrast pairs{shared} are too few to compute {name} from and to judge it.",
                remedy=f"Give at least {2 * FEWEST} pairs.",
            )
        return cls(snake_case(name.replace(" ", "_")), positive, negative, groups)

    def split(self) -> tuple[ContrastPairs, ContrastPairs]:
        """The pairs for computing, and those for judging."""
        return self._take(lambda group: group not in self.held_out), self._take(lambda group: group in self.held_out)

    def _take(self, wanted: Callable[[int], bool]) -> ContrastPairs:
        at = [index for index, group in enumerate(self.groups) if wanted(group)]
        positive, negative = ([texts[index] for index in at] for texts in (self.positive, self.negative))
        groups, units = [self.groups[index] for index in at], [self.units[index] for index in at]
        return ContrastPairs(self.name, positive, negative, groups, self.openings, units, self.opening_units, self.held_out)

    def __len__(self) -> int:
        return len(self.positive)


def _is_held_out(index: int, groups: int) -> bool:
    step = 3 if groups >= 3 * FEWEST else 2
    return index % step == step - 1


def _groups(positive: Sequence[str], negative: Sequence[str]) -> list[int]:
    """A number for each pair, equal for pairs connected by common texts."""
    found = list(range(len(positive)))
    first: dict[str, int] = {}
    for index, texts in enumerate(zip(positive, negative, strict=True)):
        for text in texts:
            one, other = found[first.setdefault(text, index)], found[index]
            found = [min(one, other) if group in (one, other) else group for group in found]
    return found


def _words(words: Sequence[str], held_out: bool) -> list[str]:
    """The half of a list of words for this side."""
    return list(words[held_out::2])


def _filled(random: np.random.Generator, content: int) -> _Made:
    """A content's formal and informal wording, with the same words in their slots."""
    held_out = _is_held_out(content, len(formality.CONTENTS))
    lists = {"name": NAMES, "place": PLACES, "thing": OBJECTS}
    words = {slot: str(random.choice(_words(known, held_out))) for slot, known in lists.items()}
    formal, informal = formality.CONTENTS[content]
    used = [f"{slot}:{word}" for slot, word in words.items() if "{" + slot + "}" in formal + informal]
    return content, formal.format(**words), informal.format(**words), frozenset([f"content:{content}", *used])


def _neutral(openings: Sequence[str], names: int) -> tuple[tuple[str, Units], ...]:
    """Openings that tell nothing of the quality, each with some names and places of the held-out half."""
    random = np.random.default_rng(0)
    found = []
    for opening in openings:
        for _ in range(names if "{name}" in opening else 1):
            name, other = (str(word) for word in random.choice(_words(NAMES, True), 2, replace=False))
            words = {"name": name, "other": other, "place": str(random.choice(_words(PLACES, True)))}
            used = [
                f"{'name' if slot == 'other' else slot}:{word}" for slot, word in words.items() if "{" + slot + "}" in opening
            ]
            found.append((opening.format(**words), frozenset([f"template:{opening}", *used])))
    return tuple(found)


def _tenses(random: np.random.Generator) -> Iterator[_Made]:
    while True:
        for event, (past, present) in enumerate(tense.EVENTS):
            held_out = _is_held_out(event, len(tense.EVENTS))
            name, other = (str(word) for word in random.choice(_words(NAMES, held_out), 2, replace=False))
            words = {"other": other, "place": str(random.choice(_words(PLACES, held_out)))}
            words["thing"] = str(random.choice(_words(OBJECTS, held_out)))
            used = [f"{'name' if slot == 'other' else slot}:{word}" for slot, word in words.items() if "{" + slot + "}" in past]
            before, now = (f"{name} {wording.format(**words)}." for wording in (past, present))
            yield event, before, now, frozenset([f"content:{event}", f"name:{name}", *used])


def _registers(random: np.random.Generator) -> Iterator[_Made]:
    while True:
        for content in range(len(formality.CONTENTS)):
            yield _filled(random, content)


def _review_openings() -> tuple[tuple[str, Units], ...]:
    works = [work for group, work in enumerate(REVIEWED) if _is_held_out(group, len(REVIEWED))]
    return tuple(
        (opening.format(work=work), frozenset([f"work:{work}", f"template:{opening}"]))
        for opening in _REVIEW_OPENINGS
        for work in works
    )


def _reviews(random: np.random.Generator) -> Iterator[_Made]:
    while True:
        for group, work in enumerate(REVIEWED):
            held_out = _is_held_out(group, len(REVIEWED))
            aspect = str(random.choice(_words(ASPECTS, held_out)))
            good, bad = (random.choice(_words(words, held_out), 2, replace=False) for words in (GOOD, BAD))
            positive, negative = (f"The {work} was {x} and the {aspect} was {y}." for x, y in (good, bad))
            said = [f"word:{word}" for word in (*good, *bad)]
            yield group, positive, negative, frozenset([f"work:{work}", f"aspect:{aspect}", *said])


_NAMED: Mapping[str, tuple[Callable[[np.random.Generator], Iterator[_Made]], tuple[tuple[str, Units], ...]]] = {
    "formal_style": (_registers, _neutral(formality.OPENINGS, 4)),
    "positive_sentiment": (_reviews, _review_openings()),
    "past_tense": (_tenses, _neutral(tense.OPENINGS, 4)),
}


def names() -> list[str]:
    """The names of the built-in contrasts."""
    return list(_NAMED)


def named(name: str, *, n: int = _SETS, seed: int = 0) -> ContrastPairs | None:
    """`n` different pairs of a contrast, in any spelling, or None."""
    known = Names("contrast", {known: known for known in _NAMED}, aliases=synonyms.aliases(_NAMED), listing="Contrasts").find(
        name
    )
    if known is None:
        return None
    make, openings = _NAMED[known]
    found: dict[tuple[str, str], tuple[int, Units]] = {}
    for _, (group, positive, negative, units) in zip(range(20 * n), make(np.random.default_rng(seed)), strict=False):
        found.setdefault((positive, negative), (group, units))
        if len(found) == n:
            break
    return ContrastPairs(
        known,
        [positive for positive, _ in found],
        [negative for _, negative in found],
        [group for group, _ in found.values()],
        tuple(opening for opening, _ in openings),
        [units for _, units in found.values()],
        tuple(units for _, units in openings),
    )
