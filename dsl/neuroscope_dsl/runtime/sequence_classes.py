"""Making sequences: the class side of Array, OrderedCollection and ByteArray, and intervals."""

from __future__ import annotations

from typing import Any

from neuroscope_dsl.errors import MemoryLimitReached
from neuroscope_dsl.runtime.classes import SmalltalkClass
from neuroscope_dsl.runtime.collections import elements
from neuroscope_dsl.runtime.containers import Interval, SortedCollection
from neuroscope_dsl.runtime.exceptions import (
    InvalidArgument,
)
from neuroscope_dsl.runtime.numbers import Number
from neuroscope_dsl.runtime.printing import print_string
from neuroscope_dsl.runtime.sequences import ArrayClass, ByteArray, IntervalClass, Ordered, Sorted
from neuroscope_dsl.runtime.summaries import SortFunction
from neuroscope_dsl.runtime.values import Array, OrderedCollection

#: No collection is made with more elements than this at once.
MAX_SIZE = 100_000_000


@ArrayClass.class_method("new:")
def new_array(receiver: SmalltalkClass, size: int) -> Array:
    return Array([None] * check_size(size))


@ArrayClass.class_method("new:withAll:")
def new_array_with(receiver: SmalltalkClass, size: int, value: Any) -> Array:
    return Array([value] * check_size(size))


@ArrayClass.class_method("withAll:", "newFrom:")
def array_with_all(receiver: SmalltalkClass, items: Any) -> Array:
    return Array(elements(items))


@ByteArray.class_method("new:")
def new_byte_array(receiver: SmalltalkClass, size: int) -> bytearray:
    return bytearray(check_size(size))


@ByteArray.class_method("withAll:", "newFrom:")
def byte_array_with_all(receiver: SmalltalkClass, items: Any) -> bytearray:
    return bytearray(elements(items))


@Ordered.class_method("new:withAll:")
def new_ordered_with(receiver: SmalltalkClass, size: int, value: Any) -> OrderedCollection:
    return OrderedCollection([value] * check_size(size))


@Sorted.class_method("sortBlock:", "sortUsing:")
def sorted_by_block(d: Any, receiver: SmalltalkClass, block: Any) -> SortedCollection:
    return SortedCollection((), d.function(block, 2))


def check_size(size: Any) -> int:
    """A size that a collection can be made with."""
    if type(size) is not int or size < 0:
        raise InvalidArgument(f"A size is an integer from zero, not {print_string(size)[:60]}")
    if size > MAX_SIZE:
        raise MemoryLimitReached(f"A collection of {size} elements would be too large.")
    return size


@IntervalClass.class_method("from:to:")
def interval(receiver: SmalltalkClass, first: Any, last: Any) -> Interval:
    return Interval(first, last)


@IntervalClass.class_method("from:to:by:")
def interval_by(receiver: SmalltalkClass, first: Any, last: Any, step: Any) -> Interval:
    return Interval(first, last, step)


@Number.method("to:")
def to(receiver: Any, last: Any) -> Interval:
    return Interval(receiver, last)


@Number.method("to:by:")
def to_by(receiver: Any, last: Any, step: Any) -> Interval:
    return Interval(receiver, last, step)


@Number.method("to:collect:")
def to_collect(d: Any, receiver: Any, last: Any, block: Any) -> Array:
    function = d.function(block, 1)
    return Array(function(each) for each in Interval(receiver, last))


@IntervalClass.method("increment")
def increment(receiver: Any) -> Any:
    return receiver.step


def _ordering(selector: str, descending: bool) -> None:
    from neuroscope_dsl.runtime.blocks import BlockClosure
    from neuroscope_dsl.runtime.strings import SymbolClass

    def ordering(d: Any, receiver: Any) -> SortFunction:
        return SortFunction(d, receiver, descending)

    BlockClosure.method(selector)(ordering)
    SymbolClass.method(selector)(ordering)


_ordering("ascending", False)
_ordering("descending", True)
