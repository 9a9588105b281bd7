"""The collection protocol, for anything that can be iterated over."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

from neuroscope_dsl.runtime.accounting import account, gathered, joined
from neuroscope_dsl.runtime.arguments import Block1, Block2, Items, elements, items_of, truth, whole
from neuroscope_dsl.runtime.arithmetic import equal, less, less_equal
from neuroscope_dsl.runtime.containers import Bag, Interval, Set, SortedCollection, sort_items
from neuroscope_dsl.runtime.exceptions import InvalidArgument
from neuroscope_dsl.runtime.handlers import signal
from neuroscope_dsl.runtime.protocols import Collection
from neuroscope_dsl.runtime.values import Array, Character, MutableString, OrderedCollection


def size_of(receiver: Any) -> int:
    return len(receiver) if hasattr(receiver, "__len__") else sum(1 for _ in receiver)


def like(receiver: Any, items: Iterable[Any]) -> Any:
    """A collection of the receiver's kind, or else an OrderedCollection."""
    if isinstance(receiver, (str, MutableString)):
        items = gathered(items)
        if all(isinstance(item, Character) for item in items):
            return joined([item.value for item in items])
        return Array(items)
    items = gathered(items)
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
        return bytearray(items) if all(type(i) is int and 0 <= i < 256 for i in items) else Array(items)
    if isinstance(receiver, Bag):
        return Bag(items)
    if isinstance(receiver, (Set, set, frozenset)):
        return Set(items)
    return OrderedCollection(items)


def mapped(receiver: Any, items: Iterable[Any]) -> Any:
    """As `like`, for `collect:`: sorted collections become plain ones."""
    return OrderedCollection(items) if isinstance(receiver, SortedCollection) else like(receiver, items)


Collection.methods |= {
    "size": size_of,
    "isEmpty": lambda receiver: size_of(receiver) == 0,
    "species": lambda d, receiver: d.class_of(like(receiver, ())),
}


# --- tests --------------------------------------------------------------------------------------------------------


@Collection.method("includes:")
def includes(receiver: Items, item: Any) -> bool:
    return any(equal(each, item) is True for each in receiver)


@Collection.method("occurrencesOf:")
def occurrences_of(receiver: Items, item: Any) -> int:
    return sum(1 for each in receiver if equal(each, item) is True)


@Collection.method("anySatisfy:")
def any_satisfy(receiver: Items, block: Block1) -> bool:
    return any(truth(block(item)) for item in receiver)


@Collection.method("allSatisfy:")
def all_satisfy(receiver: Items, block: Block1) -> bool:
    return all(truth(block(item)) for item in receiver)


@Collection.method("count:")
def count(receiver: Items, block: Block1) -> int:
    return sum(1 for item in receiver if truth(block(item)))


# --- going through the elements -----------------------------------------------------------------------------------


@Collection.method("do:")
def do(receiver: Any, block: Block1) -> Any:
    for item in elements(receiver):
        block(item)
    return receiver


@Collection.method("withIndexDo:")
def with_index_do(receiver: Any, block: Block2) -> Any:
    for index, item in enumerate(elements(receiver), 1):
        block(item, index)
    return receiver


@Collection.method("collect:")
def collect(receiver: Any, block: Block1) -> Any:
    if not isinstance(receiver, list) and hasattr(receiver, "__len__"):
        account(len(receiver))
    return mapped(receiver, [block(item) for item in elements(receiver)])


@Collection.method("flatCollect:")
def flat_collect(receiver: Any, block: Block1) -> Any:
    return mapped(receiver, [inner for item in elements(receiver) for inner in elements(block(item))])


@Collection.method("select:")
def select(receiver: Any, block: Block1) -> Any:
    return like(receiver, [item for item in elements(receiver) if truth(block(item))])


@Collection.method("reject:")
def reject(receiver: Any, block: Block1) -> Any:
    return like(receiver, [item for item in elements(receiver) if not truth(block(item))])


@Collection.method("detect:ifNone:")
def detect_if_none(d: Any, receiver: Items, block: Block1, none: Any) -> Any:
    for item in receiver:
        if truth(block(item)):
            return item
    return d.value(none)


@Collection.method("inject:into:")
def inject_into(receiver: Items, start: Any, block: Block2) -> Any:
    for item in receiver:
        start = block(start, item)
    return start


# --- order --------------------------------------------------------------------------------------------------------


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
        return less_equal(value(left), value(right))


def order_key(d: Any, block: Any) -> Callable[[Any], Any]:
    """The key that sorts by a two-argument block, by a property (one argument or a symbol), or by `<=`."""
    if block is None:
        return functools.cmp_to_key(lambda a, b: -1 if less(a, b) is True else int(less(b, a) is True))
    arguments = getattr(block, "num_args", 1)
    if arguments == 1 and not isinstance(block, SortFunction):
        function = d.function(block, 1)
        natural = order_key(d, None)
        return lambda item: natural(function(item))
    before = block if isinstance(block, SortFunction) else d.function(block, 2)
    return functools.cmp_to_key(
        lambda a, b: 0 if truth(before(a, b)) and truth(before(b, a)) else (-1 if truth(before(a, b)) else 1)
    )


@Collection.method("sorted")
def sorted_(d: Any, receiver: Any) -> Any:
    return sorted_by(d, receiver, None)


@Collection.method("sorted:")
def sorted_by(d: Any, receiver: Any, block: Any) -> Any:
    items = sort_items(items_of(receiver), order_key(d, block))
    return (
        like(receiver, items)
        if isinstance(receiver, (str, MutableString)) or type(receiver) is OrderedCollection
        else Array(items)
    )


# --- other kinds of collection ------------------------------------------------------------------------------------


Collection.methods |= {
    "asArray": lambda receiver: Array(items_of(receiver)),
    "asOrderedCollection": lambda receiver: OrderedCollection(items_of(receiver)),
    "asSet": lambda receiver: Set(elements(receiver)),
    "asBag": lambda receiver: Bag(elements(receiver)),
}


@Collection.method("asByteArray")
def as_byte_array(receiver: Items) -> Any:
    values = [ord(item.value) if isinstance(item, Character) else whole(item) for item in gathered(receiver)]
    if any(not 0 <= value < 256 for value in values):
        return signal(InvalidArgument("A ByteArray holds integers from 0 to 255"))
    return bytearray(values)


for _count in range(1, 7):
    Collection.class_method("with:" * _count)(lambda d, receiver, *items: d.send(receiver, "withAll:", Array(items)))
