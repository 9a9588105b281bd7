"""The public vocabulary: which classes receive messages, and which of their operations.

A class decorated with `@public` can be named in a script, in an image and over the wire. Its operations are every method, class
method, property, dataclass field or annotated attribute whose name does not begin with an underscore, unless marked
`@python_only`. Messages reach nothing else.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar, TypeVar, cast, get_origin
from weakref import WeakKeyDictionary

from neuroscope.directory import EXPORTS, announced
from neuroscope.errors import ArgumentError
from neuroscope.extensions import load
from neuroscope.kinds import naming_wrong_kinds
from neuroscope.naming import fold

C = TypeVar("C", bound=type)
F = TypeVar("F", bound=Callable[..., Any])

_PYTHON_ONLY = "__neuroscope_python_only__"
_PYTHON_ARGUMENTS = "__neuroscope_python_arguments__"
_PUBLIC = "__neuroscope_public__"
_BOTH_SIDES = "__neuroscope_both_sides__"


class Kind(Enum):
    """How an operation is reached."""

    METHOD = "method"
    CLASS_METHOD = "class method"
    PROPERTY = "property"
    ATTRIBUTE = "attribute"


@dataclass(frozen=True)
class Operation:
    """One operation of a vocabulary class.

    writable: `name: value` may set it. both: a class method that instances understand as well.
    """

    name: str
    kind: Kind
    writable: bool = False
    both: bool = False


class AmbiguousNameError(TypeError):
    """Two operations of one class have the same name in a script."""


def public(cls: C) -> C:
    """Class decorator: let the class receive messages. Raises `AmbiguousNameError` if two operations fold to one name.

    A method call that fails because an argument is of the wrong kind raises an `ArgumentError` that names the argument. Where the class
    has a `print_string`, its `repr` is that, in one line, also for a dataclass.
    """
    setattr(cls, _PUBLIC, cls.__name__)
    if hasattr(cls, "print_string"):
        cls.__repr__ = _one_line  # type: ignore[method-assign,assignment]
    for name, member in list(cls.__dict__.items()):
        if name.startswith("_") and name != "__init__":
            continue
        if isinstance(member, classmethod):
            function = naming_wrong_kinds(member.__func__, find)
            setattr(cls, name, (_OfBothSides if getattr(function, _BOTH_SIDES, False) else classmethod)(function))
        elif inspect.isfunction(member):
            setattr(cls, name, naming_wrong_kinds(member, find))
    _declared(cls)
    return cls


def _one_line(self: Any) -> str:
    return " ".join(str(self.print_string()).split("\n"))


def python_only(member: F) -> F:
    """Hide a public method from scripts; only Python may call it."""
    setattr(member, _PYTHON_ONLY, True)
    return member


def for_python(*names: str) -> Callable[[F], F]:
    """Hide arguments of a public method from scripts; only Python may give them."""

    def decorate(member: F) -> F:
        setattr(member, _PYTHON_ARGUMENTS, frozenset(names))
        return member

    return decorate


def python_only_arguments(function: object) -> frozenset[str]:
    """The arguments that only Python may give."""
    found: frozenset[str] = getattr(function, _PYTHON_ARGUMENTS, frozenset())
    return found


class _OfBothSides(classmethod):  # type: ignore[type-arg]
    """A class method that instances understand as well."""

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        of_any_model = super().__get__(instance, owner)
        if instance is None:
            return of_any_model

        @functools.wraps(of_any_model)
        def of_its_model(*arguments: Any, **named: Any) -> Any:
            given = inspect.signature(of_any_model).bind_partial(*arguments, **named)
            if given.arguments.get("model") is None:
                given.arguments["model"] = instance.model
            if given.arguments["model"] is not instance.model:
                raise ArgumentError(
                    f"{instance!r} uses its own model, not {given.arguments['model']!r}.",
                    remedy=f"Leave the model out, or call it on the class: {type(instance).__name__}.{self.__func__.__name__}.",
                )
            return of_any_model(*given.args, **given.kwargs)

        return of_its_model


def both_sides(member: F) -> F:
    """Let instances call a class method as well, with their own model as `model`. Write it below `@classmethod`."""
    setattr(member, _BOTH_SIDES, True)
    return member


def is_public(cls: type) -> bool:
    """Whether `cls` or a base of it belongs to the vocabulary."""
    return any(_PUBLIC in base.__dict__ for base in cls.__mro__)


def cached_by_class(function: F) -> F:
    """Cache the results of a function whose first argument is a class, as long as the class exists; at most `_KEPT` for each."""
    kept: WeakKeyDictionary[type, dict[tuple[Any, ...], Any]] = WeakKeyDictionary()

    @functools.wraps(function)
    def cached(cls: type, *arguments: Any) -> Any:
        results = kept.get(cls)
        if results is None:
            results = kept.setdefault(cls, {})
        try:
            return results[arguments]
        except KeyError:
            pass
        found = function(cls, *arguments)
        if len(results) >= _KEPT:
            results.clear()
        results[arguments] = found
        return found

    return cast(F, cached)


_KEPT = 2000


@cached_by_class
def operations(cls: type) -> Mapping[str, Operation]:
    """The operations of `cls` and its extensions, by folded name; a subclass's declaration overrides an inherited one."""
    load(cls)
    return _declared(cls)


def _declared(cls: type) -> Mapping[str, Operation]:
    found: dict[str, Operation] = {}
    for base in reversed(cls.__mro__):
        if base is object:
            continue
        own: dict[str, str] = {}
        hidden: set[str] = set()
        declared = {**dict.fromkeys(base.__dict__.get("__annotations__", {})), **base.__dict__}
        for name, member in declared.items():
            if name.startswith("_"):
                continue
            function = member.__func__ if isinstance(member, (classmethod, staticmethod)) else member
            function = member.fget if isinstance(member, property) else function
            if getattr(function, _PYTHON_ONLY, False):
                hidden.add(fold(name))
                continue
            operation = _operation(base, name, member)
            if operation is None:
                continue
            key = fold(name)
            if own.setdefault(key, name) != name:
                raise AmbiguousNameError(
                    f"{base.__name__}.{name} and {base.__name__}.{own[key]} have the same name in a script"
                )
            found[key] = operation
        for key in hidden:
            found.pop(key, None)
    return found


def _operation(base: type, name: str, member: object) -> Operation | None:
    if isinstance(member, classmethod):
        return Operation(name, Kind.CLASS_METHOD, both=isinstance(member, _OfBothSides))
    if isinstance(member, staticmethod):
        return None
    if isinstance(member, (property, functools.cached_property)):
        return Operation(name, Kind.PROPERTY, writable=getattr(member, "fset", None) is not None)
    if inspect.isfunction(member):
        return Operation(name, Kind.METHOD)
    annotation = base.__dict__.get("__annotations__", {}).get(name)
    if annotation is not None:
        if get_origin(annotation) is ClassVar or str(annotation).startswith(("ClassVar", "typing.ClassVar")):
            return None
        frozen = getattr(base.__dict__.get("__dataclass_params__"), "frozen", False)
        return Operation(name, Kind.ATTRIBUTE, writable=not frozen)
    return None


#: Classes that the documented scripts name and that do not exist yet: purpose and script number.
PLANNED: Mapping[str, tuple[str, str]] = {}


def planned(name: str) -> str | None:
    """The message for a class that the documented scripts name and that does not exist yet; None for any other name."""
    found = PLANNED.get(name)
    return None if found is None else f"{name} ({found[0]}, documented script {found[1]}) is planned and not built yet."


def names() -> list[str]:
    """Every class name that a script may use, sorted. Imports nothing."""
    return sorted({*EXPORTS, *announced()})


def find(name: str) -> type | None:
    """The vocabulary class called exactly `name`, or None; imports its module on first use."""
    module = EXPORTS.get(name) or announced().get(name)
    if module is None:
        return None
    cls = getattr(importlib.import_module(module), name)
    if not (isinstance(cls, type) and is_public(cls)):
        raise TypeError(f"{module}.{name} is exported but not decorated with @public")
    return cls
