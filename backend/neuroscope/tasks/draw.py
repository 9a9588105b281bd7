"""Random choices of a generator: among all values of a kind, or those of one part of a split."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from neuroscope.errors import DatasetError

if TYPE_CHECKING:
    from neuroscope.tasks.dataset import Example

T = TypeVar("T")

#: Examples after which every list that a generator chooses from is known.
_TRIED = 60
#: Draws without an example after which a generator counts as exhausted.
_MOST_IN_VAIN = 20_000

#: Kind → value → the part of a split that may use it. Missing kinds are not restricted.
Pools = Mapping[str, Mapping[str, int]]


@dataclass
class Asked:
    """A list of values that a generator chose from: their texts, and the largest number chosen at once."""

    kind: str
    texts: tuple[str, ...]
    most: int


class _NothingMore(Exception):
    """A generator has drawn many times without making an example."""


class Draw:
    """Random choices among values of named kinds.

    Without pools it chooses among all values, and `asked` records the lists. With pools it chooses among the values of `part`;
    a value in no pool is never chosen.
    """

    def __init__(self, random: np.random.Generator, pools: Pools | None = None, part: int = 0) -> None:
        self.random = random
        self._pools, self._part = pools, part
        self._in_vain = self._patience = 0
        self._asked: dict[tuple[str, int], tuple[Sequence[Any], Asked]] = {}
        self._allowed: dict[tuple[str, int], tuple[Sequence[Any], list[Any]]] = {}

    @property
    def asked(self) -> list[Asked]:
        """Every list that was chosen from."""
        return [asked for _, asked in self._asked.values()]

    def one(self, kind: str, values: Sequence[T], text: Callable[[T], str] = str) -> T:
        """One of the values. `text` returns a value's name in units."""
        found = self._among(kind, values, text, 1)
        return found[int(self.random.integers(len(found)))]

    def several(self, kind: str, values: Sequence[T], n: int, text: Callable[[T], str] = str) -> list[T]:
        """`n` different values, in random order."""
        found = self._among(kind, values, text, n)
        return [found[int(index)] for index in self.random.choice(len(found), n, replace=False)]

    def taken(self, examples: Iterator[Example], n: int) -> list[Example]:
        """The next `n` examples of a generator that uses this draw; fewer if the values are exhausted."""
        found: list[Example] = []
        self._in_vain, self._patience = 0, _MOST_IN_VAIN
        try:
            for example in islice(examples, n):
                found.append(example)
                self._in_vain = 0
        except _NothingMore:
            pass
        finally:
            self._patience = 0
        return found

    def _among(self, kind: str, values: Sequence[T], text: Callable[[T], str], n: int) -> Sequence[T]:
        self._in_vain += 1
        if 0 < self._patience < self._in_vain:
            raise _NothingMore
        # The list is stored with its result, so that its id cannot be reused.
        key = (kind, id(values))
        if self._pools is None:
            if key not in self._asked:
                self._asked[key] = (values, Asked(kind, tuple(text(value) for value in values), n))
            self._asked[key][1].most = max(n, self._asked[key][1].most)
            return values
        if key not in self._allowed:
            pool = self._pools.get(kind)
            chosen = [v for v in values if pool is None or pool.get(text(v)) == self._part]
            self._allowed[key] = (values, chosen)
        found = self._allowed[key][1]
        if len(found) < n:
            raise DatasetError(
                f"A part of the examples has {len(found)} values of {kind} to choose from, but needs {n}.",
                remedy="Ask for fewer parts.",
            )
        return found


def units(**kinds: str | Sequence[str]) -> tuple[str, ...]:
    """Values by kind as the units of an example: name=("Mary", "John") → "name:Mary", "name:John"."""
    return tuple(
        dict.fromkeys(
            f"{kind}:{value}" for kind, values in kinds.items() for value in ((values,) if isinstance(values, str) else values)
        )
    )


def remaining(generator: Callable[[Draw], Iterator[Example]], used: frozenset[str]) -> Pools:
    """Pools of what a generator can choose from without the units `used` ("kind:value"), for examples that share nothing with them.

    Kinds of which too few values are left stay unrestricted.
    """
    draw = Draw(np.random.default_rng(0))
    draw.taken(generator(draw), _TRIED)
    pools: dict[str, dict[str, int]] = {}
    short = set()
    for asked in draw.asked:
        left = [text for text in asked.texts if f"{asked.kind}:{text}" not in used]
        pools.setdefault(asked.kind, {}).update(dict.fromkeys(left, 0))
        if len(left) < asked.most:
            short.add(asked.kind)
    return {kind: pool for kind, pool in pools.items() if kind not in short}
