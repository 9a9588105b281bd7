"""Collections in order: Array, OrderedCollection, SortedCollection, Interval, ByteArray. Indices count from one."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from neuroscope_dsl.runtime.accounting import MAX_SIZE, account, gathered
from neuroscope_dsl.runtime.arguments import Block1, Block2, Items, Size, Whole, elements, items_of, truth, whole
from neuroscope_dsl.runtime.arithmetic import equal, is_number
from neuroscope_dsl.runtime.classes import SmalltalkClass, define
from neuroscope_dsl.runtime.collections import SortFunction, as_byte_array, like, mapped, order_key
from neuroscope_dsl.runtime.containers import Interval, SortedCollection, sort_items
from neuroscope_dsl.runtime.exceptions import (
    CollectionIsEmpty,
    Error,
    InvalidArgument,
    ModificationForbidden,
    SubscriptOutOfBounds,
)
from neuroscope_dsl.runtime.handlers import signal
from neuroscope_dsl.runtime.printing import brief, print_string
from neuroscope_dsl.runtime.protocols import ArrayedCollection, SequenceableCollection
from neuroscope_dsl.runtime.values import Array, Character, OrderedCollection

ArrayClass = define("Array", ArrayedCollection, Array, tuple)
ByteArray = define("ByteArray", ArrayedCollection, bytearray, bytes)
IntervalClass = define("Interval", ArrayedCollection, Interval, range)
Ordered = define("OrderedCollection", SequenceableCollection, OrderedCollection, list)
Sorted = define("SortedCollection", Ordered, SortedCollection)


def item(receiver: Sequence[Any], index: int) -> Any:
    """The element at a zero-based index, as a Smalltalk value."""
    value = receiver[index]
    return Character(value) if isinstance(receiver, str) else value


def checked_index(receiver: Any, index: Any) -> int | None:
    """The zero-based index; None if out of bounds."""
    if type(index) is not int:
        index = whole(index)
    return index - 1 if 1 <= index <= len(receiver) else None


def out_of_bounds(receiver: Any, index: Any) -> Any:
    size = len(receiver)
    return signal(SubscriptOutOfBounds(f"Index {print_string(index)} is out of bounds: the size is {size}"))


@SequenceableCollection.method("at:")
def at(receiver: Any, index: Any) -> Any:
    place = checked_index(receiver, index)
    return out_of_bounds(receiver, index) if place is None else item(receiver, place)


@SequenceableCollection.method("at:ifAbsent:")
def at_if_absent(d: Any, receiver: Any, index: Any, block: Any) -> Any:
    place = checked_index(receiver, index)
    return d.value(block) if place is None else item(receiver, place)


@SequenceableCollection.method("at:put:")
def at_put(receiver: Any, index: Any, value: Any) -> Any:
    if _changeable(receiver):
        place = checked_index(receiver, index)
        if place is None:
            return out_of_bounds(receiver, index)
        try:
            receiver[place] = value
        except (TypeError, ValueError):
            signal(InvalidArgument(f"This collection cannot hold {brief(value)}"))
    return value


def _changeable(receiver: Any) -> bool:
    if isinstance(receiver, SortedCollection):
        signal(Error("A SortedCollection places its elements itself", remedy="Use add:."))
    elif not hasattr(receiver, "__setitem__"):
        signal(ModificationForbidden("This collection cannot be changed", remedy="Change a copy: asOrderedCollection."))
    return True


def _end(selector: str, index: int) -> None:
    @SequenceableCollection.method(selector)
    def end(receiver: Any) -> Any:
        return item(receiver, index) if len(receiver) else signal(CollectionIsEmpty("The collection is empty"))


_end("first", 0)
_end("last", -1)


@SequenceableCollection.method("copyFrom:to:")
def copy_from_to(receiver: Any, start: Whole, stop: Whole) -> Any:
    if stop < start:
        return like(receiver, ())
    if start < 1 or stop > len(receiver):
        return out_of_bounds(receiver, start if start < 1 else stop)
    if isinstance(receiver, str):
        return str(receiver)[start - 1 : stop]
    return like(receiver, [receiver[index] for index in range(start - 1, stop)])


@SequenceableCollection.method(",")
def concatenate(receiver: Any, other: Items) -> Any:
    both = items_of(receiver)
    both += gathered(other)
    return like(receiver, both)


@SequenceableCollection.method("reverse", "reversed")
def reverse(receiver: Any) -> Any:
    return mapped(receiver, items_of(receiver)[::-1])


@SequenceableCollection.method("indexOf:")
def index_of(receiver: Items, value: Any) -> int:
    for index, each in enumerate(receiver, 1):
        if equal(each, value) is True:
            return index
    return 0


@SequenceableCollection.method("with:do:")
def with_do(receiver: Any, other: Items, block: Block2) -> Any:
    for a, b in _pairs(receiver, other):
        block(a, b)
    return receiver


@SequenceableCollection.method("with:collect:")
def with_collect(receiver: Any, other: Items, block: Block2) -> Any:
    return mapped(receiver, [block(a, b) for a, b in _pairs(receiver, other)])


def _pairs(receiver: Any, other: Any) -> list[tuple[Any, Any]]:
    mine, others = items_of(receiver), gathered(other)
    if len(mine) != len(others):
        signal(InvalidArgument(f"Both collections must have the same size, not {len(mine)} and {len(others)}"))
    return list(zip(mine, others, strict=True))


@SequenceableCollection.method("sort:")
def sort_by(d: Any, receiver: Any, block: Any) -> Any:
    if isinstance(receiver, SortedCollection):
        receiver.resort(None if block is None else d.function(block, 2))
    elif _changeable(receiver):
        receiver[:] = sort_items(receiver, order_key(d, block))
    return receiver


@SequenceableCollection.method("shuffled")
def shuffled(d: Any, receiver: Any) -> Any:
    items = items_of(receiver)
    generator: random.Random = d.context.random
    generator.shuffle(items)
    return mapped(receiver, items)


def _arithmetic(selector: str) -> None:
    @SequenceableCollection.method(selector)
    def operate(d: Any, receiver: Any, other: Any) -> Any:
        if hasattr(other, "__iter__") and not isinstance(other, str):
            return Array(d.send(a, selector, b) for a, b in _pairs(receiver, elements(other)))
        return Array(d.send(each, selector, other) for each in items_of(receiver))


for _selector in ("+", "-", "*", "/"):
    _arithmetic(_selector)


# --- making sequences ---------------------------------------------------------------------------------------------


@ArrayClass.class_method("new:")
def new_array(receiver: SmalltalkClass, size: Size) -> Array:
    return Array([None] * size)


@ArrayClass.class_method("new:withAll:")
def new_array_with(receiver: SmalltalkClass, size: Size, value: Any) -> Array:
    return Array([value] * size)


ArrayClass.class_methods["withAll:"] = lambda receiver, items: Array(items_of(items))
ByteArray.class_methods["withAll:"] = lambda receiver, items: as_byte_array(elements(items))
IntervalClass.methods["increment"] = lambda receiver: receiver.step


@ByteArray.class_method("new:")
def new_byte_array(receiver: SmalltalkClass, size: Size) -> bytearray:
    return bytearray(size)


@Sorted.class_method("sortBlock:")
def sorted_by_block(receiver: SmalltalkClass, block: Block2) -> SortedCollection:
    return SortedCollection((), block)


@IntervalClass.class_method("from:to:by:")
def interval_by(receiver: SmalltalkClass, first: Any, last: Any, step: Any) -> Any:
    for value in (first, last, step):
        if not is_number(value) or value != value or value in (float("inf"), float("-inf")):
            return signal(InvalidArgument(f"An interval needs finite numbers, not {brief(value)}"))
    return Interval(first, last, step)


# --- growing and shrinking ----------------------------------------------------------------------------------------


@Ordered.method("add:")
def add(receiver: list[Any], value: Any) -> Any:
    if len(receiver) >= MAX_SIZE:
        account(len(receiver) + 1)
    if isinstance(receiver, SortedCollection):
        receiver.insert_sorted(value)
    else:
        receiver.append(value)
    return value


@Ordered.method("addFirst:")
def add_first(receiver: list[Any], value: Any) -> Any:
    account(len(receiver) + 1, each=0)
    if _changeable(receiver):
        receiver.insert(0, value)
    return value


@Ordered.method("add:beforeIndex:", "insert:before:")
def add_before(receiver: list[Any], value: Any, index: Whole) -> Any:
    if not 1 <= index <= len(receiver) + 1:
        return out_of_bounds(receiver, index)
    account(len(receiver) + 1, each=0)
    if _changeable(receiver):
        receiver.insert(index - 1, value)
    return value


@Ordered.method("addAll:")
def add_all(receiver: list[Any], items: Any) -> Any:
    more = items_of(items)
    account(len(receiver) + len(more))
    receiver.extend(more)
    if isinstance(receiver, SortedCollection):
        receiver.resort()
    return items


@Ordered.method("removeAt:")
def remove_at(receiver: list[Any], index: Any) -> Any:
    place = checked_index(receiver, index)
    return out_of_bounds(receiver, index) if place is None else receiver.pop(place)


def _removal(selector: str, index: int) -> None:
    @Ordered.method(selector)
    def remove(receiver: list[Any]) -> Any:
        return receiver.pop(index) if receiver else signal(CollectionIsEmpty("The collection is empty"))


_removal("removeFirst", 0)
_removal("removeLast", -1)


@Ordered.method("removeAll")
def remove_all(receiver: list[Any]) -> Any:
    receiver.clear()
    return receiver


@Ordered.method("removeAllSuchThat:")
def remove_all_such_that(receiver: list[Any], block: Block1) -> Any:
    receiver[:] = [each for each in receiver if not truth(block(each))]
    return receiver


def declare_orderings(*owners: SmalltalkClass) -> None:
    """`ascending` and `descending` for blocks and symbols."""
    for owner in owners:
        owner.method("ascending")(lambda d, receiver: SortFunction(d, receiver, False))
        owner.method("descending")(lambda d, receiver: SortFunction(d, receiver, True))
