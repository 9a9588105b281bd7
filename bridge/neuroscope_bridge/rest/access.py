"""Access control: origin and host of every request, and a bearer token for other machines.

A page of another site can make a browser send requests to 127.0.0.1, by a form or by pointing its own host name there. So the
header Origin must be this server's or an allowed one, and on a loopback address the header Host must be a loopback name. Browsers say
with Sec-Fetch-Site that a page of another site caused a request, also where they send no Origin.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from neuroscope.errors import NeuroScopeError
from neuroscope_bridge.keys import is_loopback
from neuroscope_bridge.rest import errors
from neuroscope_bridge.rest.answering import refuse
from neuroscope_bridge.rest.attending import LONGEST, too_large

#: Paths without a token: the health check, the pages and the pages' files, which have no secrets.
OPEN, OPEN_FOLDER = ("/health", "/", "/docs"), "/page/"

#: Headers of every response: no site may frame, embed or reinterpret it. The page has a policy of its own.
_ALWAYS = {
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
}

#: The bearer token, or None without one. A function, since the file that holds it may change while the server runs.
Token = Callable[[], str | None]


class Doorkeeper:
    """ASGI middleware, the outermost: checks origin and host of every request, whatever its method, and the declared length."""

    def __init__(self, app: ASGIApp, *, loopback: bool, origins: Sequence[str]) -> None:
        self._app = app
        self._loopback = loopback
        self._origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # there are no WebSockets
            await send({"type": "websocket.close", "code": 1008})
            return

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _ALWAYS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            self._check(scope)
        except NeuroScopeError as error:
            await refuse(sending, error)
            return
        await self._app(scope, receive, sending)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self._loopback and not _is_loopback_name(host):
            raise errors.ForbiddenError(f"This server is not {host!r}.", remedy="Use 127.0.0.1 or localhost.")
        origins = headers.getlist("origin")
        for origin in origins:
            if origin not in self._origins and "*" not in self._origins and _authority(origin) != host:
                raise errors.ForbiddenError(
                    f"Pages of {origin} may not use this server.", remedy="Allow them with `neuroscope serve --cors ORIGIN`."
                )
        if not origins and headers.get("sec-fetch-site") in ("cross-site", "same-site") and not _is_visit(scope, headers):
            raise errors.ForbiddenError(
                "Pages of other sites may not use this server.", remedy="Allow them with `neuroscope serve --cors ORIGIN`."
            )
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdecimal()) or len(length) > 20 or int(length) > LONGEST:
            raise too_large()


class Guard:
    """ASGI middleware: the bearer token, where one is set."""

    def __init__(self, app: ASGIApp, token: Token) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not _is_open(scope["path"]) and not allowed(Headers(scope=scope), self._token()):
            error = errors.UnauthorizedError(
                "The bearer token is missing or wrong.", remedy="Send the header `Authorization: Bearer TOKEN`."
            )
            await refuse(send, error)
            return
        await self._app(scope, receive, send)


def allowed(headers: Headers, token: str | None) -> bool:
    """Whether a request has the token, if one is set."""
    if token is None:
        return True
    scheme, _, given = headers.get("authorization", "").partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode())


def _is_open(path: str) -> bool:
    return path in OPEN or path.startswith(OPEN_FOLDER)


def _is_visit(scope: Scope, headers: Headers) -> bool:
    """Whether somebody follows a link to a page."""
    return scope["path"] in ("/", "/docs") and scope["method"] == "GET" and headers.get("sec-fetch-mode") == "navigate"


def _authority(origin: str) -> str:
    try:
        parts = urlsplit(origin)
    except ValueError:
        return ""
    return parts.netloc if parts.scheme in ("http", "https") else ""


def _is_loopback_name(host: str) -> bool:
    try:
        return not set(host) & set("@/?#\\ ") and is_loopback(f"http://{host}")
    except ValueError:
        return False
