"""The HTTP door: `neuroscope serve --http`. The application in a uvicorn server, in its own thread."""

from __future__ import annotations

import logging
import socket
import threading
import time
from dataclasses import replace
from functools import partial
from typing import Any

import uvicorn

from neuroscope.errors import ArgumentError, NeuroScopeError
from neuroscope_bridge.host import Host
from neuroscope_bridge.keys import is_loopback
from neuroscope_bridge.rest.application import application
from neuroscope_bridge.rest.connections import Connection, usual_most
from neuroscope_bridge.rest.jobs import HttpOptions, Server
from neuroscope_bridge.wire.errors import DeniedError

log = logging.getLogger("neuroscope.bridge")

#: Size of the socket's send buffer: part of the rule for slow readers (`stream`).
_UNREAD = 256 << 10

#: Seconds for running answers to end when the server stops.
_GRACE = 2

#: Seconds for the server's thread to start and to end.
_PATIENCE = 10.0


class HttpDoor:
    """Serves a `Host` at HOST:PORT. `open` binds, `start` serves in its own thread, `close` stops it."""

    def __init__(self, host: Host, address: str, options: HttpOptions) -> None:
        """Raises `DeniedError` for an address that other machines can reach, without a token."""
        self._name, self._port = _parsed(address)
        loopback = is_loopback(f"http://{_bracketed(self._name)}")
        if not loopback and not options.current_token():
            raise DeniedError(
                f"{address} can be reached from other machines, but is not protected.",
                remedy="Give a secret with --token-file FILE (or NEUROSCOPE_TOKEN), or listen on 127.0.0.1.",
            )
        self._host = host
        self._options = replace(options, loopback=loopback)
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    def open(self) -> str:
        """Bind. Return the URL with the port in use. Raises `ArgumentError` on failure."""
        family = socket.AF_INET6 if ":" in self._name else socket.AF_INET
        # With the protocol given, asyncio sends small answers at once.
        self._socket = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _UNREAD)  # connections inherit it
        try:
            self._socket.bind((self._name, self._port))
            self._socket.listen(1024)
        except OSError as error:
            self._socket.close()
            raise ArgumentError(
                f"{self._name}:{self._port} is not available: {error.strerror or error}.",
                remedy="Choose another port (--http 127.0.0.1:0 takes a free one), --http off, or stop the server that uses it.",
            ) from error
        return f"http://{_bracketed(self._name)}:{self._socket.getsockname()[1]}"

    def start(self) -> None:
        """Serve; while the host's model is still being loaded, what needs none. Raises the errors of loading it."""
        options = self._options
        protocol: Any = partial(
            Connection,
            patience=options.patience,
            stall=options.stall,
            most=options.connections or usual_most(),
            own=options.own and options.loopback and options.token is None,
        )
        self._shared = Server(self._host, options)
        config = uvicorn.Config(
            application(self._shared),
            http=protocol,
            ws="none",
            log_config=None,
            access_log=False,
            lifespan="on",
            timeout_graceful_shutdown=_GRACE,
            timeout_keep_alive=75,
            server_header=False,
        )
        self._server = server = uvicorn.Server(config)
        self._thread = threading.Thread(target=server.run, kwargs={"sockets": [self._socket]}, name="http", daemon=True)
        self._thread.start()
        end = time.monotonic() + _PATIENCE
        while not server.started:
            if not self._thread.is_alive() or time.monotonic() > end:
                raise NeuroScopeError("The HTTP server did not start.", remedy="Its log says why.")
            time.sleep(0.005)

    def wait(self) -> None:
        """Wait for the host's model. Raises the errors of loading it."""
        self._shared.pool.wait()

    def close(self) -> None:
        """Stop running answers and the server."""
        if self._server is None or self._thread is None:
            return
        self._server.should_exit = True
        self._thread.join(_PATIENCE)
        if self._thread.is_alive():
            log.warning("an HTTP request did not stop within %g seconds", _PATIENCE)
        self._socket.close()


def _parsed(address: str) -> tuple[str, int]:
    name, colon, port = address.removeprefix("http://").rpartition(":")
    name = name.strip("[]")
    if not colon or not port.isdecimal() or int(port) > 65535 or not name:
        raise ArgumentError(f"{address!r} is not HOST:PORT.", remedy="For example 127.0.0.1:50111, or [::1]:50111.")
    return ("0.0.0.0" if name == "*" else name), int(port)


def _bracketed(name: str) -> str:
    return f"[{name}]" if ":" in name else name
