"""Dictionaries are Python's, so that Python mappings and Smalltalk's are the same. Equal symbols and strings are one key."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from neuroscope_dsl.runtime.accounting import MAX_COLLIDING, check_collisions
from neuroscope_dsl.runtime.arguments import Block1, Block2, Key, truth
from neuroscope_dsl.runtime.classes import article, define
from neuroscope_dsl.runtime.exceptions import KeyNotFound, ModificationForbidden
from neuroscope_dsl.runtime.handlers import signal
from neuroscope_dsl.runtime.naming import class_name
from neuroscope_dsl.runtime.printing import brief
from neuroscope_dsl.runtime.protocols import Collection
from neuroscope_dsl.runtime.values import Array, Association


class Dictionary(dict[Any, Any]):
    """`Dictionary new`. Keeps the order in which keys came."""


class IdentityDictionary(Dictionary):
    """Keys are symbols, numbers or objects that are equal only to themselves."""


HashedCollection = define("HashedCollection", Collection)
DictionaryClass = define("Dictionary", HashedCollection, Dictionary, dict, Mapping)
IdentityDictionaryClass = define("IdentityDictionary", DictionaryClass, IdentityDictionary)
AssociationClass = define("Association", Collection.superclass, Association)
for _name in ("LookupTable", "OrderedDictionary"):
    define(_name, DictionaryClass).python = Dictionary


@DictionaryClass.method("at:")
def at(receiver: Any, key: Any) -> Any:
    try:
        return receiver[key]
    except (KeyError, TypeError):
        text = f"key {brief(key, 80)} not found in {article(class_name(receiver))}"
        return signal(KeyNotFound(text, key=key))


@DictionaryClass.method("at:put:")
def at_put(receiver: Any, key: Any, value: Any) -> Any:
    try:
        receiver[key] = value
    except TypeError:
        return signal(ModificationForbidden(f"This dictionary cannot be changed at {brief(key)}"))
    if not len(receiver) % MAX_COLLIDING and isinstance(receiver, dict):
        check_collisions(receiver)
    return value


@DictionaryClass.method("at:ifAbsent:")
def at_if_absent(d: Any, receiver: Any, key: Any, block: Any) -> Any:
    try:
        return receiver[key]
    except (KeyError, TypeError):
        pass
    return d.value(block)


@DictionaryClass.method("at:ifAbsentPut:")
def at_if_absent_put(d: Any, receiver: Any, key: Any, block: Any) -> Any:
    try:
        return receiver[key]
    except (KeyError, TypeError):
        pass
    return at_put(receiver, key, d.value(block))


@DictionaryClass.method("at:ifPresent:ifAbsent:")
def at_if_present_if_absent(d: Any, receiver: Any, key: Key, block: Any, absent: Any) -> Any:
    return d.cull(block, receiver[key]) if key in receiver else d.value(absent)


@DictionaryClass.method("includesKey:")
def includes_key(receiver: Any, key: Key) -> bool:
    return key in receiver


@DictionaryClass.method("removeKey:ifAbsent:")
def remove_key_if_absent(d: Any, receiver: Any, key: Key, block: Any) -> Any:
    if key not in receiver:
        return d.value(block)
    return receiver.pop(key) if hasattr(receiver, "pop") else signal(ModificationForbidden("This dictionary cannot be changed"))


@DictionaryClass.method("removeAll")
def remove_all(receiver: Any) -> Any:
    if not hasattr(receiver, "clear"):
        return signal(ModificationForbidden("This dictionary cannot be changed"))
    receiver.clear()
    return receiver


DictionaryClass.methods["keys"] = lambda receiver: Array(receiver)
DictionaryClass.methods["values"] = lambda receiver: Array(receiver.values())


@DictionaryClass.method("keysAndValuesDo:")
def keys_and_values_do(receiver: Any, block: Block2) -> Any:
    for key, value in list(receiver.items()):
        block(key, value)
    return receiver


@DictionaryClass.method("collect:")
def collect(receiver: Any, block: Block1) -> Any:
    return _same_kind(receiver, [(key, block(value)) for key, value in receiver.items()])


@DictionaryClass.method("select:")
def select(receiver: Any, block: Block1) -> Any:
    return _same_kind(receiver, [(key, value) for key, value in receiver.items() if truth(block(value))])


@DictionaryClass.method("reject:")
def reject(receiver: Any, block: Block1) -> Any:
    return _same_kind(receiver, [(key, value) for key, value in receiver.items() if not truth(block(value))])


def _same_kind(receiver: Any, pairs: Iterable[tuple[Any, Any]]) -> Any:
    kind: Callable[..., Any] = type(receiver) if isinstance(receiver, Dictionary) else Dictionary
    return kind(pairs)


AssociationClass.methods["key"] = lambda receiver: receiver.key
AssociationClass.methods["value"] = lambda receiver: receiver.value
AssociationClass.class_methods["key:value:"] = lambda receiver, key, value: Association(key, value)


@AssociationClass.method("key:value:")
def set_both(receiver: Association, key: Any, value: Any) -> Association:
    receiver.key, receiver.value = key, value
    return receiver
