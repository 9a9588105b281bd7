"""Collections in order: Array, OrderedCollection, SortedCollection, Interval, ByteArray. Indices count from one."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from typing import Any

from neuroscope_dsl.runtime.arithmetic import equal
from neuroscope_dsl.runtime.classes import define
from neuroscope_dsl.runtime.collections import elements, like, mapped
from neuroscope_dsl.runtime.containers import Interval, SortedCollection, sort_items
from neuroscope_dsl.runtime.exceptions import (
    CollectionIsEmpty,
    Error,
    InvalidArgument,
    ModificationForbidden,
    SubscriptOutOfBounds,
)
from neuroscope_dsl.runtime.handlers import signal
from neuroscope_dsl.runtime.objects import truth
from neuroscope_dsl.runtime.printing import print_string
from neuroscope_dsl.runtime.protocols import ArrayedCollection, SequenceableCollection
from neuroscope_dsl.runtime.summaries import order_key
from neuroscope_dsl.runtime.values import Array, Character, OrderedCollection

ArrayClass = define("Array", ArrayedCollection, Array, tuple)
ByteArray = define("ByteArray", ArrayedCollection, bytearray, bytes)
IntervalClass = define("Interval", ArrayedCollection, Interval, range)
Ordered = define("OrderedCollection", SequenceableCollection, OrderedCollection, list)
Sorted = define("SortedCollection", Ordered, SortedCollection)


def item(receiver: Sequence[Any], index: int) -> Any:
    """The element at a zero-based index, as Smalltalk sees it."""
    value = receiver[index]
    return Character(value) if isinstance(receiver, str) else value


def _checked(receiver: Any, index: Any) -> int | None:
    """The zero-based index; None after signalling that there is none."""
    if type(index) is not int:
        if not hasattr(index, "__index__") or isinstance(index, bool):
            raise InvalidArgument(f"An index is an integer, not {print_string(index)[:60]}")
        index = int(index)
    if 1 <= index <= len(receiver):
        return index - 1
    return None


def out_of_bounds(receiver: Any, index: Any) -> Any:
    size = len(receiver)
    return signal(SubscriptOutOfBounds(f"Index {print_string(index)} is out of bounds: the size is {size}"))


@SequenceableCollection.method("at:")
def at(receiver: Any, index: Any) -> Any:
    place = _checked(receiver, index)
    return out_of_bounds(receiver, index) if place is None else item(receiver, place)


@SequenceableCollection.method("at:ifAbsent:")
def at_if_absent(d: Any, receiver: Any, index: Any, block: Any) -> Any:
    place = _checked(receiver, index)
    return d.value(block) if place is None else item(receiver, place)


@SequenceableCollection.method("at:ifPresent:")
def at_if_present(d: Any, receiver: Any, index: Any, block: Any) -> Any:
    place = _checked(receiver, index)
    return None if place is None else d.cull(block, item(receiver, place))


@SequenceableCollection.method("at:put:")
def at_put(receiver: Any, index: Any, value: Any) -> Any:
    if isinstance(receiver, (tuple, Interval, bytes, range)):
        return signal(ModificationForbidden("This collection cannot be changed", remedy="Change a copy: asOrderedCollection."))
    if isinstance(receiver, SortedCollection):
        return signal(Error("A SortedCollection decides itself where elements stand", remedy="Use add:."))
    place = _checked(receiver, index)
    if place is None:
        return out_of_bounds(receiver, index)
    receiver[place] = value
    return value


@SequenceableCollection.method("atAllPut:")
def at_all_put(receiver: Any, value: Any) -> Any:
    receiver[:] = [value] * len(receiver)
    return receiver


@SequenceableCollection.method("swap:with:")
def swap(receiver: Any, first: Any, second: Any) -> Any:
    a, b = at(receiver, first), at(receiver, second)
    at_put(receiver, first, b)
    at_put(receiver, second, a)
    return receiver


def _end(selector: str, index: int) -> None:
    @SequenceableCollection.method(selector)
    def end(receiver: Any) -> Any:
        return item(receiver, index) if len(receiver) else signal(CollectionIsEmpty("The collection is empty"))


_end("first", 0)
_end("last", -1)


@SequenceableCollection.method("second")
def second(receiver: Any) -> Any:
    return at(receiver, 2)


@SequenceableCollection.method("third")
def third(receiver: Any) -> Any:
    return at(receiver, 3)


@SequenceableCollection.method("first:")
def first_n(receiver: Any, count: int) -> Any:
    return copy_from_to(receiver, 1, count)


@SequenceableCollection.method("last:")
def last_n(receiver: Any, count: int) -> Any:
    return copy_from_to(receiver, len(receiver) - count + 1, len(receiver))


@SequenceableCollection.method("allButFirst", "rest")
def all_but_first(receiver: Any) -> Any:
    return slice_of(receiver, 1, len(receiver))


@SequenceableCollection.method("allButLast")
def all_but_last(receiver: Any) -> Any:
    return slice_of(receiver, 0, len(receiver) - 1)


@SequenceableCollection.method("allButFirst:")
def all_but_first_n(receiver: Any, count: int) -> Any:
    return slice_of(receiver, count, len(receiver))


@SequenceableCollection.method("allButLast:")
def all_but_last_n(receiver: Any, count: int) -> Any:
    return slice_of(receiver, 0, len(receiver) - count)


def slice_of(receiver: Any, start: int, stop: int) -> Any:
    if isinstance(receiver, str):
        return str(receiver)[start:stop]
    return like(receiver, [receiver[index] for index in range(start, max(start, stop))])


@SequenceableCollection.method("copyFrom:to:")
def copy_from_to(receiver: Any, start: int, stop: int) -> Any:
    if stop < start:
        return slice_of(receiver, 0, 0)
    if start < 1:
        return out_of_bounds(receiver, start)
    if stop > len(receiver):
        return out_of_bounds(receiver, stop)
    return slice_of(receiver, start - 1, stop)


@SequenceableCollection.method("copyFrom:")
def copy_from(receiver: Any, start: int) -> Any:
    return copy_from_to(receiver, start, len(receiver))


@SequenceableCollection.method("copyWith:")
def copy_with(receiver: Any, value: Any) -> Any:
    return like(receiver, [*elements(receiver), value])


@SequenceableCollection.method("copyWithout:")
def copy_without(receiver: Any, value: Any) -> Any:
    return like(receiver, [each for each in elements(receiver) if equal(each, value) is not True])


@SequenceableCollection.method(",")
def concatenate(d: Any, receiver: Any, other: Any) -> Any:
    if not hasattr(other, "__iter__"):
        return signal(Error(f"A collection can be joined with another, not with {print_string(other)[:60]}"))
    return like(receiver, [*elements(receiver), *elements(other)])


@SequenceableCollection.method("reverse", "reversed")
def reverse(receiver: Any) -> Any:
    return mapped(receiver, list(elements(receiver))[::-1])


@SequenceableCollection.method("indexOf:")
def index_of(receiver: Any, value: Any) -> int:
    for index, each in enumerate(elements(receiver), 1):
        if equal(each, value) is True:
            return index
    return 0


@SequenceableCollection.method("indexOf:ifAbsent:")
def index_of_if_absent(d: Any, receiver: Any, value: Any, block: Any) -> Any:
    return index_of(receiver, value) or d.value(block)


@SequenceableCollection.method("isSequenceable")
def is_sequenceable(receiver: Any) -> bool:
    return True


@ArrayClass.method("isArray")
def is_array(receiver: Any) -> bool:
    return True


@IntervalClass.method("isInterval")
def is_interval(receiver: Any) -> bool:
    return True


# --- iterating with positions ---------------------------------------------------------------------------------------


@SequenceableCollection.method("doWithIndex:", "withIndexDo:")
def with_index_do(d: Any, receiver: Any, block: Any) -> Any:
    function = d.function(block, 2)
    for index, each in enumerate(elements(receiver), 1):
        function(each, index)
    return receiver


@SequenceableCollection.method("keysAndValuesDo:")
def keys_and_values_do(d: Any, receiver: Any, block: Any) -> Any:
    function = d.function(block, 2)
    for index, each in enumerate(elements(receiver), 1):
        function(index, each)
    return receiver


@SequenceableCollection.method("withIndexCollect:", "collectWithIndex:")
def with_index_collect(d: Any, receiver: Any, block: Any) -> Any:
    function = d.function(block, 2)
    return mapped(receiver, [function(each, index) for index, each in enumerate(elements(receiver), 1)])


@SequenceableCollection.method("withIndexSelect:")
def with_index_select(d: Any, receiver: Any, block: Any) -> Any:
    function = d.function(block, 2)
    return like(receiver, [each for index, each in enumerate(elements(receiver), 1) if truth(function(each, index))])


@SequenceableCollection.method("keys")
def keys(receiver: Any) -> Interval:
    return Interval(1, len(receiver))


@SequenceableCollection.method("reverseDo:")
def reverse_do(d: Any, receiver: Any, block: Any) -> Any:
    function = d.function(block, 1)
    for each in list(elements(receiver))[::-1]:
        function(each)
    return receiver


@SequenceableCollection.method("from:to:do:")
def from_to_do(d: Any, receiver: Any, start: int, stop: int, block: Any) -> Any:
    function = d.function(block, 1)
    for index in range(start, stop + 1):
        function(at(receiver, index))
    return receiver


@SequenceableCollection.method("with:do:")
def with_do(d: Any, receiver: Any, other: Any, block: Any) -> Any:
    _same_size(receiver, other)
    function = d.function(block, 2)
    for a, b in zip(elements(receiver), elements(other), strict=True):
        function(a, b)
    return receiver


@SequenceableCollection.method("with:collect:")
def with_collect(d: Any, receiver: Any, other: Any, block: Any) -> Any:
    _same_size(receiver, other)
    function = d.function(block, 2)
    return mapped(receiver, [function(a, b) for a, b in zip(elements(receiver), elements(other), strict=True)])


def _same_size(receiver: Any, other: Any) -> None:
    if len(receiver) != len(other):
        raise InvalidArgument(f"Both collections must have one size: {len(receiver)} and {len(other)}")


@SequenceableCollection.method("allPairsDo:", "overlappingPairsDo:")
def overlapping_pairs_do(d: Any, receiver: Any, block: Any) -> Any:
    function = d.function(block, 2)
    items = list(elements(receiver))
    for a, b in itertools.pairwise(items):
        function(a, b)
    return receiver


@SequenceableCollection.method("isSorted")
def is_sorted(d: Any, receiver: Any) -> bool:
    items = list(elements(receiver))
    return all(d.send(a, "<=", b) is True for a, b in itertools.pairwise(items))


@SequenceableCollection.method("sort")
def sort(d: Any, receiver: Any) -> Any:
    receiver[:] = sort_items(receiver, order_key(d, None))
    return receiver


@SequenceableCollection.method("sort:")
def sort_by(d: Any, receiver: Any, block: Any) -> Any:
    if isinstance(receiver, SortedCollection):
        receiver.resort(d.function(block, 2))
    else:
        receiver[:] = sort_items(receiver, order_key(d, block))
    return receiver


@SequenceableCollection.method("shuffled", "shuffle")
def shuffled(d: Any, receiver: Any) -> Any:
    items = list(elements(receiver))
    generator: random.Random = d.context.random
    generator.shuffle(items)
    return mapped(receiver, items)


@SequenceableCollection.method("atRandom")
def at_random(d: Any, receiver: Any) -> Any:
    generator: random.Random = d.context.random
    return item(receiver, generator.randrange(len(receiver)))


def _arithmetic(selector: str) -> None:
    @SequenceableCollection.method(selector)
    def operate(d: Any, receiver: Any, other: Any) -> Any:
        if hasattr(other, "__iter__") and not isinstance(other, str):
            _same_size(receiver, other)
            return Array(d.send(a, selector, b) for a, b in zip(elements(receiver), elements(other), strict=True))
        return Array(d.send(each, selector, other) for each in elements(receiver))


for _selector in ("+", "-", "*", "/"):
    _arithmetic(_selector)
