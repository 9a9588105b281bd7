"""OrderedCollection and SortedCollection: growing and shrinking."""

from __future__ import annotations

from typing import Any

from neuroscope_dsl.runtime.collections import elements
from neuroscope_dsl.runtime.containers import SortedCollection
from neuroscope_dsl.runtime.exceptions import (
    CollectionIsEmpty,
    NotFound,
)
from neuroscope_dsl.runtime.handlers import signal
from neuroscope_dsl.runtime.objects import truth
from neuroscope_dsl.runtime.printing import print_string
from neuroscope_dsl.runtime.sequences import Ordered, _checked, index_of, out_of_bounds
from neuroscope_dsl.runtime.values import OrderedCollection


@Ordered.method("add:", "addLast:")
def add(receiver: list[Any], value: Any) -> Any:
    if isinstance(receiver, SortedCollection):
        receiver.insert_sorted(value)
    else:
        receiver.append(value)
    return value


@Ordered.method("addFirst:")
def add_first(receiver: list[Any], value: Any) -> Any:
    receiver.insert(0, value)
    return value


@Ordered.method("add:beforeIndex:")
def add_before(receiver: list[Any], value: Any, index: int) -> Any:
    receiver.insert(index - 1, value)
    return value


@Ordered.method("insert:before:")
def insert_before(receiver: list[Any], value: Any, index: int) -> Any:
    return add_before(receiver, value, index)


@Ordered.method("addAll:", "addAllLast:")
def add_all(receiver: list[Any], items: Any) -> Any:
    for each in list(elements(items)):
        add(receiver, each)
    return items


@Ordered.method("addAllFirst:")
def add_all_first(receiver: list[Any], items: Any) -> Any:
    receiver[0:0] = list(elements(items))
    return items


@Ordered.method("removeFirst")
def remove_first(receiver: list[Any]) -> Any:
    return receiver.pop(0) if receiver else signal(CollectionIsEmpty("The collection is empty"))


@Ordered.method("removeLast")
def remove_last(receiver: list[Any]) -> Any:
    return receiver.pop() if receiver else signal(CollectionIsEmpty("The collection is empty"))


@Ordered.method("removeFirst:")
def remove_first_n(receiver: list[Any], count: int) -> Any:
    removed = receiver[:count]
    del receiver[:count]
    return OrderedCollection(removed)


@Ordered.method("removeLast:")
def remove_last_n(receiver: list[Any], count: int) -> Any:
    removed = receiver[len(receiver) - count :]
    del receiver[len(receiver) - count :]
    return OrderedCollection(removed)


@Ordered.method("remove:")
def remove(receiver: list[Any], value: Any) -> Any:
    index = index_of(receiver, value)
    if not index:
        return signal(NotFound(f"{print_string(value)[:60]} is not in the collection"))
    return receiver.pop(index - 1)


@Ordered.method("remove:ifAbsent:")
def remove_if_absent(d: Any, receiver: list[Any], value: Any, block: Any) -> Any:
    index = index_of(receiver, value)
    return receiver.pop(index - 1) if index else d.value(block)


@Ordered.method("removeAt:", "removeIndex:")
def remove_at(receiver: list[Any], index: Any) -> Any:
    place = _checked(receiver, index)
    return out_of_bounds(receiver, index) if place is None else receiver.pop(place)


@Ordered.method("removeAll:")
def remove_all_of(receiver: list[Any], items: Any) -> Any:
    for each in list(elements(items)):
        remove(receiver, each)
    return items


@Ordered.method("removeAll", "reset")
def remove_all(receiver: list[Any]) -> Any:
    receiver.clear()
    return receiver


@Ordered.method("removeAllSuchThat:")
def remove_all_such_that(d: Any, receiver: list[Any], block: Any) -> Any:
    function = d.function(block, 1)
    receiver[:] = [each for each in receiver if not truth(function(each))]
    return receiver
