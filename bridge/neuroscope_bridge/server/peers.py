"""Peers of the ZeroMQ door: what waits to be read from each, and what waits to be sent to it.

ZeroMQ would keep everything that a client does not read. So a message is handed to ZeroMQ only while little is on its way; the rest
waits here, and is counted. A client that does not read gets no more of its requests computed, loses events, and in the end its
session.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import zmq

from neuroscope_bridge.host import Session
from neuroscope_bridge.wire.codec import Frame

#: As integers: combining pyzmq's enums is slow.
_NOBLOCK, _SNDMORE = int(zmq.NOBLOCK), int(zmq.SNDMORE)

#: Bytes from which ZeroMQ says when a frame has been sent.
_TRACKED = 1 << 16

#: Most bytes on their way to one client, if they are more than one message.
_WINDOW = 64 << 20

#: Most messages that wait for a client.
_MOST_MESSAGES = 20_000

#: Most messages of a job that wait for the thread that sends.
_MOST_POSTED = 500


def size_of(frames: list[Frame]) -> int:
    return sum(len(frame) for frame in frames)


@dataclass(eq=False)
class Peer:
    """A connection that said hello."""

    identity: bytes
    session: Session
    told: float  # when something was last sent
    limit: int  # bytes that may wait for the client
    key: bytes | None = None  # the client's public key, with CURVE
    arrived: deque[list[Frame]] = field(default_factory=deque)  # long messages, which another thread decodes
    undecoded: int = 0  # those, and messages whose turn comes after them
    undecoded_bytes: int = 0
    decodes: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)
    left_out: int = 0  # events
    posted: int = 0  # messages and bytes in the door's outbox
    posted_bytes: int = 0
    _queue: deque[list[Frame]] = field(default_factory=deque)
    _queued: int = 0
    _moving: deque[tuple[int, list[Any]]] = field(default_factory=deque)
    _moved: int = 0

    @property
    def waiting(self) -> int:
        """Bytes that the client has not read yet, as far as is known."""
        return self._queued + self._moved + self.posted_bytes

    @property
    def behind(self) -> bool:
        """Whether the client does not read, so that nothing more should be computed for it."""
        return self.waiting > self.limit or len(self._queue) > _MOST_MESSAGES

    @property
    def lost(self) -> bool:
        """Whether it went on sending requests nevertheless."""
        return self.waiting > 2 * self.limit + _WINDOW or len(self._queue) > 2 * _MOST_MESSAGES

    @property
    def drops_events(self) -> bool:
        return self.waiting > self.limit // 2 or len(self._queue) > _MOST_MESSAGES // 2

    def post(self, size: int, wait: Callable[[], bool]) -> None:
        """Count a message for the outbox. Wait while there are many, unless `wait` is false."""
        while self.posted > _MOST_POSTED and wait():
            time.sleep(0.001)
        with self.lock:
            self.posted += 1
            self.posted_bytes += size

    def unpost(self, size: int) -> None:
        with self.lock:
            self.posted -= 1
            self.posted_bytes -= size

    def put(self, frames: list[Frame]) -> None:
        self._queue.append(frames)
        self._queued += size_of(frames)

    def send(self, socket: zmq.Socket[bytes]) -> bool:
        """Hand over what ZeroMQ may take now. Return whether nothing is left. Raises `ZMQError` if the client is gone."""
        while self._queue:
            frames = self._queue[0]
            size = size_of(frames)
            self._settle()
            if self._moved and self._moved + size > _WINDOW:
                return False
            try:
                trackers = send_frames(socket, self.identity, frames)
            except zmq.ZMQError as error:
                if error.errno == zmq.EAGAIN:
                    return False
                raise
            self._queue.popleft()
            self._queued -= size
            if trackers:
                self._moving.append((size, trackers))
                self._moved += size
        self._settle()
        return not self._moved or self._moved <= self.limit

    def _settle(self) -> None:
        while self._moving and all(tracker.done for tracker in self._moving[0][1]):
            self._moved -= self._moving.popleft()[0]


def send_frames(socket: zmq.Socket[bytes], identity: bytes, frames: list[Frame]) -> list[Any]:
    """Send a message. Return the trackers of its long frames. Raises `ZMQError`."""
    socket.send(identity, _NOBLOCK | _SNDMORE)
    trackers = []
    for index, frame in enumerate(frames):
        flags = _NOBLOCK | (_SNDMORE if index < len(frames) - 1 else 0)
        if len(frame) < _TRACKED:
            socket.send(frame, flags)
        else:
            trackers.append(socket.send(frame, flags, copy=False, track=True))
    return trackers
