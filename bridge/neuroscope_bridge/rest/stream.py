"""Server-sent events.

The rule for slow readers: the next token is computed when the last one was taken. Between a generation and its reader lie
only one event and the connection's own buffers, so a slow reader slows its generation and nobody else's. One that takes
nothing for `STALL` seconds is treated as gone. A gone reader ends its generation at the next step.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

log = logging.getLogger("neuroscope.bridge")

#: Seconds after which a reader that takes nothing is treated as gone.
STALL = 60.0

DONE = b"data: [DONE]\n\n"


def event(document: bytes) -> bytes:
    """One event with JSON as its data."""
    return b"data: " + document + b"\n\n"


class EventStream(Response):
    """Sends events as they come; `finished` is called at the end, however it comes."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[bytes], finished: Callable[[], None], stall: float = STALL) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._events, self._finished, self._stall = events, finished, stall

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        writing = asyncio.create_task(self._write(send))
        leaving = asyncio.create_task(_gone(receive))
        try:
            await asyncio.wait({writing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (writing, leaving):
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError, TimeoutError):
                await writing
            self._finished()

    async def _write(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            async for chunk in self._events:
                async with asyncio.timeout(self._stall):
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            log.info("a reader took nothing for %g seconds; its generation ends", self._stall)
        finally:
            await self._events.aclose()


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
