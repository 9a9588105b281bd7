"""Prompt pairs of one's own: what Python, a script and HTTP may give where pairs are asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from neuroscope.errors import DatasetError
from neuroscope.remedies import Remedy
from neuroscope.tasks.dataset import Dataset, Example

_ALSO = "answer and wrong may be left out where the metric does not read them."
_REMEDY = Remedy(
    "Give {'clean': …, 'corrupt': …, 'answer': …, 'wrong': …} or (clean, corrupt, answer, wrong), one or a list of them, or a Dataset; "
    + _ALSO,
    smalltalk="Give {#clean -> … . #corrupt -> … . #answer -> … . #wrong -> …} asDictionary or {clean. corrupt. answer. wrong}, "
    f"one or a collection of them, or a Dataset; {_ALSO}",
    http=f'Give [{{"clean": …, "corrupt": …, "answer": …, "wrong": …}}, …]; {_ALSO}',
)


def own_pairs(given: Any) -> list[Example]:
    """The examples of a dataset, of dictionaries, or of tuples of two to four texts; a single pair may stand alone.

    Raises `DatasetError` that says which one is wrong: without pairs, for one that is no pair, and for one that is given twice.
    """
    if isinstance(given, Dataset):
        return given.examples
    if isinstance(given, (Example, Mapping)) or _texts(given):
        given = [given]
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
        raise DatasetError(f"{given!r:.80} is not a pair of prompts.", remedy=_REMEDY)
    found = [_example(item, number) for number, item in enumerate(given)]
    if not found:
        raise DatasetError("There are no pairs.", remedy=_REMEDY)
    seen: dict[tuple[str | None, ...], int] = {}
    for number, pair in enumerate(found):
        first = seen.setdefault((pair.clean, pair.corrupt, pair.answer, pair.wrong), number)
        if first != number:
            raise DatasetError(
                f"Pairs {first} and {number} are the same: {pair.clean!r}.",
                remedy="Leave one out: a pair that counts twice makes intervals too narrow.",
            )
    return found


def _texts(given: Any) -> bool:
    return isinstance(given, (tuple, list)) and 2 <= len(given) <= 4 and all(isinstance(text, str) for text in given)


def _example(item: Any, number: int) -> Example:
    if isinstance(item, Example):
        return item
    if isinstance(item, Mapping):
        found = Dataset.from_examples([item]).examples[0]
    elif _texts(item):
        found = Example(*item)
    else:
        raise DatasetError(f"Pair {number} is {item!r:.80}.", remedy=_REMEDY)
    if found.corrupt is None:
        raise DatasetError(
            f"Pair {number} has no corrupt prompt: {found.clean!r}.",
            remedy="Give a prompt of the same length for which the answer no longer holds, as `corrupt`.",
        )
    return found
