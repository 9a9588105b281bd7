"""The whole class library, assembled: importing this module defines every class and primitive."""

from __future__ import annotations

from collections.abc import Iterable, Sized

from neuroscope_dsl import prelude
from neuroscope_dsl.runtime import (  # noqa: F401 - imported for the primitives that they declare
    blocks,
    characters,
    class_side,
    collections,
    dates,
    dictionaries,
    exception_messages,
    numbers,
    objects,
    sets,
    streams,
    strings,
    system,
    transcript,
)
from neuroscope_dsl.runtime.blocks import BlockClosure
from neuroscope_dsl.runtime.classes import LIBRARY, SmalltalkClass
from neuroscope_dsl.runtime.protocols import Comparable, Evaluable, Foreign, Indexable, Iteration, Measurable
from neuroscope_dsl.runtime.sequences import declare_orderings

__all__ = ["CLASSES", "Foreign", "protocols"]

#: Testing selectors, and the class whose instances answer true.
_KINDS = {
    "isString": "String", "isSymbol": "Symbol", "isNumber": "Number", "isInteger": "Integer", "isFloat": "Float",
    "isFraction": "Fraction", "isCharacter": "Character", "isArray": "Array", "isCollection": "Collection",
    "isDictionary": "Dictionary", "isSequenceable": "SequenceableCollection", "isBlock": "BlockClosure", "isClass": "Class",
    "isInterval": "Interval", "isStream": "Stream",
}  # fmt: skip

for _selector, _name in _KINDS.items():
    LIBRARY["Object"].methods[_selector] = lambda receiver: False
    LIBRARY[_name].methods[_selector] = lambda receiver: True

declare_orderings(BlockClosure, LIBRARY["Symbol"])
prelude.install()

#: All classes with built-in methods.
CLASSES: set[SmalltalkClass] = {*LIBRARY.values(), Foreign, Indexable, Iteration, Comparable, Evaluable, Measurable}

#: The protocols that speak of an object's elements.
OF_ELEMENTS = (Indexable, Measurable, Iteration)


def protocols(python: type) -> list[SmalltalkClass]:
    """The protocols of a vocabulary or foreign type, by its Python methods."""
    found = []
    if issubclass(python, type):
        return [Comparable]
    if hasattr(python, "__getitem__"):
        found.append(Indexable)
    if issubclass(python, Sized):
        found.append(Measurable)
    if issubclass(python, Iterable):
        found.append(Iteration)
    if any("__call__" in base.__dict__ for base in python.__mro__):
        found.append(Evaluable)
    found.append(Comparable)
    return found
