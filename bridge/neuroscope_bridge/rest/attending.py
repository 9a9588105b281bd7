"""Ends the work of clients that left, and bounds the requests that are held in memory."""

from __future__ import annotations

import asyncio
import contextlib

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from neuroscope.errors import NeuroScopeError
from neuroscope_bridge.rest import errors
from neuroscope_bridge.rest.answering import refuse

#: Largest request in bytes, and most bytes of all requests that are being answered.
LONGEST, MOST = 32 << 20, 256 << 20


class Attending:
    """ASGI middleware: reads requests whole, and cancels the work for a client that leaves, whether it runs or waits for its turn."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        taken = 0
        try:
            body = bytearray()
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return
                part = message.get("body", b"")
                taken += len(part)
                self._held += len(part)
                if taken > LONGEST:
                    raise too_large()
                if self._held > MOST:
                    raise errors.BusyError(
                        f"The requests being answered take {MOST >> 20} MiB, which is the limit.",
                        remedy="Try again in a moment.",
                    )
                body += part
                if not message.get("more_body", False):
                    break
            await self._answered(scope, bytes(body), receive, send)
        except NeuroScopeError as error:
            await refuse(send, error)
        finally:
            self._held -= taken

    async def _answered(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        given: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
        left, complete = asyncio.Event(), False

        async def receiving() -> Message:
            if given:
                return given.pop()
            await left.wait()
            return {"type": "http.disconnect"}

        async def sending(message: Message) -> None:
            nonlocal complete
            complete = complete or (message["type"] == "http.response.body" and not message.get("more_body", False))
            await send(message)

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        async def answering() -> None:
            await self._app(scope, receiving, sending)

        working, leaving = asyncio.create_task(answering()), asyncio.create_task(watch())
        try:
            await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
            left.set()
            if not working.done() and not complete:
                working.cancel()
        finally:
            leaving.cancel()
            if not left.is_set():  # the server itself ends this task
                working.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await working


def too_large() -> errors.TooLargeError:
    return errors.TooLargeError(f"A request may have at most {LONGEST >> 20} MiB.", remedy="Send less at a time.")
