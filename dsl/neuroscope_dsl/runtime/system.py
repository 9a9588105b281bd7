"""`Smalltalk`, the workspace as a dictionary of its names, and `thisContext`."""

from __future__ import annotations

from typing import Any

from neuroscope_dsl.errors import SmalltalkError
from neuroscope_dsl.runtime.arguments import Text
from neuroscope_dsl.runtime.classes import Object, define
from neuroscope_dsl.runtime.exceptions import Error
from neuroscope_dsl.runtime.handlers import signal
from neuroscope_dsl.runtime.values import Array, OrderedCollection, Symbol
from neuroscope_dsl.source import Position


class SystemDictionary:
    """`Smalltalk at: #Name`."""

    def print_string(self) -> str:
        return "Smalltalk"


class Context:
    """`thisContext`: the current calls, innermost first."""

    def __init__(self, places: list[Position]) -> None:
        self.places = places

    def print_string(self) -> str:
        return str(self.places[0]) if self.places else "a Context"


SystemDictionaryClass = define("SystemDictionary", Object, SystemDictionary)
ContextClass = define("Context", Object, Context)

_ABSENT = object()


@SystemDictionaryClass.method("at:put:")
def at_put(d: Any, receiver: SystemDictionary, name: Text, value: Any) -> Any:
    try:
        d.context.bind(name, value)
    except SmalltalkError as error:
        return signal(Error(error.message, remedy=error.advice))
    return value


@SystemDictionaryClass.method("at:ifAbsent:")
def at_if_absent(d: Any, receiver: SystemDictionary, name: Text, block: Any) -> Any:
    value = d.context.lookup(name, _ABSENT)
    return d.value(block) if value is _ABSENT else value


@SystemDictionaryClass.method("classNames")
def class_names(d: Any, receiver: SystemDictionary) -> Array:
    return Array(map(Symbol, d.context.class_names()))


@SystemDictionaryClass.method("allClasses")
def all_classes(d: Any, receiver: SystemDictionary) -> Array:
    """The library's, the vocabulary's and the script's classes, by name; imports all of the vocabulary."""
    return Array(d.context.lookup_class(name) for name in d.context.class_names())


@SystemDictionaryClass.method("version")
def version(receiver: SystemDictionary) -> str:
    from neuroscope import __version__

    return f"NeuroScope {__version__}"


@ContextClass.method("stack")
def stack(receiver: Context) -> OrderedCollection:
    return OrderedCollection(str(place) for place in receiver.places)


@ContextClass.method("sender")
def sender(receiver: Context) -> Context | None:
    return Context(receiver.places[1:]) if len(receiver.places) > 1 else None
