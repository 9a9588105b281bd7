"""Requests: the operations, and their required and optional fields.

Every header has `v` (version), `id` (chosen by the client, returned as `re`) and `op`. An unknown field is an error, so that a
misspelt option is never ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from neuroscope.errors import did_you_mean
from neuroscope_bridge.wire.errors import ProtocolError, ProtocolVersionError, UnknownOperationError
from neuroscope_bridge.wire.values import ClassName, Handle

#: The version of the protocol.
VERSION = 1

#: Events of a subscription.
EVENTS = ("progress", "notice", "transcript", "statement")

#: Forms of answers.
FORMS = ("auto", "handle", "value", "tensor", "summary", "string")

_NUMBER = (int, float)
_ANY = (object,)
_COMPUTING: Mapping[str, tuple[type, ...]] = {"answer": (dict,), "time": _NUMBER, "within": (int,)}


@dataclass(frozen=True)
class Operation:
    """The fields of an operation's header, with their types; `object` means any value."""

    required: Mapping[str, tuple[type, ...]] = field(default_factory=dict)
    optional: Mapping[str, tuple[type, ...]] = field(default_factory=dict)

    @cached_property
    def allowed(self) -> Mapping[str, tuple[type, ...]]:
        return {**self.required, **self.optional}


OPERATIONS: Mapping[str, Operation] = {
    "hello": Operation({}, {"client": (str,), "lease": _NUMBER, "seed": (int,), "events": (list,)}),
    "send": Operation({"receiver": _ANY, "selector": (str,)}, {"arguments": (list,), **_COMPUTING}),
    "evaluate": Operation({"source": (str,)}, {"bindings": (dict,), **_COMPUTING}),
    "run": Operation({"source": (str,)}, {"file": (str,), **_COMPUTING}),
    "release": Operation({}, {"handles": (list,), "session": (bool,)}),
    "cancel": Operation({"request": (int,)}),
    "subscribe": Operation({"events": (list,)}),
    "describe": Operation({"class": (str, ClassName, Handle)}, {"within": (int,)}),
    "answer": Operation({"call": (int,)}, {"value": _ANY, "error": (str,)}),
}


@dataclass(frozen=True)
class Request:
    """A request with a checked header."""

    id: int
    operation: str
    fields: Mapping[str, Any]
    size: int = 0  # bytes of the message

    def get(self, name: str, default: Any = None) -> Any:
        return self.fields.get(name, default)

    def __getitem__(self, name: str) -> Any:
        return self.fields[name]


def request_id(header: Any) -> int | None:
    """The id of a possibly invalid request, for its error."""
    found = header.get("id") if isinstance(header, dict) else None
    return found if _is_id(found) else None


def parse_request(header: Any) -> Request:
    """Check a header. Raises `ProtocolError`."""
    if not isinstance(header, dict):
        raise ProtocolError("A header must be a map.", remedy='{"v": 1, "id": 1, "op": "hello"}')
    version = header.get("v")
    if version != VERSION or isinstance(version, bool):
        raise ProtocolVersionError(
            f"This server uses version {VERSION} of the protocol, not {shown(version)}.",
            remedy="Use a client and a server of the same release.",
        )
    number = header.get("id")
    if not _is_id(number):
        raise ProtocolError("A request needs an id.", remedy="id: an integer from 0 to 2^63 - 1, not in use by this session.")
    name = header.get("op")
    operation = OPERATIONS.get(name) if isinstance(name, str) else None
    if operation is None:
        raise UnknownOperationError(
            f"There is no operation {shown(name)}.",
            remedy=did_you_mean(str(name)[:200] if isinstance(name, str) else "", OPERATIONS, listing="Operations"),
        )
    fields = dict(header)
    del fields["v"], fields["id"], fields["op"]
    allowed = operation.allowed
    for key, value in fields.items():
        if key not in allowed:
            raise ProtocolError(
                f"{name} has no field {shown(key)}.", remedy=did_you_mean(shown(key), allowed, listing="Fields")
            )
        types = allowed[key]
        if type(value) not in types and types != _ANY:
            _check_type(str(name), key, value, types)
        elif type(value) is int and types != _ANY:
            _check_number(key, value)
    for key in operation.required:
        if key not in fields:
            raise ProtocolError(f"{name} needs the field {key!r}.")
    if operation is OPERATIONS["answer"] and ("value" in fields) == ("error" in fields):
        raise ProtocolError("answer needs either a value or an error.")
    assert isinstance(number, int)
    return Request(number, str(name), fields)


def _check_type(operation: str, key: str, value: Any, types: tuple[type, ...]) -> None:
    stray = isinstance(value, bool) and bool not in types  # a bool is an int only in Python
    if stray or not isinstance(value, types):
        wanted = " or ".join(_NAMES.get(kind, kind.__name__) for kind in types)
        raise ProtocolError(f"{key!r} of {operation} must be {wanted}, not {type(value).__name__}.")
    _check_number(key, value)


def _check_number(key: str, value: Any) -> None:
    if type(value) is int and not -(1 << 63) <= value < 1 << 63:
        raise ProtocolError(f"{key!r} is an integer beyond 64 bits.", remedy="Numbers in a header have 64 bits.")


def shown(value: Any) -> str:
    """The beginning of a value, for error messages."""
    if isinstance(value, (str, bytes)):
        return repr(value[:60])
    if isinstance(value, int) and value.bit_length() > 64:
        return "an integer beyond 64 bits"
    return type(value).__name__ if isinstance(value, (list, dict, tuple)) else repr(value)[:60]


_NAMES = {int: "an integer", float: "a float", str: "a string", dict: "a map", list: "an array", bool: "a boolean"}


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63


# --- what the server sends ----------------------------------------------------------------------------------------------


def reply(kind: str, request: int | None, **fields: Any) -> dict[str, Any]:
    """A message of the server: `result`, `error`, `progress`, `notice`, `transcript`, `statement`, `beat` or `call`."""
    return {"v": VERSION, "re": request, "type": kind, **fields}
