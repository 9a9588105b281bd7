"""The Smalltalk name of a value's class."""

from __future__ import annotations

from typing import Any

from neuroscope.vocabulary import is_public
from neuroscope_dsl.runtime.classes import BY_TYPE, SmalltalkClass

_SMALL_INTEGER = 1 << 60


def class_name(value: Any) -> str:
    """The result of `value class name`; `Foo class` for a class."""
    if isinstance(value, SmalltalkClass):
        return f"{value.name} class"
    if value is True or value is False:
        return str(value)
    if type(value) is int:
        if -_SMALL_INTEGER <= value < _SMALL_INTEGER:
            return "SmallInteger"
        return "LargePositiveInteger" if value > 0 else "LargeNegativeInteger"
    return type_name(type(value))


def type_name(python: type) -> str:
    """The Smalltalk name of the class behind a Python type."""
    for base in python.__mro__:
        own = base.__dict__.get("smalltalk_class")
        if isinstance(own, SmalltalkClass):
            return own.name
        if base in BY_TYPE:
            return BY_TYPE[base].name
        if is_public(base) or base is python:
            name = getattr(base, "smalltalk_name", None)
            if isinstance(name, str):
                return name
            if is_public(base):
                return base.__name__
    return python.__name__
