"""`Smalltalk`, the workspace as a dictionary of its names, and `thisContext`."""

from __future__ import annotations

from typing import Any

from neuroscope_dsl.runtime.classes import Object, define
from neuroscope_dsl.runtime.exceptions import KeyNotFound
from neuroscope_dsl.runtime.handlers import signal
from neuroscope_dsl.runtime.values import OrderedCollection
from neuroscope_dsl.source import Position


class SystemDictionary:
    """`Smalltalk at: #Name`."""

    def print_string(self) -> str:
        return "Smalltalk"


class Context:
    """`thisContext`: the places that led here, innermost first."""

    def __init__(self, places: list[Position]) -> None:
        self.places = places

    def print_string(self) -> str:
        return str(self.places[0]) if self.places else "a Context"


SystemDictionaryClass = define("SystemDictionary", Object, SystemDictionary)
ContextClass = define("Context", Object, Context)

_ABSENT = object()


@SystemDictionaryClass.method("at:")
def at(d: Any, receiver: SystemDictionary, name: Any) -> Any:
    value = d.context.lookup(str(name), _ABSENT)
    return signal(KeyNotFound(f"Smalltalk has nothing called {name}", key=name)) if value is _ABSENT else value


@SystemDictionaryClass.method("at:put:")
def at_put(d: Any, receiver: SystemDictionary, name: Any, value: Any) -> Any:
    d.context.bind(str(name), value)
    return value


@SystemDictionaryClass.method("at:ifAbsent:")
def at_if_absent(d: Any, receiver: SystemDictionary, name: Any, block: Any) -> Any:
    value = d.context.lookup(str(name), _ABSENT)
    return d.value(block) if value is _ABSENT else value


@SystemDictionaryClass.method("at:ifPresent:")
def at_if_present(d: Any, receiver: SystemDictionary, name: Any, block: Any) -> Any:
    value = d.context.lookup(str(name), _ABSENT)
    return None if value is _ABSENT else d.cull(block, value)


@SystemDictionaryClass.method("includesKey:", "hasClassNamed:")
def includes_key(d: Any, receiver: SystemDictionary, name: Any) -> bool:
    return d.context.lookup(str(name), _ABSENT) is not _ABSENT


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
