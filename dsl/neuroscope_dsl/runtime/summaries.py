"""Collections as a whole: sums, extremes, sorting, grouping, and other kinds of collection made of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

from neuroscope_dsl.runtime import arithmetic
from neuroscope_dsl.runtime.collections import _empty, elements, like, size_of
from neuroscope_dsl.runtime.containers import Bag, Set, SortedCollection, sort_items
from neuroscope_dsl.runtime.objects import truth
from neuroscope_dsl.runtime.protocols import Collection
from neuroscope_dsl.runtime.values import Array, Character, OrderedCollection

# --- sums and extremes --------------------------------------------------------------------------------------------


def _total(d: Any, items: Iterable[Any]) -> Any:
    total: Any = None
    for item in items:
        total = item if total is None else d.send(total, "+", item)
    return total


@Collection.method("sum")
def sum_(d: Any, receiver: Any) -> Any:
    total = _total(d, elements(receiver))
    return 0 if total is None else total


@Collection.method("sum:", "sumNumbers:", "detectSum:")
def sum_of(d: Any, receiver: Any, block: Any) -> Any:
    function = d.function(block, 1)
    total = _total(d, (function(item) for item in elements(receiver)))
    return 0 if total is None else total


@Collection.method("average", "mean")
def average(d: Any, receiver: Any) -> Any:
    return d.send(sum_(d, receiver), "/", size_of(receiver)) if size_of(receiver) else _empty()


def _extreme(selector: str, order: str) -> None:
    @Collection.method(selector)
    def extreme(d: Any, receiver: Any) -> Any:
        best: Any = None
        for index, item in enumerate(elements(receiver)):
            if not index or d.send(item, order, best) is True:
                best = item
        return best if size_of(receiver) else _empty()


_extreme("max", ">")
_extreme("min", "<")


def _detect_extreme(selector: str, order: Callable[[Any, Any], Any]) -> None:
    @Collection.method(selector)
    def extreme(d: Any, receiver: Any, block: Any) -> Any:
        function = d.function(block, 1)
        best: Any = None
        best_value: Any = None
        for index, item in enumerate(elements(receiver)):
            value = function(item)
            if not index or order(value, best_value) is True:
                best, best_value = item, value
        return best


_detect_extreme("detectMax:", arithmetic.greater)
_detect_extreme("detectMin:", arithmetic.less)


# --- conversion ---------------------------------------------------------------------------------------------------


@Collection.method("asArray")
def as_array(receiver: Any) -> Array:
    return Array(elements(receiver))


@Collection.method("asOrderedCollection")
def as_ordered_collection(receiver: Any) -> OrderedCollection:
    return OrderedCollection(elements(receiver))


@Collection.method("asSet")
def as_set(receiver: Any) -> Set:
    return Set(elements(receiver))


@Collection.method("asBag")
def as_bag(receiver: Any) -> Bag:
    return Bag(elements(receiver))


@Collection.method("asSortedCollection")
def as_sorted_collection(receiver: Any) -> SortedCollection:
    return SortedCollection(elements(receiver))


@Collection.method("asSortedCollection:")
def as_sorted_collection_by(d: Any, receiver: Any, block: Any) -> SortedCollection:
    return SortedCollection(elements(receiver), d.function(block, 2))


@Collection.method("asByteArray")
def as_byte_array(receiver: Any) -> bytearray:
    return bytearray(ord(item.value) if isinstance(item, Character) else item for item in elements(receiver))


def order_key(d: Any, block: Any) -> Callable[[Any], Any]:
    """The key that sorts by a two-argument block, by a property (one argument or a symbol), or by `<=`."""
    if block is None:
        return functools.cmp_to_key(lambda a, b: -1 if arithmetic.less(a, b) is True else int(arithmetic.less(b, a) is True))
    arguments = getattr(block, "num_args", 1)
    if arguments == 1 and not isinstance(block, SortFunction):
        function = d.function(block, 1)
        natural = order_key(d, None)
        return lambda item: natural(function(item))
    before = block if isinstance(block, SortFunction) else d.function(block, 2)
    return functools.cmp_to_key(
        lambda a, b: 0 if truth(before(a, b)) and truth(before(b, a)) else (-1 if truth(before(a, b)) else 1)
    )


class SortFunction:
    """`#name ascending`, `#name descending`, `[:x | x size] ascending`: an order by one property."""

    __slots__ = ("descending", "dispatcher", "property")
    num_args = 2

    def __init__(self, dispatcher: Any, property_: Any, descending: bool) -> None:
        self.dispatcher = dispatcher
        self.property = property_
        self.descending = descending

    def __call__(self, left: Any, right: Any) -> Any:
        value = self.dispatcher.function(self.property, 1)
        if self.descending:
            left, right = right, left
        return arithmetic.less_equal(value(left), value(right))


@Collection.method("asSortedArray", "sorted")
def sorted_(d: Any, receiver: Any) -> Array:
    return like_sorted(receiver, sort_items(elements(receiver), order_key(d, None)))


@Collection.method("sorted:", "asSortedArray:", "sortedBy:", "sortBy:")
def sorted_by(d: Any, receiver: Any, block: Any) -> Any:
    return like_sorted(receiver, sort_items(elements(receiver), order_key(d, block)))


def like_sorted(receiver: Any, items: list[Any]) -> Any:
    return like(receiver, items) if isinstance(receiver, str) or type(receiver) is OrderedCollection else Array(items)


@Collection.method("groupedBy:", "groupBy:")
def grouped_by(d: Any, receiver: Any, block: Any) -> dict[Any, Any]:
    from neuroscope_dsl.runtime.dictionaries import Dictionary

    function = d.function(block, 1)
    groups: dict[Any, Any] = Dictionary()
    for item in elements(receiver):
        groups.setdefault(function(item), OrderedCollection()).append(item)
    return groups


@Collection.method("asDictionary")
def as_dictionary(receiver: Any) -> Any:
    from neuroscope_dsl.runtime.dictionaries import Dictionary

    return Dictionary((item.key, item.value) for item in elements(receiver))


@Collection.method("anyOne")
def any_one(receiver: Any) -> Any:
    return next(iter(elements(receiver)), None)
