"""Access control: a bearer token for other machines, checks of origin, host and length of the body.

A page of another site can make a browser send requests to 127.0.0.1, by a form or by pointing its own host name there. So the
header Origin must be this server's or an allowed one, and on a loopback address the header Host must be a loopback name.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from neuroscope.errors import NeuroScopeError
from neuroscope_bridge.keys import is_loopback
from neuroscope_bridge.rest import errors
from neuroscope_bridge.rest.encoding import dumps

#: Largest request in bytes.
LONGEST = 32 << 20

#: Paths without a token: the health check, and the page's files, which have no secrets.
OPEN = ("/health", "/", "/page/")


class Guard:
    """ASGI middleware for access control."""

    def __init__(self, app: ASGIApp, *, loopback: bool, token: str | None, origins: Sequence[str]) -> None:
        self._app = app
        self._loopback = loopback
        self._token = token
        self._origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            self._check(scope)
        except NeuroScopeError as error:
            await refuse(send, error)
            return
        await self._app(scope, _counted(receive), send)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self._loopback and not _is_loopback_name(host):
            raise errors.ForbiddenError(f"This server is not {host!r}.", remedy="Use 127.0.0.1 or localhost.")
        origin = headers.get("origin")
        if origin is not None and origin not in self._origins and "*" not in self._origins and _authority(origin) != host:
            raise errors.ForbiddenError(
                f"Pages of {origin} may not use this server.", remedy="Allow them with `neuroscope serve --cors ORIGIN`."
            )
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length[:20]) > LONGEST:
            raise errors.TooLargeError(f"A request may have at most {LONGEST >> 20} MiB.", remedy="Send less at a time.")
        if scope["method"] != "OPTIONS" and not _is_open(scope["path"]) and not allowed(headers, self._token):
            raise errors.UnauthorizedError(
                "The bearer token is missing or wrong.", remedy="Send the header `Authorization: Bearer TOKEN`."
            )


def allowed(headers: Headers, token: str | None) -> bool:
    """Whether a request has the token, if one is set."""
    given = headers.get("authorization", "")
    return token is None or hmac.compare_digest(given.encode(), f"Bearer {token}".encode())


def _is_open(path: str) -> bool:
    return path in OPEN[:2] or path.startswith(OPEN[2])


def _authority(origin: str) -> str:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


def _is_loopback_name(host: str) -> bool:
    try:
        return is_loopback(f"http://{host}")
    except ValueError:
        return False


def _counted(receive: Receive) -> Receive:
    """Limit a body of undeclared length."""
    taken = 0

    async def counting() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > LONGEST:
            raise errors.TooLargeError(f"A request may have at most {LONGEST >> 20} MiB.", remedy="Send less at a time.")
        return message

    return counting


async def refuse(send: Send, error: NeuroScopeError) -> None:
    status, document = errors.body(error)
    headers = [(b"content-type", b"application/json")]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": dumps(document)})
