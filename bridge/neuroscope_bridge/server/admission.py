"""Who is let in at the ZeroMQ door: whoever knows the cookie on loopback, or has a key of the folder of keys. See `bridge/PROTOCOL.md`."""

from __future__ import annotations

import logging
from pathlib import Path

import zmq
from zmq.auth.thread import ThreadAuthenticator

from neuroscope_bridge.cookie import USER, new_secret, remove_cookie, write_cookie
from neuroscope_bridge.keys import Clients, curve_available, read_pair
from neuroscope_bridge.wire.errors import DeniedError

#: The name under which the authenticator knows this server's socket.
_DOMAIN = "neuroscope"


class Admission:
    """The mechanism of one socket, configured before it is bound. `clients` are those of a folder of keys, or None.

    Raises `DeniedError` if keys are wanted and this build of ZeroMQ has no CURVE, `FileError` for keys that cannot be read.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], socket: zmq.Socket[bytes], keys: Path | None) -> None:
        self.clients: Clients | None = None
        self._secret: bytes | None = None
        self._cookie: Path | None = None
        pair = None if keys is None else self._pair(keys)
        self._authenticator = ThreadAuthenticator(context, log=logging.getLogger("neuroscope.bridge.auth"))
        self._authenticator.start()
        socket.setsockopt_string(zmq.ZAP_DOMAIN, _DOMAIN)
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)  # nobody enters when the authenticator does not answer
        if keys is None or pair is None:
            # No other user knows it, and no web page and no old peer can authenticate.
            self._secret = new_secret()
            self._authenticator.configure_plain(domain=_DOMAIN, passwords={USER.decode(): self._secret.decode()})
            socket.setsockopt(zmq.PLAIN_SERVER, 1)
        else:
            self.clients = Clients(keys)
            self._authenticator.configure_curve_callback(domain=_DOMAIN, credentials_provider=self.clients)
            socket.setsockopt(zmq.CURVE_SERVER, 1)
            socket.setsockopt(zmq.CURVE_PUBLICKEY, pair[0])
            socket.setsockopt(zmq.CURVE_SECRETKEY, pair[1])

    @staticmethod
    def _pair(folder: Path) -> tuple[bytes, bytes]:
        if not curve_available():
            raise DeniedError("This build of ZeroMQ has no CURVE.", remedy="Install the wheel of pyzmq from PyPI.")
        return read_pair(folder / "server.key_secret")

    def announce(self, address: str) -> None:
        """Write the cookie of a bound address, for this user's clients. Raises `NeuroScopeError` if it cannot be written."""
        if self._secret is not None:
            self._cookie = write_cookie(address, self._secret)

    def withdraw(self) -> None:
        """Remove the cookie."""
        if self._cookie is not None and self._secret is not None:
            remove_cookie(self._cookie, self._secret)

    def stop(self) -> None:
        self._authenticator.stop()
