"""Errors as wire values."""

from __future__ import annotations

import logging
from typing import Any

from neuroscope.errors import NeuroScopeError
from neuroscope_dsl.runtime.exceptions import SmalltalkException

log = logging.getLogger("neuroscope.bridge")


def error_fields(error: BaseException) -> dict[str, Any]:
    """An error as a map. An unexpected error is logged with its traceback; the client gets its kind and message."""
    if isinstance(error, NeuroScopeError):
        fields = error.as_dictionary()
        if isinstance(error, SmalltalkException):
            fields["class"] = error.class_name
        return fields
    log.error("a request failed with an unexpected error", exc_info=error)
    return {
        "code": "internal",
        "message": f"{type(error).__name__}: {error}",
        "site": None,
        "remedy": "This is a fault of the server; its log has the details.",
    }
