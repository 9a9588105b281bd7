"""Class extensions, as in Pharo: methods that a room gives to a class of a room below it.

The lower class inherits `Extensible` and does not know its extensions. The upper room decorates a class of methods with
`@extends(LowerClass)`, in a module that `directory.EXTENSIONS` lists. That module is imported at the first access to an
attribute that the class lacks, or when all its operations are listed.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

from neuroscope.directory import EXTENSIONS

C = TypeVar("C", bound=type)

_loaded: set[str] = set()


def extends(target: type) -> Callable[[C], C]:
    """Class decorator: give the methods and properties of the decorated class to `target`.

    Raises `TypeError` for a name that `target` already has.
    """

    def decorate(extension: C) -> C:
        for name, member in vars(extension).items():
            if name in _OF_EVERY_CLASS:
                continue
            if name in vars(target):
                raise TypeError(f"{extension.__qualname__}.{name} would replace {target.__qualname__}.{name}.")
            setattr(target, name, member)
        return extension

    return decorate


_OF_EVERY_CLASS = frozenset(vars(type("_", (), {}))) | {"__firstlineno__", "__static_attributes__", "__annotations__"}


def load(cls: type) -> bool:
    """Import the modules that extend a class or its bases. Return whether any was new."""
    new = [module for base in cls.__mro__ for module in EXTENSIONS.get(base.__name__, ()) if module not in _loaded]
    _loaded.update(new)
    for module in new:
        importlib.import_module(module)
    return bool(new)


class Extensible:
    """A class that rooms above it may extend. `names_elsewhere`: what other libraries call an attribute → what to write here."""

    names_elsewhere: ClassVar[Mapping[str, str]] = {}

    def __getattr__(self, name: str) -> Any:
        if not (name.startswith("__") and name.endswith("__")) and load(type(self)):
            return getattr(self, name)
        here = type(self).names_elsewhere.get(name)
        told = "" if here is None else f". Here it is {here}."
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}{told}", name=name, obj=self)
