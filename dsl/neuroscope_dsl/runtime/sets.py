"""Set, IdentitySet and Bag; points."""

from __future__ import annotations

from typing import Any

from neuroscope_dsl.runtime.arguments import Size, items_of, key
from neuroscope_dsl.runtime.classes import Object, define
from neuroscope_dsl.runtime.containers import Bag, IdentitySet, Set, key_of
from neuroscope_dsl.runtime.dictionaries import Dictionary, HashedCollection
from neuroscope_dsl.runtime.exceptions import ModificationForbidden
from neuroscope_dsl.runtime.handlers import signal
from neuroscope_dsl.runtime.values import Point

SetClass = define("Set", HashedCollection, Set, set, frozenset)
IdentitySetClass = define("IdentitySet", SetClass, IdentitySet)
BagClass = define("Bag", HashedCollection, Bag)
PointClass = define("Point", Object, Point)


@HashedCollection.method("add:")
def add(receiver: Any, item: Any) -> Any:
    add_all(receiver, (item,))
    return item


@HashedCollection.method("addAll:")
def add_all(receiver: Any, items: Any) -> Any:
    if not hasattr(receiver, "add"):
        return signal(ModificationForbidden("This collection cannot be changed"))
    for item in items if type(items) is tuple else items_of(items):
        key(key_of(item))
        receiver.add(item)
    return items


@HashedCollection.method("remove:ifAbsent:")
def remove_if_absent(d: Any, receiver: Any, item: Any, block: Any) -> Any:
    key(key_of(item))
    if item not in receiver:
        return d.value(block)
    if not hasattr(receiver, "discard"):
        return signal(ModificationForbidden("This collection cannot be changed"))
    receiver.discard(item)
    return item


@SetClass.method("includes:")
@BagClass.method("includes:")
def includes(receiver: Any, item: Any) -> bool:
    key(key_of(item))
    return item in receiver


@SetClass.method("removeAll")
@BagClass.method("removeAll")
def remove_all(receiver: Any) -> Any:
    for item in list(receiver):
        receiver.discard(item)
    return receiver


@BagClass.method("add:withOccurrences:")
def add_with_occurrences(receiver: Bag, item: Any, times: Size) -> Any:
    key(key_of(item))
    if times:
        receiver.add(item, times)
    return item


@BagClass.method("occurrencesOf:")
def occurrences_of(receiver: Bag, item: Any) -> int:
    key(key_of(item))
    return receiver.count(item)


BagClass.methods["valuesAndCounts"] = lambda receiver: Dictionary(receiver.counts.values())
PointClass.methods["x"] = lambda receiver: receiver.x
PointClass.methods["y"] = lambda receiver: receiver.y
PointClass.class_methods["x:y:"] = lambda receiver, x, y: Point(x, y)
