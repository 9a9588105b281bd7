"""Server-sent events.

The rule for slow readers: the next token is computed when the last one was read, or with the token of another reader. Only one event, one
token and the connection's buffers lie between a generation and its reader, so a slow reader slows only its own generation. A reader that reads nothing for `STALL`
seconds counts as gone, which ends its generation at the next step.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import weakref
from collections.abc import AsyncGenerator, Callable

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

log = logging.getLogger("neuroscope.bridge")

#: Seconds after which a reader that reads nothing counts as gone.
STALL = 60.0

DONE = b"data: [DONE]\n\n"


def event(document: bytes) -> bytes:
    """One event with JSON as its data."""
    return b"data: " + document + b"\n\n"


class EventStream(Response):
    """Sends events as they come; `finished` is called at the end in any case."""

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
            log.info("a reader read nothing for %g seconds; its generation ends", self._stall)
        finally:
            await self._events.aclose()


class LongAnswer(Response):
    """A whole answer that goes out as fast as it is read, so that nothing of it waits but the answer itself. `finished` is called at the end
    in any case.
    """

    _PART = 256 << 10

    def __init__(self, content: bytes, media_type: str, finished: Callable[[], None]) -> None:
        """finished: may be called more than once."""
        super().__init__(content, media_type=media_type)
        self._finished = finished
        weakref.finalize(self, finished)  # also where it is never sent

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            content = memoryview(self.body)
            for start in range(0, max(1, len(content)), self._PART):
                more = start + self._PART < len(content)
                await send(
                    {"type": "http.response.body", "body": bytes(content[start : start + self._PART]), "more_body": more}
                )
        finally:
            self._finished()


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
