"""Errors for arguments of the wrong kind: which argument, and what it should have been.

Before a call, values of Python's own types are held against annotations that name nothing else (`max_tokens: int | None` refuses 2.5, True
and "5"; `texts: Sequence[str]` a text; `share: float` NaN). Every other object may be used where it works: when the call fails with an error of
Python's own, the arguments are compared with the annotations, and the error names the first that does not fit.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import numbers
import os
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from neuroscope.directory import missing
from neuroscope.errors import ArgumentError, NeuroScopeError

#: Type → the classes that fit it, and its name in the singular and the plural.
_PLAIN: dict[Any, tuple[tuple[type, ...], str, str]] = {
    str: ((str, os.PathLike), "a text", "texts"),
    int: ((numbers.Integral,), "a whole number", "whole numbers"),
    float: ((numbers.Real,), "a number", "numbers"),
    bool: ((bool,), "true or false", "truth values"),
}
_SHOWN = 60
_LISTS = (Sequence, Iterable, list, tuple)
_BUILT_IN = frozenset({str, bytes, bytearray, int, float, complex, bool, type(None), list, tuple, dict, set, frozenset})


class WrongKindError(ArgumentError):
    """An argument is of the wrong kind."""


def naming_wrong_kinds(function: Callable[..., Any], lookup: Callable[[str], type | None]) -> Callable[..., Any]:
    """Wrap a function: a call that fails because an argument is of the wrong kind raises an `ArgumentError`.

    lookup: finds classes that its annotations name and its module imports only under `TYPE_CHECKING`.
    """

    plain: list[tuple[int, str, Any]] | None = None

    @functools.wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        nonlocal plain
        if plain is None:
            plain = _plain_parameters(function)
        if plain:
            _check_plain(function, plain, arguments, named)
        try:
            return function(*arguments, **named)
        except (TypeError, AttributeError, ValueError) as error:
            # The outermost call is the one the user wrote, so it is checked first.
            if isinstance(error, NeuroScopeError) and not isinstance(error, WrongKindError):
                raise
            wrong = _wrong(function, arguments, named, lookup)
            if wrong is None:
                raise
            raise wrong from error
        except ModuleNotFoundError as error:
            raise missing(error) or error from error

    return call


def _plain_parameters(function: Callable[..., Any]) -> list[tuple[int, str, Any]]:
    """Position, name and type of the parameters whose annotation names Python's own types alone."""
    found = []
    for position, parameter in enumerate(inspect.signature(function).parameters.values()):
        text = parameter.annotation
        fixed = parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if fixed and isinstance(text, str):
            kind = _evaluated(text, function, lambda name: None)
            if _only_plain(kind):
                found.append((position, parameter.name, kind))
    return found


def _only_plain(kind: Any, other: bool = False) -> bool:
    """Whether a type is made of Python's own types and lists of them. other: whether it may also be an array, next to those."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return all(_only_plain(one, other=True) for one in inner)
    if origin in _LISTS:
        return all(map(_only_plain, inner))
    return (other and _is_array(origin)) or any(kind is one for one in (None, types.NoneType, Ellipsis, *_PLAIN, *_LISTS))


def _is_array(origin: Any) -> bool:
    return bool(getattr(origin, "__module__", None) == "numpy")


def _check_plain(
    function: Callable[..., Any], plain: list[tuple[int, str, Any]], arguments: tuple[Any, ...], named: Mapping[str, Any]
) -> None:
    for position, name, kind in plain:
        if position < len(arguments):
            value = arguments[position]
        elif name in named:
            value = named[name]
        else:
            continue
        if type(value) not in _BUILT_IN:
            continue
        what = function.__qualname__.removesuffix(".__init__")
        if not fits(value, kind):
            raise WrongKindError(f"{name} of {what} is {described(kind)}, not {_shown(value)}.")
        if type(value) is float and math.isnan(value):
            raise WrongKindError(f"{name} of {what} is {described(kind)}, not NaN.")


def _wrong(
    function: Callable[..., Any], arguments: tuple[Any, ...], named: Mapping[str, Any], lookup: Callable[[str], type | None]
) -> WrongKindError | None:
    signature = inspect.signature(function)
    try:
        given = signature.bind(*arguments, **named).arguments
    except TypeError:
        return None
    for name, value in given.items():
        parameter = signature.parameters[name]
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        kind = _evaluated(parameter.annotation, function, lookup)
        if not fits(value, kind):
            what = function.__qualname__.removesuffix(".__init__")
            return WrongKindError(f"{name} of {what} is {described(kind)}, not {_shown(value)}.")
    return None


def _evaluated(annotation: Any, function: Callable[..., Any], lookup: Callable[[str], type | None]) -> Any:
    """An annotation as a type; `Any` if it cannot be resolved."""

    class Later(dict[str, Any]):
        def __missing__(self, name: str) -> Any:
            found = lookup(name)
            if found is None:
                raise KeyError(name)
            return found

    if not isinstance(annotation, str):
        return Any if annotation is inspect.Parameter.empty else annotation
    try:
        return eval(annotation, getattr(function, "__globals__", {}), Later())
    except (NameError, AttributeError, TypeError):
        return Any


def misfit(value: Any) -> str | None:
    """The first public field of a dataclass, or of one within it, that does not fit its annotation, in words; None if all fit.

    For what is made from a file, where every value is foreign.
    """
    if isinstance(value, (list, tuple)):
        return next((found for one in value if (found := misfit(one)) is not None), None)
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return None
    scope = vars(sys.modules[type(value).__module__])
    for one in dataclasses.fields(value):
        if one.name.startswith("_"):
            continue
        given = getattr(value, one.name)
        try:
            kind = eval(one.type, scope) if isinstance(one.type, str) else one.type
        except NameError:  # imported for types alone
            kind = Any
        if not fits(given, kind):
            return f"{one.name} is {_shown(given)}, not {described(kind)}"
        within = misfit(given)
        if within is not None:
            return within
    return None


def fits(value: Any, kind: Any) -> bool:
    """Whether a value fits an annotation, as far as can be seen without consuming it."""
    if kind is None or kind is types.NoneType:
        return value is None
    if kind in _PLAIN:
        return isinstance(value, _PLAIN[kind][0]) and (kind is bool or not isinstance(value, bool))
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, one) for one in inner)
    if origin is typing.Literal:
        return value in inner
    if origin is Callable or kind is Callable:
        return callable(value)
    if kind is Any or not isinstance(origin or kind, type):
        return True
    if issubclass(origin or kind, Mapping):
        return isinstance(value, Mapping) and _all_fit(list(value.values()), inner[1:])
    if _is_array(origin):
        return isinstance(value, origin)
    if origin is not None and issubclass(origin, Iterable):
        return isinstance(value, Iterable) and not isinstance(value, (str, Mapping)) and _all_fit(value, inner)
    try:
        return isinstance(value, origin or kind)
    except TypeError:  # a protocol that is not runtime-checkable
        return True


def _all_fit(values: Iterable[Any], inner: tuple[Any, ...]) -> bool:
    if not isinstance(values, (list, tuple, set, frozenset)) or not inner:
        return True
    if len(inner) > 1 and Ellipsis not in inner:
        return len(values) == len(inner) and all(fits(one, kind) for one, kind in zip(values, inner, strict=True))
    return all(fits(one, inner[0]) for one in values)


def described(kind: Any, *, plural: bool = False) -> str:
    """An annotation in words: "a text or a list of whole numbers"."""
    if kind is None or kind is types.NoneType:
        return "None"
    if kind in _PLAIN:
        return _PLAIN[kind][2] if plural else _PLAIN[kind][1]
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(described(one, plural=plural and one is not types.NoneType) for one in inner)
    if origin is typing.Literal:
        return " or ".join(map(repr, inner))
    if origin is Callable or kind is Callable:
        return "functions" if plural else "a function"
    if kind is Any or not isinstance(origin or kind, type):
        return "values" if plural else "a value"
    if issubclass(origin or kind, Mapping):
        return "dictionaries" if plural else "a dictionary"
    if _is_array(origin):
        return "arrays" if plural else "an array"
    if origin is not None and issubclass(origin, Iterable):
        if len(inner) > 1 and Ellipsis not in inner:
            return f"{'lists' if plural else 'a list'} of {', '.join(described(one) for one in inner)}"
        return f"{'lists' if plural else 'a list'} of {described(inner[0] if inner else Any, plural=True)}"
    name = (origin or kind).__name__
    return f"{name}s" if plural else f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def at_least(least: int, name: str, value: int) -> int:
    """A whole number that is not below `least`. Raises `ArgumentError` that names it."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise ArgumentError(f"{name} must be a whole number from {least}, not {value!r}.")
    return int(value)
