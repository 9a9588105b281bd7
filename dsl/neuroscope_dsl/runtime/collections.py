"""The collection protocol: every message here works on anything that can be iterated over."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from neuroscope_dsl.runtime import arithmetic
from neuroscope_dsl.runtime.arithmetic import equal
from neuroscope_dsl.runtime.classes import SmalltalkClass
from neuroscope_dsl.runtime.containers import Bag, Interval, Set, SortedCollection
from neuroscope_dsl.runtime.exceptions import CollectionIsEmpty, NotFound
from neuroscope_dsl.runtime.handlers import signal
from neuroscope_dsl.runtime.objects import truth
from neuroscope_dsl.runtime.protocols import Collection
from neuroscope_dsl.runtime.values import Array, Character, OrderedCollection, Symbol


def elements(receiver: Any) -> Iterable[Any]:
    """What a collection iterates over in Smalltalk: a string's characters, a dictionary's values."""
    if isinstance(receiver, str):
        return map(Character, receiver)
    if isinstance(receiver, Mapping):
        return list(receiver.values())
    if isinstance(receiver, list):
        return _growing(receiver)
    return receiver  # type: ignore[no-any-return]


def _growing(items: list[Any]) -> Iterator[Any]:
    """The elements present at the start: a body that adds to the collection does not go on for ever."""
    for index in range(len(items)):
        if index >= len(items):
            return
        yield items[index]


def size_of(receiver: Any) -> int:
    return len(receiver) if hasattr(receiver, "__len__") else sum(1 for _ in receiver)


def like(receiver: Any, items: Iterable[Any]) -> Any:
    """A collection of the receiver's kind; what has no kind of its own becomes an OrderedCollection."""
    if isinstance(receiver, Symbol) or isinstance(receiver, str):
        items = list(items)
        if all(isinstance(item, Character) for item in items):
            return "".join(item.value for item in items)
        return Array(items)
    if isinstance(receiver, SortedCollection):
        return receiver.copy_with(items)
    own = getattr(type(receiver), "smalltalk_class", None)
    if own is not None and isinstance(receiver, list):
        fresh = type(receiver)()
        fresh.extend(items)
        return fresh
    if isinstance(receiver, (Array, tuple, Interval, range)):
        return Array(items)
    if isinstance(receiver, (bytes, bytearray)):
        items = list(items)
        return bytearray(items) if all(type(i) is int and 0 <= i < 256 for i in items) else Array(items)
    if isinstance(receiver, Bag):
        return Bag(items)
    if isinstance(receiver, (Set, set, frozenset)):
        return Set(items)
    return OrderedCollection(items)


def mapped(receiver: Any, items: Iterable[Any]) -> Any:
    """As `like`, for `collect:`: sorted collections become plain ones."""
    return OrderedCollection(items) if isinstance(receiver, SortedCollection) else like(receiver, items)


# --- size and tests -----------------------------------------------------------------------------------------------


@Collection.method("size")
def size(receiver: Any) -> int:
    return size_of(receiver)


@Collection.method("isEmpty")
def is_empty(receiver: Any) -> bool:
    return size_of(receiver) == 0


@Collection.method("notEmpty", "isNotEmpty")
def not_empty(receiver: Any) -> bool:
    return size_of(receiver) > 0


@Collection.method("isEmptyOrNil")
def is_empty_or_nil(receiver: Any) -> bool:
    return size_of(receiver) == 0


@Collection.method("ifEmpty:")
def if_empty(d: Any, receiver: Any, block: Any) -> Any:
    return d.value(block) if size_of(receiver) == 0 else receiver


@Collection.method("ifNotEmpty:")
def if_not_empty(d: Any, receiver: Any, block: Any) -> Any:
    return d.cull(block, receiver) if size_of(receiver) else receiver


@Collection.method("ifEmpty:ifNotEmpty:")
def if_empty_if_not_empty(d: Any, receiver: Any, empty: Any, block: Any) -> Any:
    return d.value(empty) if size_of(receiver) == 0 else d.cull(block, receiver)


@Collection.method("ifNotEmpty:ifEmpty:")
def if_not_empty_if_empty(d: Any, receiver: Any, block: Any, empty: Any) -> Any:
    return d.value(empty) if size_of(receiver) == 0 else d.cull(block, receiver)


@Collection.method("isCollection")
def is_collection(receiver: Any) -> bool:
    return True


@Collection.method("includes:")
def includes(receiver: Any, item: Any) -> bool:
    return any(equal(each, item) is True for each in elements(receiver))


@Collection.method("includesAll:", "includesAllOf:")
def includes_all(receiver: Any, items: Any) -> bool:
    return all(includes(receiver, item) for item in elements(items))


@Collection.method("includesAny:", "includesAnyOf:")
def includes_any(receiver: Any, items: Any) -> bool:
    return any(includes(receiver, item) for item in elements(items))


@Collection.method("occurrencesOf:")
def occurrences_of(receiver: Any, item: Any) -> int:
    return sum(1 for each in elements(receiver) if equal(each, item) is True)


# --- iterating ----------------------------------------------------------------------------------------------------


@Collection.method("do:")
def do(d: Any, receiver: Any, block: Any) -> Any:
    function = d.function(block, 1)
    for item in elements(receiver):
        function(item)
    return receiver


@Collection.method("do:separatedBy:")
def do_separated_by(d: Any, receiver: Any, block: Any, separator: Any) -> Any:
    function = d.function(block, 1)
    for index, item in enumerate(elements(receiver)):
        if index:
            d.value(separator)
        function(item)
    return receiver


@Collection.method("do:without:")
def do_without(d: Any, receiver: Any, block: Any, unwanted: Any) -> Any:
    function = d.function(block, 1)
    for item in elements(receiver):
        if equal(item, unwanted) is not True:
            function(item)
    return receiver


@Collection.method("collect:")
def collect(d: Any, receiver: Any, block: Any) -> Any:
    function = d.function(block, 1)
    return mapped(receiver, [function(item) for item in elements(receiver)])


@Collection.method("select:", "filter:")
def select(d: Any, receiver: Any, block: Any) -> Any:
    function = d.function(block, 1)
    return like(receiver, [item for item in elements(receiver) if truth(function(item))])


@Collection.method("reject:")
def reject(d: Any, receiver: Any, block: Any) -> Any:
    function = d.function(block, 1)
    return like(receiver, [item for item in elements(receiver) if not truth(function(item))])


@Collection.method("collect:as:")
def collect_as(d: Any, receiver: Any, block: Any, kind: Any) -> Any:
    function = d.function(block, 1)
    return d.send(kind, "withAll:", Array(function(item) for item in elements(receiver)))


@Collection.method("select:thenCollect:")
def select_then_collect(d: Any, receiver: Any, test: Any, block: Any) -> Any:
    return collect(d, select(d, receiver, test), block)


@Collection.method("select:thenDo:")
def select_then_do(d: Any, receiver: Any, test: Any, block: Any) -> Any:
    return do(d, select(d, receiver, test), block)


@Collection.method("collect:thenDo:")
def collect_then_do(d: Any, receiver: Any, block: Any, then: Any) -> Any:
    return do(d, collect(d, receiver, block), then)


@Collection.method("collect:thenSelect:")
def collect_then_select(d: Any, receiver: Any, block: Any, test: Any) -> Any:
    return select(d, collect(d, receiver, block), test)


@Collection.method("flatCollect:", "gather:")
def flat_collect(d: Any, receiver: Any, block: Any) -> Any:
    function = d.function(block, 1)
    return mapped(receiver, [inner for item in elements(receiver) for inner in elements(function(item))])


@Collection.method("detect:")
def detect(d: Any, receiver: Any, block: Any) -> Any:
    function = d.function(block, 1)
    for item in elements(receiver):
        if truth(function(item)):
            return item
    return signal(NotFound("No element satisfies the condition"))


@Collection.method("detect:ifNone:")
def detect_if_none(d: Any, receiver: Any, block: Any, none: Any) -> Any:
    function = d.function(block, 1)
    for item in elements(receiver):
        if truth(function(item)):
            return item
    return d.value(none)


@Collection.method("detect:ifFound:")
def detect_if_found(d: Any, receiver: Any, block: Any, found: Any) -> Any:
    return detect_if_found_if_none(d, receiver, block, found, None)


@Collection.method("detect:ifFound:ifNone:")
def detect_if_found_if_none(d: Any, receiver: Any, block: Any, found: Any, none: Any) -> Any:
    function = d.function(block, 1)
    for item in elements(receiver):
        if truth(function(item)):
            return d.cull(found, item)
    return d.value(none)


@Collection.method("anySatisfy:", "contains:")
def any_satisfy(d: Any, receiver: Any, block: Any) -> bool:
    function = d.function(block, 1)
    return any(truth(function(item)) for item in elements(receiver))


@Collection.method("allSatisfy:", "conform:")
def all_satisfy(d: Any, receiver: Any, block: Any) -> bool:
    function = d.function(block, 1)
    return all(truth(function(item)) for item in elements(receiver))


@Collection.method("noneSatisfy:")
def none_satisfy(d: Any, receiver: Any, block: Any) -> bool:
    return not any_satisfy(d, receiver, block)


@Collection.method("count:")
def count(d: Any, receiver: Any, block: Any) -> int:
    function = d.function(block, 1)
    return sum(1 for item in elements(receiver) if truth(function(item)))


@Collection.method("inject:into:")
def inject_into(d: Any, receiver: Any, start: Any, block: Any) -> Any:
    function = d.function(block, 2)
    for item in elements(receiver):
        start = function(start, item)
    return start


@Collection.method("fold:", "reduce:")
def fold(d: Any, receiver: Any, block: Any) -> Any:
    items = list(elements(receiver))
    return functools.reduce(d.function(block, 2), items) if items else _empty()


def _empty() -> Any:
    return signal(CollectionIsEmpty("The collection is empty"))


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
    return functools.cmp_to_key(lambda a, b: 0 if truth(before(a, b)) and truth(before(b, a)) else (-1 if truth(before(a, b)) else 1))


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
    return like_sorted(receiver, sorted(elements(receiver), key=order_key(d, None)))


@Collection.method("sorted:", "asSortedArray:", "sortedBy:", "sortBy:")
def sorted_by(d: Any, receiver: Any, block: Any) -> Any:
    return like_sorted(receiver, sorted(elements(receiver), key=order_key(d, block)))


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


# --- class side ---------------------------------------------------------------------------------------------------


@Collection.class_method("new:")
def new_sized(d: Any, receiver: SmalltalkClass, capacity: int) -> Any:
    return d.send(receiver, "new")


@Collection.class_method("withAll:", "newFrom:")
def with_all(d: Any, receiver: SmalltalkClass, items: Any) -> Any:
    made = d.send(receiver, "new")
    d.send(made, "addAll:", items)
    return made


def _with(d: Any, receiver: SmalltalkClass, *items: Any) -> Any:
    return d.send(receiver, "withAll:", Array(items))


for _count in range(1, 7):
    Collection.class_method("with:" * _count)(lambda d, receiver, *items: _with(d, receiver, *items))
