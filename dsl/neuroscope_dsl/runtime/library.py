"""The whole class library, assembled: importing this module defines every class and primitive."""

from __future__ import annotations

from collections.abc import Iterable, Sized

from neuroscope_dsl.runtime import (  # noqa: F401 - imported for the primitives that they declare
    blocks,
    characters,
    class_side,
    collections,
    counting,
    dates,
    dictionaries,
    exception_messages,
    integers,
    numbers,
    objects,
    ordered,
    sequence_classes,
    sequences,
    sets,
    streams,
    strings,
    summaries,
    symbols,
    system,
    transcript,
)
from neuroscope_dsl.runtime.classes import LIBRARY, SmalltalkClass
from neuroscope_dsl.runtime.protocols import Comparable, Foreign, Indexable, Iteration, Measurable

__all__ = ["CLASSES", "Foreign", "protocols"]

#: Every class whose methods are built in.
CLASSES: set[SmalltalkClass] = {*LIBRARY.values(), Foreign, Indexable, Iteration, Comparable, Measurable}


def protocols(python: type) -> list[SmalltalkClass]:
    """The protocols that a vocabulary or foreign type answers by what it can do in Python."""
    found = []
    if issubclass(python, type):
        return [Comparable]
    if hasattr(python, "__getitem__"):
        found.append(Indexable)
    if issubclass(python, Sized):
        found.append(Measurable)
    if issubclass(python, Iterable):
        found.append(Iteration)
    found.append(Comparable)
    return found
