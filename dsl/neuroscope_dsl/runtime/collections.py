"""The collection protocol: every message here works on anything that can be iterated over."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from neuroscope_dsl.runtime.arithmetic import equal
from neuroscope_dsl.runtime.classes import SmalltalkClass
from neuroscope_dsl.runtime.containers import Bag, Interval, Set, SortedCollection
from neuroscope_dsl.runtime.exceptions import CollectionIsEmpty, NotFound
from neuroscope_dsl.runtime.handlers import signal
from neuroscope_dsl.runtime.objects import truth
from neuroscope_dsl.runtime.protocols import Collection
from neuroscope_dsl.runtime.values import Array, Character, OrderedCollection


def elements(receiver: Any) -> Iterable[Any]:
    """What a collection iterates over in Smalltalk: a string's characters, a dictionary's values."""
    if isinstance(receiver, str):
        return map(Character, receiver)
    if isinstance(receiver, Mapping):
        return list(receiver.values())
    if isinstance(receiver, list):
        return _growing(receiver)
    return receiver


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
    if isinstance(receiver, str):
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
