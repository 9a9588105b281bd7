"""Dictionaries: Python's own, so that a Python mapping and a Smalltalk one are the same thing. Symbols and strings are one key."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from neuroscope_dsl.runtime.arithmetic import equal
from neuroscope_dsl.runtime.classes import SmalltalkClass, define
from neuroscope_dsl.runtime.collections import elements
from neuroscope_dsl.runtime.containers import Bag, Set, sort_items
from neuroscope_dsl.runtime.exceptions import Error, KeyNotFound, NotFound
from neuroscope_dsl.runtime.handlers import signal
from neuroscope_dsl.runtime.objects import truth
from neuroscope_dsl.runtime.printing import print_string
from neuroscope_dsl.runtime.protocols import Collection
from neuroscope_dsl.runtime.summaries import order_key
from neuroscope_dsl.runtime.values import Array, Association, OrderedCollection


class Dictionary(dict[Any, Any]):
    """`Dictionary new`. Keeps the order in which keys came."""


class IdentityDictionary(Dictionary):
    """Keys are symbols, numbers or objects that are equal only to themselves."""


HashedCollection = define("HashedCollection", Collection)
DictionaryClass = define("Dictionary", HashedCollection, Dictionary, dict, Mapping)
IdentityDictionaryClass = define("IdentityDictionary", DictionaryClass, IdentityDictionary)
AssociationClass = define("Association", Collection.superclass, Association)
LookupTable = define("LookupTable", DictionaryClass)
LookupTable.python = Dictionary
OrderedDictionary = define("OrderedDictionary", DictionaryClass)
OrderedDictionary.python = Dictionary


def missing(receiver: Any, key: Any) -> Any:
    return signal(KeyNotFound(f"key {print_string(key)[:80]} not found in {type_article(receiver)}", key=key))


def type_article(receiver: Any) -> str:
    from neuroscope_dsl.runtime.classes import article
    from neuroscope_dsl.runtime.naming import class_name

    return article(class_name(receiver))


@DictionaryClass.method("at:")
def at(receiver: Any, key: Any) -> Any:
    try:
        return receiver[key]
    except KeyError:
        return missing(receiver, key)


@DictionaryClass.method("at:put:")
def at_put(receiver: Any, key: Any, value: Any) -> Any:
    try:
        receiver[key] = value
    except TypeError as error:
        return signal(Error(f"{print_string(key)[:60]} cannot be a key: {error}"))
    return value


@DictionaryClass.method("at:ifAbsent:")
def at_if_absent(d: Any, receiver: Any, key: Any, block: Any) -> Any:
    return receiver[key] if key in receiver else d.value(block)


@DictionaryClass.method("at:ifAbsentPut:")
def at_if_absent_put(d: Any, receiver: Any, key: Any, block: Any) -> Any:
    if key not in receiver:
        receiver[key] = d.value(block)
    return receiver[key]


@DictionaryClass.method("at:ifPresent:")
def at_if_present(d: Any, receiver: Any, key: Any, block: Any) -> Any:
    return d.cull(block, receiver[key]) if key in receiver else None


@DictionaryClass.method("at:ifPresent:ifAbsent:")
def at_if_present_if_absent(d: Any, receiver: Any, key: Any, block: Any, absent: Any) -> Any:
    return d.cull(block, receiver[key]) if key in receiver else d.value(absent)


@DictionaryClass.method("at:update:", "at:ifPresentUpdate:")
def at_update(d: Any, receiver: Any, key: Any, block: Any) -> Any:
    if key not in receiver:
        return missing(receiver, key)
    receiver[key] = d.cull(block, receiver[key])
    return receiver[key]


@DictionaryClass.method("add:")
def add(receiver: Any, association: Any) -> Any:
    if not isinstance(association, Association):
        return signal(Error(f"A Dictionary takes associations (key -> value), not {print_string(association)[:60]}"))
    receiver[association.key] = association.value
    return association


@DictionaryClass.method("addAll:")
def add_all(receiver: Any, other: Any) -> Any:
    if isinstance(other, Mapping):
        receiver.update(other)
    else:
        for each in elements(other):
            add(receiver, each)
    return other


@DictionaryClass.method("keys")
def keys(receiver: Any) -> Array:
    return Array(receiver)


@DictionaryClass.method("values")
def values(receiver: Any) -> Array:
    return Array(receiver.values())


@DictionaryClass.method("associations")
def associations(receiver: Any) -> Array:
    return Array(Association(key, value) for key, value in receiver.items())


@DictionaryClass.method("includesKey:")
def includes_key(receiver: Any, key: Any) -> bool:
    return key in receiver


@DictionaryClass.method("keyAtValue:")
def key_at_value(receiver: Any, value: Any) -> Any:
    return next((key for key, each in receiver.items() if equal(each, value) is True), None)


@DictionaryClass.method("keyAtValue:ifAbsent:")
def key_at_value_if_absent(d: Any, receiver: Any, value: Any, block: Any) -> Any:
    for key, each in receiver.items():
        if equal(each, value) is True:
            return key
    return d.value(block)


@DictionaryClass.method("removeKey:")
def remove_key(receiver: Any, key: Any) -> Any:
    return receiver.pop(key) if key in receiver else missing(receiver, key)


@DictionaryClass.method("removeKey:ifAbsent:")
def remove_key_if_absent(d: Any, receiver: Any, key: Any, block: Any) -> Any:
    return receiver.pop(key) if key in receiver else d.value(block)


@DictionaryClass.method("removeAll")
def remove_all(receiver: Any) -> Any:
    receiver.clear()
    return receiver


@DictionaryClass.method("keysDo:")
def keys_do(d: Any, receiver: Any, block: Any) -> Any:
    function = d.function(block, 1)
    for key in list(receiver):
        function(key)
    return receiver


@DictionaryClass.method("valuesDo:")
def values_do(d: Any, receiver: Any, block: Any) -> Any:
    function = d.function(block, 1)
    for value in list(receiver.values()):
        function(value)
    return receiver


@DictionaryClass.method("keysAndValuesDo:")
def keys_and_values_do(d: Any, receiver: Any, block: Any) -> Any:
    function = d.function(block, 2)
    for key, value in list(receiver.items()):
        function(key, value)
    return receiver


@DictionaryClass.method("associationsDo:")
def associations_do(d: Any, receiver: Any, block: Any) -> Any:
    function = d.function(block, 1)
    for key, value in list(receiver.items()):
        function(Association(key, value))
    return receiver


def _same_kind(receiver: Any, pairs: Iterable[tuple[Any, Any]]) -> Any:
    kind: Callable[..., Any] = type(receiver) if isinstance(receiver, Dictionary) else Dictionary
    return kind(pairs)


@DictionaryClass.method("collect:")
def collect(d: Any, receiver: Any, block: Any) -> Any:
    function = d.function(block, 1)
    return _same_kind(receiver, [(key, function(value)) for key, value in receiver.items()])


@DictionaryClass.method("select:")
def select(d: Any, receiver: Any, block: Any) -> Any:
    function = d.function(block, 1)
    return _same_kind(receiver, [(key, value) for key, value in receiver.items() if truth(function(value))])


@DictionaryClass.method("reject:")
def reject(d: Any, receiver: Any, block: Any) -> Any:
    function = d.function(block, 1)
    return _same_kind(receiver, [(key, value) for key, value in receiver.items() if not truth(function(value))])


@DictionaryClass.method("keysSelect:", "selectKeys:")
def keys_select(d: Any, receiver: Any, block: Any) -> Any:
    function = d.function(block, 1)
    return _same_kind(receiver, [(key, value) for key, value in receiver.items() if truth(function(key))])


@DictionaryClass.method("keysSorted", "sortedKeys")
def keys_sorted(d: Any, receiver: Any) -> Array:
    return Array(sort_items(receiver, order_key(d, None)))


@DictionaryClass.method("keysSortedSafely:", "keysSorted:")
def keys_sorted_by(d: Any, receiver: Any, block: Any) -> Array:
    return Array(sort_items(receiver, order_key(d, block)))


@DictionaryClass.method("anyOne")
def any_one(receiver: Any) -> Any:
    return next(iter(receiver.values()), None)


@DictionaryClass.method("asDictionary")
def as_dictionary(receiver: Any) -> Any:
    return receiver


@DictionaryClass.method("isDictionary")
def is_dictionary(receiver: Any) -> bool:
    return True


@DictionaryClass.method("keysAsSet")
def keys_as_set(receiver: Any) -> Set:
    return Set(receiver)


@DictionaryClass.method("asBag")
def as_bag(receiver: Any) -> Bag:
    return Bag(receiver.values())


@DictionaryClass.method("asOrderedCollection")
def as_ordered_collection(receiver: Any) -> OrderedCollection:
    return OrderedCollection(receiver.values())


@DictionaryClass.method("remove:")
def no_remove(receiver: Any, value: Any) -> Any:
    return signal(NotFound("A Dictionary removes by key", remedy="Use removeKey:."))


@DictionaryClass.class_method("newFrom:", "withAll:", "newFromPairs:")
def new_from(d: Any, receiver: SmalltalkClass, items: Any) -> Any:
    made = d.send(receiver, "new")
    if isinstance(items, Mapping):
        made.update(items)
        return made
    listed = list(elements(items))
    if listed and not isinstance(listed[0], Association):
        made.update(zip(listed[::2], listed[1::2], strict=True))
        return made
    add_all(made, listed)
    return made


@AssociationClass.method("key")
def key(receiver: Association) -> Any:
    return receiver.key


@AssociationClass.method("value")
def value(receiver: Association) -> Any:
    return receiver.value


@AssociationClass.method("value:")
def set_value(receiver: Association, new: Any) -> Association:
    receiver.value = new
    return receiver


@AssociationClass.method("key:")
def set_key(receiver: Association, new: Any) -> Association:
    receiver.key = new
    return receiver


@AssociationClass.method("key:value:")
def set_both(receiver: Association, new_key: Any, new_value: Any) -> Association:
    receiver.key, receiver.value = new_key, new_value
    return receiver


@AssociationClass.class_method("key:value:")
def association(receiver: SmalltalkClass, new_key: Any, new_value: Any) -> Association:
    return Association(new_key, new_value)
