"""Errors as wire values."""

from __future__ import annotations

import logging
from typing import Any

from neuroscope.errors import Door, NeuroScopeError, Remedy, at_door
from neuroscope_dsl.errors import DepthLimitReached, MemoryLimitReached
from neuroscope_dsl.runtime.exceptions import Error, NonLocalReturn, Resume, SmalltalkException, Unwind

log = logging.getLogger("neuroscope.bridge")


#: Longest text of an error in characters.
_LONGEST = 2_000


def error_fields(error: BaseException, door: Door = "smalltalk") -> dict[str, Any]:
    """An error as a map, with its remedy as `door` words it, and all wordings in `remedies` where there are several. An unexpected error is
    logged with its traceback; the client gets its kind and message.
    """
    if isinstance(error, RecursionError):
        error = DepthLimitReached("The value is nested too deeply, or contains itself.", remedy="Ask for it as a handle.")
    elif isinstance(error, MemoryError):
        error = MemoryLimitReached("There is not enough memory.", remedy="Ask for less.")
    elif isinstance(error, Unwind | Resume | NonLocalReturn):
        error = Error("This exception is no longer being handled")
    if isinstance(error, NeuroScopeError):
        fields = {**error.as_dictionary(), "remedy": at_door(error.advice, door)}
        if isinstance(error.advice, Remedy):
            fields["remedies"] = dict(error.advice.variants)
        if isinstance(error, SmalltalkException):
            fields["class"] = error.class_name
        return {name: _short(value) for name, value in fields.items()}
    log.error("a request failed with an unexpected error", exc_info=error)
    return {
        "code": "internal",
        "message": _short(f"{type(error).__name__}: {error}"),
        "site": None,
        "remedy": "This is a fault of the server; its log has the details.",
    }


def _short(value: Any) -> Any:
    if isinstance(value, str) and len(value) > _LONGEST:
        return value[:_LONGEST] + "…"
    if isinstance(value, dict):
        return {name: _short(part) for name, part in value.items()}
    return [_short(part) for part in value[:20]] if isinstance(value, list) else value


def printable(text: str) -> str:
    """A text of strangers in one line: what is not printable is escaped."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)
