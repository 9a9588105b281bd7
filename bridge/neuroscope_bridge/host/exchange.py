"""Conversion between wire values and objects of a session's workspace."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from neuroscope.vocabulary import is_public
from neuroscope_bridge.host.limits import BY_VALUE, DEPTH
from neuroscope_bridge.wire.errors import CallbackError, LimitError, WireError
from neuroscope_bridge.wire.values import BlockSource, Callback, ClassName, Handle
from neuroscope_dsl.runtime.classes import SmalltalkClass
from neuroscope_dsl.runtime.naming import class_name
from neuroscope_dsl.runtime.unknown import unknown_class
from neuroscope_dsl.runtime.values import Array, Association, MutableString

if TYPE_CHECKING:
    from neuroscope_bridge.host.session import Session

#: Types that are sent unchanged; checked first, because nearly every value has one of these.
_PLAIN = frozenset({type(None), bool, int, float, str, bytes})


class ClientBlock:
    """A block on the client; calling it asks the client and waits for the answer."""

    def __init__(self, block: Callback, call: Callable[[int, list[Any]], Any]) -> None:
        self.num_args = block.num_args
        self._number = block.id
        self._call = call

    def __call__(self, *arguments: Any) -> Any:
        if len(arguments) != self.num_args:
            raise CallbackError(f"A block of {self.num_args} arguments was called with {len(arguments)}.")
        return self._call(self._number, list(arguments))

    def print_string(self) -> str:
        return "a ClientBlock"


class Importer:
    """Converts wire values to objects of the session."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def value(self, value: Any, depth: int = 0) -> Any:
        """Handles become objects, class names classes, blocks callables, also within collections."""
        kind = type(value)
        if kind in _PLAIN:
            return value
        if depth > DEPTH:
            raise WireError(f"The arguments are nested deeper than {DEPTH}.")
        if kind is Array or kind is list:
            if not all(type(item) in _PLAIN for item in value):
                value[:] = [self.value(item, depth + 1) for item in value]
            return value
        if kind is dict:
            return {self.value(key, depth + 1): self.value(item, depth + 1) for key, item in value.items()}
        match value:
            case Handle():
                return self._session.handles.get(value.id)
            case ClassName():
                return self.class_named(value.name)
            case BlockSource():
                if len(value.source) > self._session.limits.source:
                    raise LimitError(
                        f"A block of {len(value.source):,} characters is too long.", remedy="Send data as captured values."
                    )
                captured = {str(name): self.value(item, depth + 1) for name, item in value.captured.items()}
                return self._session.workspace.block(value.source, captured)
            case Callback():
                return ClientBlock(value, self._session.call_client)
            case Association():
                return Association(self.value(value.key, depth + 1), self.value(value.value, depth + 1))
        return value

    def class_named(self, name: str) -> SmalltalkClass:
        """A class that scripts can name. Raises `UnknownClass` with the nearest names."""
        workspace = self._session.workspace
        found = workspace.lookup_class(name)
        if found is None:
            raise unknown_class(name, workspace.class_names())
        return found


class _ByHandle(Exception):
    """This value is too large, too deep or of a kind that is not sent by value."""


class Exporter:
    """Converts values of the session to wire values."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def value(self, value: Any) -> Any:
        """By value if the protocol says so, otherwise a handle."""
        if type(value) in _PLAIN:
            return value
        try:
            return self._by_value(value, [BY_VALUE], 0)
        except _ByHandle:
            return self.handle(value)

    def handle(self, value: Any) -> Handle:
        """A handle for any value."""
        session = self._session
        text = session.workspace.print_string(value)
        name = value.name if isinstance(value, SmalltalkClass) else class_name(value)
        return Handle(session.handles.add(value), name, text if len(text) <= 1000 else text[:999] + "…")

    def _by_value(self, value: Any, budget: list[int], depth: int) -> Any:
        kind = type(value)
        if kind in _PLAIN:
            return value
        if is_public(kind):
            return self._object(value, depth)
        if isinstance(value, (list, tuple)):
            self._spend(len(value), budget, depth)
            return [self._by_value(item, budget, depth + 1) for item in value]
        if isinstance(value, dict):
            self._spend(len(value), budget, depth)
            if not all(isinstance(key, (str, int, float)) for key in value):
                return self._object(value, depth)
            return {key: self._by_value(item, budget, depth + 1) for key, item in value.items()}
        if isinstance(value, np.ndarray):
            return value if value.dtype.kind in "biuf" else value.tolist()
        if isinstance(value, np.generic):
            return value.item()
        if isinstance(value, Association):
            return Association(self._by_value(value.key, budget, depth + 1), self._by_value(value.value, budget, depth + 1))
        if isinstance(value, MutableString):
            return str(value)
        if isinstance(value, SmalltalkClass):
            known = self._session.workspace.lookup_class(value.name) is value
            return ClassName(value.name) if known else self._object(value, depth)
        if kind.__module__ in _WIRE_MODULES:
            return value
        return self._object(value, depth)

    def _object(self, value: Any, depth: int) -> Handle:
        if depth == 0:
            raise _ByHandle
        return self.handle(value)

    @staticmethod
    def _spend(count: int, budget: list[int], depth: int) -> None:
        budget[0] -= count
        if budget[0] < 0 or depth >= DEPTH:
            raise _ByHandle


#: Fractions, symbols and characters have a wire form.
_WIRE_MODULES = ("fractions", "neuroscope_dsl.runtime.values")
