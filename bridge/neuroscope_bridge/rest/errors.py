"""Errors over HTTP: OpenAI's shape, with NeuroScope's code, site and remedy in addition."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from neuroscope.errors import NeuroScopeError
from neuroscope_bridge.host.faults import error_fields


class TooLargeError(NeuroScopeError):
    """An answer or a request is larger than the server allows; the remedy names a smaller one."""

    code = "too-large"


class BusyError(NeuroScopeError):
    """The server's limit of concurrent generations is reached."""

    code = "busy"


class HookNotFoundError(NeuroScopeError):
    """No hook is registered under this id."""

    code = "hook-not-found"


class EditNotFoundError(NeuroScopeError):
    """No edit with this id is on the weights."""

    code = "edit-not-found"


class UnauthorizedError(NeuroScopeError):
    """The bearer token is missing or wrong."""

    code = "unauthorized"


class ForbiddenError(NeuroScopeError):
    """The request has another origin or host name."""

    code = "forbidden"


class ErrorFields(BaseModel):
    """The error; `remedy` says what to do."""

    message: str
    type: str
    param: str | None
    code: str
    site: str | None = None
    remedy: str | None = None


class ErrorBody(BaseModel):
    """The body of an error response."""

    error: ErrorFields


_STATUS = {
    "model-not-found": 404,
    "hook-not-found": 404,
    "edit-not-found": 404,
    "analysis-not-found": 404,
    "task-not-found": 404,
    "not-found": 404,
    "too-many-models": 409,
    "too-large": 413,
    "busy": 503,
    "cancelled": 503,
    "unauthorized": 401,
    "forbidden": 403,
    "access": 403,
    "method-not-allowed": 405,
    "internal": 500,
}

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    500: "server_error",
    503: "server_error",
}


def status_of(fields: dict[str, Any]) -> int:
    """The HTTP status of an error; 400 if another request would succeed."""
    return _STATUS.get(str(fields.get("code")), 400)


def body(error: BaseException, param: str | None = None) -> tuple[int, dict[str, Any]]:
    """Status and JSON body. An internal error is logged with its traceback."""
    fields = error_fields(error, "http")
    if fields["code"] == "internal":  # its text may hold what no client should read
        fields["message"] = f"The request failed ({type(error).__name__})."
    return status_of(fields), envelope(fields, param)


def envelope(fields: dict[str, Any], param: str | None = None) -> dict[str, Any]:
    """`{"error": …}` as OpenAI's clients read it."""
    status = status_of(fields)
    remedy = fields.get("remedy")
    message = str(fields["message"])
    if remedy is not None:
        message = f"{message}{'' if message.endswith(('.', '?')) else '.'} {remedy}"
    return {
        "error": {
            "message": _clean(message),
            "type": _TYPES.get(status, "invalid_request_error"),
            "param": param,
            "code": str(fields["code"]).replace("-", "_"),
            "site": fields.get("site"),
            "remedy": None if remedy is None else _clean(remedy),
        }
    }


def validation(errors: Sequence[Any]) -> dict[str, Any]:
    """The body for a request that does not fit the OpenAPI document; names one place.

    If several forms are possible, the error deepest in the request is reported.
    """
    first = errors[0]
    if first["type"] == "json_invalid":
        message = f"The body is not JSON: {first['ctx']['error']} (character {first['loc'][-1]})."
        return envelope({"code": "invalid", "message": message, "remedy": "Send one JSON object."})
    if first["type"] == "model_attributes_type" and tuple(first["loc"]) == ("body",):
        remedy = "Send one, with the header Content-Type: application/json."
        return envelope({"code": "invalid", "message": "The body is not a JSON object.", "remedy": remedy})
    told = max(errors, key=lambda error: (error["type"] in ("value_error", "unknown_field", "unserved"), len(error["loc"])))
    parts = [str(part) for part in told["loc"] if not _FORM.fullmatch(str(part))]
    place = ".".join([*parts, *([told["ctx"]["field"]] if "field" in told.get("ctx", {}) else [])]) or "body"
    message = str(told["msg"]).removeprefix("Value error, ")
    if told["type"] == "literal_error":
        message = f"only {told['ctx']['expected']} is supported"
    fields = {"code": "invalid", "message": f"{place}: {message}", "remedy": "/openapi.json describes every request."}
    return envelope(fields, param=place)


#: Parts of a validator's path that name a form rather than a field.
_FORM = re.compile(r"body|str|int|constrained-\w+|literal.*|list\[.*|function-.*|nullable.*|[A-Z]\w*", re.DOTALL)


def _clean(text: str) -> str:
    """Text for JSON: lone surrogates become question marks."""
    return str(text).encode("utf-8", "replace").decode("utf-8")
