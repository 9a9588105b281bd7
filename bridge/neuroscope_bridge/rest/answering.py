"""Refusals before any route, as responses."""

from __future__ import annotations

from starlette.types import Send

from neuroscope.errors import NeuroScopeError
from neuroscope_bridge.rest import errors
from neuroscope_bridge.rest.encoding import dumps


async def refuse(send: Send, error: NeuroScopeError) -> None:
    """Send an error as the whole response."""
    status, document = errors.body(error)
    content = dumps(document)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if status == 413:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
