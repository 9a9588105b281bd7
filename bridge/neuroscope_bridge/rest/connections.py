"""Connections of the HTTP door, each bounded in time and all of them in number.

A connection whose request is unfinished is closed after `patience` seconds, with a second more for every `RATE` bytes that came; one
whose answer nobody reads, after `stall` seconds without progress. When `most` are open a new one takes the place of the oldest that has
no complete request. A client that leaves is noticed even where it has sent its next request ahead.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from neuroscope_bridge.rest.peers import is_stranger

log = logging.getLogger("neuroscope.bridge")

#: Bytes a second that a long request must at least bring.
RATE = 64 << 10

#: Bytes of a following request that may wait for the current answer.
_AHEAD = 64 << 10

_TIMEOUT = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


def usual_most() -> int:
    """1,000 connections, or half of the descriptors that the process may open."""
    if os.name != "posix":
        return 500
    import resource

    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 1000 if soft == resource.RLIM_INFINITY else max(16, min(1000, soft // 2))


class Connection(H11Protocol):
    """uvicorn's HTTP/1.1 protocol with these limits. `own`: refuse the other users of this machine."""

    def __init__(self, *arguments: Any, patience: float, stall: float, most: int, own: bool, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._patience, self._stall, self._most, self._own = patience, stall, most, own
        self._since: float | None = None  # start of an unfinished request
        self._received = 0
        self._unread, self._moved = 0, 0.0
        self._next_look: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self._own and is_stranger(self.client, self.server):
            log.warning("a connection of another user of this machine was refused; --token-file admits those with the token")
            transport.abort()
            return
        self._since = self._moved = time.monotonic()
        self._make_room()
        self._look()

    def data_received(self, data: bytes) -> None:
        if self._since is None and not self._is_answering():
            self._since, self._received = time.monotonic(), 0
        self._received += len(data)
        super().data_received(data)
        if self._is_answering():
            self._since = None
            if len(self.conn.trailing_data[0]) > _AHEAD:
                self.transport.abort()
            else:
                self.flow.resume_reading()  # else a client that leaves would not be noticed

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._next_look is not None:
            self._next_look.cancel()

    def _is_answering(self) -> bool:
        """Whether a request has come whole and its answer has not gone whole."""
        return self.cycle is not None and not self.cycle.more_body and not self.cycle.response_complete

    def _look(self) -> None:
        """Close the connection if it is overdue; look again later."""
        now = time.monotonic()
        size = self.transport.get_write_buffer_size()
        silent = self.flow.write_paused or self.transport.is_closing() or not self._is_answering()
        if not (silent and 0 < self._unread <= size):
            self._moved = now
        self._unread = size
        if now - self._moved > self._stall:
            self.transport.abort()
        elif self._since is not None and now - self._since > self._patience + self._received / RATE:
            if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
                self.transport.write(_TIMEOUT)
            self.transport.close()
            self._since = None
        self._next_look = self.loop.call_later(min(self._patience, self._stall) / 5, self._look)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self._is_answering() and self.conn.trailing_data[0]:  # the next request has begun to come
            self._since, self._received = time.monotonic(), 0

    def _make_room(self) -> None:
        """Where too many are open, close the oldest without a complete request, or this one if there is none."""
        others = [one for one in self.connections if one is not self and not one.transport.is_closing()]
        if len(others) < self._most:
            return
        waiting = [one for one in others if isinstance(one, Connection) and not one._is_answering()]
        (min(waiting, key=lambda one: one._moved if one._since is None else one._since) if waiting else self).transport.abort()
