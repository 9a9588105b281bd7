"""Set, IdentitySet and Bag; points."""

from __future__ import annotations

from typing import Any

from neuroscope_dsl.runtime import arithmetic
from neuroscope_dsl.runtime.classes import Object, SmalltalkClass, define
from neuroscope_dsl.runtime.collections import elements
from neuroscope_dsl.runtime.containers import Bag, IdentitySet, Set, key_of
from neuroscope_dsl.runtime.dictionaries import Dictionary, HashedCollection
from neuroscope_dsl.runtime.exceptions import NotFound
from neuroscope_dsl.runtime.handlers import signal
from neuroscope_dsl.runtime.printing import print_string
from neuroscope_dsl.runtime.values import Point

SetClass = define("Set", HashedCollection, Set, set, frozenset)
IdentitySetClass = define("IdentitySet", SetClass, IdentitySet)
BagClass = define("Bag", HashedCollection, Bag)
PointClass = define("Point", Object, Point)


@SetClass.method("add:")
def add(receiver: Any, item: Any) -> Any:
    receiver.add(item)
    return item


@BagClass.method("add:")
def bag_add(receiver: Bag, item: Any) -> Any:
    receiver.add(item)
    return item


@BagClass.method("add:withOccurrences:")
def add_with_occurrences(receiver: Bag, item: Any, times: int) -> Any:
    receiver.add(item, times)
    return item


@HashedCollection.method("addAll:")
def add_all(receiver: Any, items: Any) -> Any:
    for item in list(elements(items)):
        receiver.add(item)
    return items


@HashedCollection.method("remove:")
def remove(receiver: Any, item: Any) -> Any:
    if item not in receiver:
        return signal(NotFound(f"{print_string(item)[:60]} is not in the collection"))
    receiver.discard(item)
    return item


@HashedCollection.method("remove:ifAbsent:")
def remove_if_absent(d: Any, receiver: Any, item: Any, block: Any) -> Any:
    if item not in receiver:
        return d.value(block)
    receiver.discard(item)
    return item


@HashedCollection.method("removeAll:")
def remove_all_of(receiver: Any, items: Any) -> Any:
    for item in list(elements(items)):
        remove(receiver, item)
    return items


@SetClass.method("includes:")
@BagClass.method("includes:")
def includes(receiver: Any, item: Any) -> bool:
    return item in receiver


@BagClass.method("occurrencesOf:")
def occurrences_of(receiver: Bag, item: Any) -> int:
    return receiver.count(item)


@BagClass.method("asSet")
def as_set(receiver: Bag) -> Set:
    return Set(receiver)


@BagClass.method("valuesAndCounts")
def values_and_counts(receiver: Bag) -> Dictionary:
    return Dictionary(receiver.counts.values())


@SetClass.method("union:", "|")
def union(receiver: Any, other: Any) -> Set:
    return Set([*receiver, *elements(other)])


@SetClass.method("intersection:", "&")
def intersection(receiver: Any, other: Any) -> Set:
    kept = {key_of(item) for item in elements(other)}
    return Set(item for item in receiver if key_of(item) in kept)


@SetClass.method("difference:", "\\", "-")
def difference(receiver: Any, other: Any) -> Set:
    dropped = {key_of(item) for item in elements(other)}
    return Set(item for item in receiver if key_of(item) not in dropped)


@PointClass.method("x")
def x(receiver: Point) -> Any:
    return receiver.x


@PointClass.method("y")
def y(receiver: Point) -> Any:
    return receiver.y


def _point_arithmetic(selector: str) -> None:
    rules = {"+": arithmetic.add, "-": arithmetic.subtract, "*": arithmetic.multiply, "/": arithmetic.divide}
    rule = rules[selector]

    @PointClass.method(selector)
    def operate(receiver: Point, other: Any) -> Point:
        if isinstance(other, Point):
            return Point(rule(receiver.x, other.x), rule(receiver.y, other.y))
        return Point(rule(receiver.x, other), rule(receiver.y, other))


for _selector in ("+", "-", "*", "/"):
    _point_arithmetic(_selector)


@PointClass.class_method("x:y:")
def point(receiver: SmalltalkClass, first: Any, second: Any) -> Point:
    return Point(first, second)
