"""Groups of a user's texts that are not independent evidence.

Lists of texts are often templates filled with words: "a picture of Spain", "a letter about Spain". Two texts that differ in one
word reveal a slot and its words. A word in slots of only one kind of text makes its texts one group: whether it makes a neuron
fire is one observation, however often it is repeated. Words in slots of both kinds, and the rest of a template, do not connect
texts.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

from neuroscope.features.texts import Text

_PIECES = re.compile(r"\w+|[^\w\s]")
#: Longer texts do not count as filled templates.
_LONGEST = 40


def group_texts(positive: Sequence[str], negative: Sequence[str]) -> tuple[list[Text], list[Text]]:
    """Distinct texts of either kind with their groups: texts connected by words in slots, else each text alone."""
    fillers = _fillers([*positive, *negative])
    return group_by_units(
        [(text, fillers[text] | {text}) for text in positive], [(text, fillers[text] | {text}) for text in negative]
    )


def group_by_units(
    positive: Sequence[tuple[str, frozenset[str]]], negative: Sequence[tuple[str, frozenset[str]]]
) -> tuple[list[Text], list[Text]]:
    """Texts with their groups by units; a unit of both kinds does not connect texts."""
    shared = _all_units(positive) & _all_units(negative)
    return _tied(positive, shared), _tied(negative, shared)


def _all_units(texts: Sequence[tuple[str, frozenset[str]]]) -> frozenset[str]:
    return frozenset().union(*(units for _, units in texts))


def _tied(texts: Sequence[tuple[str, frozenset[str]]], shared: frozenset[str]) -> list[Text]:
    """Connected components of texts with common units. A group is named after its first text."""
    first: dict[str, int] = {}
    parent = list(range(len(texts)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    for index, (_, units) in enumerate(texts):
        for unit in units - shared:
            a, b = root(first.setdefault(unit, index)), root(index)
            parent[max(a, b)] = min(a, b)
    return [Text(text, texts[root(index)][0]) for index, (text, _) in enumerate(texts)]


def _fillers(texts: Sequence[str]) -> Mapping[str, frozenset[str]]:
    """The words of each text in whose place another text, otherwise equal, has another word."""
    pieces = {text: tuple(piece.lower() for piece in _PIECES.findall(text)) for text in texts}
    frames: dict[tuple[str, ...], dict[str, None]] = defaultdict(dict)
    for text in pieces.values():
        if len(text) <= _LONGEST:
            for at, word in enumerate(text):
                frames[(*text[:at], "", *text[at + 1 :])][word] = None
    return {
        text: frozenset(
            f"word:{word}"
            for at, word in enumerate(found)
            if len(found) <= _LONGEST and len(frames[(*found[:at], "", *found[at + 1 :])]) > 1
        )
        for text, found in pieces.items()
    }
