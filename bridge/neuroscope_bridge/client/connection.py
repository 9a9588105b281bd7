"""One DEALER socket, shared by the threads of a program, without its own thread.

A thread that waits for an answer reads the socket for all: one thread at a time *pumps*, and passes each message to its
request. Meanwhile other threads put what they send into a queue and wake the pumping thread.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import zmq

from neuroscope.errors import ArgumentError
from neuroscope_bridge.cookie import USER, cookie_path, read_cookie
from neuroscope_bridge.keys import is_loopback, read_pair, read_public
from neuroscope_bridge.wire import decode, encode
from neuroscope_bridge.wire.codec import Frame
from neuroscope_bridge.wire.errors import RefusedError, RemoteError, ServerGoneError
from neuroscope_bridge.wire.messages import VERSION

#: Longest time in milliseconds that the pumping thread polls.
_SLICE = 200

#: The server refused, or speaks another mechanism.
_HANDSHAKE_FAILED = zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL

Handler = Callable[[dict[str, Any]], None]


class Pending(Future[Any]):
    """The answer to a request. `result()` pumps the connection until it arrives."""

    def __init__(self, connection: Connection, number: int) -> None:
        super().__init__()
        self._connection = connection
        self.number = number

    def result(self, timeout: float | None = None) -> Any:
        """The value. Raises `RemoteError`, `ServerGoneError`, or `TimeoutError` (the request continues)."""
        self._connection.wait(self, timeout)
        return super().result(0)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        self._connection.wait(self, timeout)
        return super().exception(0)

    def cancel(self) -> bool:
        """Ask the server to stop the request, which then ends with an error of code `cancelled`."""
        if not self.done():
            self._connection.request("cancel", request=self.number)
        return not self.done()


class Connection:
    """Frames out, messages in. `on_event` receives events, `convert` converts results."""

    def __init__(
        self,
        address: str,
        *,
        patience: float,
        on_event: Handler,
        convert: Callable[[Any], Any],
        key: Path | None = None,
        server_key: Path | None = None,
    ) -> None:
        if (key is None) != (server_key is None):
            raise ArgumentError(
                "A protected connection needs both keys.", remedy="key: your .key_secret, server_key: server.key"
            )
        self.address = address
        self._patience = patience
        self._on_event = on_event
        self._convert = convert
        self._numbers = itertools.count(1)
        self._pending: dict[int, Pending] = {}
        self._outbox: deque[list[Frame]] = deque()
        self._turn = threading.Condition()
        self._pumping: threading.Thread | None = None
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 500)
        if key is not None and server_key is not None:
            public, secret = read_pair(key)
            self._socket.setsockopt(zmq.CURVE_PUBLICKEY, public)
            self._socket.setsockopt(zmq.CURVE_SECRETKEY, secret)
            self._socket.setsockopt(zmq.CURVE_SERVERKEY, read_public(server_key))
        elif is_loopback(address):
            self._show_cookie()
        self._monitor: zmq.Socket[bytes] | None = self._socket.get_monitor_socket(_HANDSHAKE_FAILED)
        try:
            self._socket.connect(address)
        except zmq.ZMQError as error:
            self._ignore_handshakes()
            self._socket.close(0)
            self._context.term()
            raise ArgumentError(f"{address!r} is not an address.", remedy="For example tcp://127.0.0.1:5555") from error
        self._wake_here, self._wake_there = socket.socketpair()
        self._wake_here.setblocking(False)
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._wake_here, zmq.POLLIN)
        self._poller.register(self._monitor, zmq.POLLIN)
        self._heard = time.monotonic()
        self._closed = False
        self._announced = False  # whether the server has answered yet

    def _show_cookie(self) -> None:
        try:
            secret = read_cookie(self.address)
        except BaseException:
            self._socket.close(0)
            self._context.term()
            raise
        if secret is not None:
            self._socket.setsockopt(zmq.PLAIN_USERNAME, USER)
            self._socket.setsockopt(zmq.PLAIN_PASSWORD, secret)

    def request(self, operation: str, **fields: Any) -> Pending:
        """Send a request. Return its pending answer."""
        if self._closed:
            raise ServerGoneError(f"The connection to {self.address} is closed.", remedy="client.reconnect()")
        pending = Pending(self, next(self._numbers))
        frames = encode({"v": VERSION, "id": pending.number, "op": operation, **fields})
        with self._turn:
            if not self._pending:
                self._heard = time.monotonic()  # nothing was due before
            if operation != "answer":
                self._pending[pending.number] = pending
            if self._pumping is None:
                self._send(frames)
            else:
                self._outbox.append(frames)
                self._wake_there.send(b"\0")
        return pending

    def wait(self, pending: Pending, timeout: float | None) -> None:
        """Pump, or let another thread pump, until the answer arrives."""
        end = None if timeout is None else time.monotonic() + timeout
        while not pending.done():
            left = _SLICE / 1000 if end is None else min(end - time.monotonic(), _SLICE / 1000)
            if left <= 0:
                raise TimeoutError(f"No answer within {timeout:g} seconds; the request continues.")
            with self._turn:
                if self._pumping is not None and self._pumping is not threading.current_thread():
                    self._turn.wait(left)
                    continue
                nested = self._pumping is not None
                self._pumping = threading.current_thread()
            try:
                self._pump(left)
            finally:
                with self._turn:
                    if not nested:
                        self._pumping = None
                        self._flush()
                    self._turn.notify_all()

    def poll(self) -> None:
        """Handle what has arrived, without waiting."""
        with self._turn:
            if self._pumping is not None:
                return
            self._pumping = threading.current_thread()
        try:
            while self._pump(0):
                pass
        finally:
            with self._turn:
                self._pumping = None
                self._flush()
                self._turn.notify_all()

    def close(self) -> None:
        """Close the socket; pending requests fail."""
        with self._turn:
            if self._closed:
                return
            self._closed = True
            self._fail(ServerGoneError(f"The connection to {self.address} was closed."))
            self._ignore_handshakes()
            self._socket.close()
            self._context.term()
            self._wake_here.close()
            self._wake_there.close()

    # --- for the thread that pumps --------------------------------------------------------------------------------

    def _pump(self, seconds: float) -> bool:
        """Handle one message, if one comes in time. Return whether one came."""
        found = dict(self._poller.poll(int(seconds * 1000)))
        if self._wake_here.fileno() in found or self._wake_here in found:
            with contextlib.suppress(BlockingIOError):
                self._wake_here.recv(4096)
        self._flush()
        if self._socket not in found:
            if self._monitor is not None and self._monitor in found and self._pending:
                self._refused()
            if self._pending and time.monotonic() - self._heard > self._patience:
                self._give_up()
            return False
        frames = self._socket.recv_multipart(copy=False)
        self._heard = time.monotonic()
        if not self._announced:
            self._announced = True
            self._ignore_handshakes()
        self._dispatch(decode([frame.bytes if index == 0 else frame.buffer for index, frame in enumerate(frames)]))
        return True

    def _flush(self) -> None:
        while self._outbox:
            self._send(self._outbox.popleft())

    def _send(self, frames: list[Frame]) -> None:
        self._socket.send_multipart(frames, copy=len(frames) == 1)

    def _dispatch(self, message: dict[str, Any]) -> None:
        kind, number = message.get("type"), message.get("re")
        if kind not in ("result", "error"):
            self._on_event(message)
            return
        with self._turn:
            pending = self._pending.pop(number, None) if isinstance(number, int) else None
        if pending is None:
            return
        if kind == "error":
            pending.set_exception(RemoteError(message["error"]))
        else:
            pending.set_result(self._convert(message["value"]))

    def _ignore_handshakes(self) -> None:
        """Stop listening for refusals: the server has answered, or the connection ends."""
        monitor, self._monitor = self._monitor, None
        if monitor is not None:
            with contextlib.suppress(AttributeError, KeyError):
                self._poller.unregister(monitor)
            self._socket.disable_monitor()
            monitor.close(0)

    def _refused(self) -> None:
        remedy = "Start `neuroscope serve` as this user; a server that has keys needs `key` and `server_key`."
        if is_loopback(self.address):
            remedy += f" The server's cookie is read from {cookie_path(self.address)}."
        self._fail(RefusedError(f"The server at {self.address} refuses this client.", remedy=remedy))
        self._ignore_handshakes()

    def _give_up(self) -> None:
        what = "has gone silent" if self._announced else "does not answer"
        self._fail(
            ServerGoneError(
                f"The server at {self.address} {what}: nothing was heard for {self._patience:g} seconds.",
                remedy="Check that `neuroscope serve` runs there, then call reconnect().",
            )
        )

    def _fail(self, error: ServerGoneError) -> None:
        failed, self._pending = self._pending, {}
        for pending in failed.values():
            if not pending.done():
                pending.set_exception(error)
