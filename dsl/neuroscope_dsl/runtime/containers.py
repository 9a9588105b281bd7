"""Containers that Python lacks: Set and Bag over anything comparable, SortedCollection, Interval."""

from __future__ import annotations

from bisect import insort_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cmp_to_key
from typing import Any

from neuroscope_dsl.errors import DepthLimitReached
from neuroscope_dsl.runtime import arithmetic
from neuroscope_dsl.runtime.accounting import MAX_COLLIDING, check_collisions, gathered
from neuroscope_dsl.runtime.exceptions import InvalidArgument
from neuroscope_dsl.runtime.process import process, within
from neuroscope_dsl.runtime.values import OrderedCollection

#: Limit of nested sorts: Python's sort keeps four kilobytes on the machine's stack.
MAX_NESTED_SORTS = 100


def sort_items(items: Iterable[Any], key: Any) -> list[Any]:
    """`sorted`, unless too many sorts are in progress in this thread."""
    if process.sorts >= MAX_NESTED_SORTS:
        raise DepthLimitReached(f"Sorting is nested deeper than {MAX_NESTED_SORTS}.")
    process.sorts += 1
    try:
        return sorted(gathered(items), key=key)
    finally:
        process.sorts -= 1


class BooleanKey:
    """The key of true or false: in Python, but not in Smalltalk, true and 1 are the same key."""

    __slots__ = ("value",)

    def __init__(self, value: bool) -> None:
        self.value = value


_TRUE, _FALSE = BooleanKey(True), BooleanKey(False)


def key_of(item: Any) -> Any:
    """The key under which a set holds an item."""
    if item is True:
        return _TRUE
    if item is False:
        return _FALSE
    if isinstance(item, list):
        return within(lambda: (type(item).__name__, *map(key_of, item)))
    if isinstance(item, (dict, set, bytearray)):
        return id(item)
    try:
        hash(item)
    except TypeError:  # a result, which holds lists
        return id(item)
    return item


class Set:
    """Each equal element once, in order of arrival."""

    prints_elements = True

    def __init__(self, items: Iterable[Any] = ()) -> None:
        self.items: dict[Any, Any] = {}
        for item in items:
            self.add(item)

    def key(self, item: Any) -> Any:
        return key_of(item)

    def add(self, item: Any) -> None:
        items = self.items
        items.setdefault(self.key(item), item)
        if not len(items) % MAX_COLLIDING:
            check_collisions(items)

    def discard(self, item: Any) -> bool:
        """Remove an element; whether it was there."""
        key = self.key(item)
        if key not in self.items:
            return False
        del self.items[key]
        return True

    def __contains__(self, item: Any) -> bool:
        return self.key(item) in self.items

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self.items.values()))

    def __len__(self) -> int:
        return len(self.items)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Set) and self.items.keys() == other.items.keys()

    def __hash__(self) -> int:
        return hash(frozenset(self.items))

    def __copy__(self) -> Set:
        return type(self)(self)


class IdentitySet(Set):
    """Each object once."""

    def key(self, item: Any) -> Any:
        return item if isinstance(item, (int, float)) and not isinstance(item, bool) else id(item)


class Bag:
    """Elements with their counts."""

    prints_elements = True

    def __init__(self, items: Iterable[Any] = ()) -> None:
        self.counts: dict[Any, tuple[Any, int]] = {}
        for item in items:
            self.add(item)

    def add(self, item: Any, times: int = 1) -> None:
        kept, count = self.counts.get(key_of(item), (item, 0))
        self.counts[key_of(item)] = kept, count + times
        if not len(self.counts) % MAX_COLLIDING:
            check_collisions(self.counts)

    def count(self, item: Any) -> int:
        return self.counts.get(key_of(item), (item, 0))[1]

    def discard(self, item: Any) -> bool:
        count = self.count(item)
        if count > 1:
            self.counts[key_of(item)] = item, count - 1
        elif count == 1:
            del self.counts[key_of(item)]
        return count > 0

    def __contains__(self, item: Any) -> bool:
        return self.count(item) > 0

    def __iter__(self) -> Iterator[Any]:
        return (item for item, count in list(self.counts.values()) for _ in range(count))

    def __len__(self) -> int:
        return sum(count for _, count in self.counts.values())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Bag) and self.counts == other.counts

    def __hash__(self) -> int:
        return hash(frozenset(self.counts))


class SortedCollection(OrderedCollection):
    """A list that keeps its order; `before(a, b)` says whether a may come before b."""

    __slots__ = ("before",)

    def __init__(self, items: Iterable[Any] = (), before: Callable[[Any, Any], Any] | None = None) -> None:
        self.before = before or arithmetic.less_equal
        super().__init__(sort_items(items, self._key()))

    def _key(self) -> Any:
        before = self.before
        return cmp_to_key(lambda a, b: (before(b, a) is True) - (before(a, b) is True))

    def insert_sorted(self, item: Any) -> None:
        insort_right(self, item, key=self._key())

    def resort(self, before: Callable[[Any, Any], Any] | None = None) -> None:
        """Sort again, by another block if given."""
        self.before = before or self.before
        self[:] = sort_items(self, self._key())

    def copy_with(self, items: Iterable[Any]) -> SortedCollection:
        return SortedCollection(items, self.before)

    def __copy__(self) -> SortedCollection:
        return self.copy_with(self)


class Interval(Sequence[Any]):
    """`1 to: 10 by: 2`."""

    is_self_evaluating = True

    def __init__(self, first: Any, last: Any, step: Any = 1) -> None:
        if step == 0:
            raise InvalidArgument("The step of an interval must not be zero")
        self.first = first
        self.last = last
        self.step = step
        self._size = max(0, int(arithmetic.floor_divide(arithmetic.subtract(last, first), step)) + 1)

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: Any) -> Any:
        place = index + self._size if index < 0 else index
        if not 0 <= place < self._size:
            raise IndexError(index)
        return arithmetic.add(self.first, arithmetic.multiply(place, self.step))

    def __iter__(self) -> Iterator[Any]:
        if type(self.first) is int and type(self.step) is int:
            return iter(range(self.first, self.first + self._size * self.step, self.step))
        return (self[index] for index in range(self._size))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Interval) or len(self) != len(other):
            return False
        return not self._size or (self.first == other.first and (self._size == 1 or self.step == other.step))

    def __hash__(self) -> int:
        return hash((self.first, self.last, self.step))

    def print_string(self) -> str:
        from neuroscope_dsl.runtime.printing import print_string

        by = "" if self.step == 1 else f" by: {print_string(self.step)}"
        return f"({print_string(self.first)} to: {print_string(self.last)}{by})"
