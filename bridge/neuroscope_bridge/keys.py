"""CURVE keys, for servers that other machines can reach.

FOLDER/server.key_secret    the server's pair (public key inside)
FOLDER/server.key           its public key: give it to clients
FOLDER/clients/NAME.key     public keys of the clients that may connect
FOLDER/NAME.key_secret      a client's pair: move it to that client
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from urllib.parse import urlsplit

import zmq
from zmq.auth import certs

from neuroscope.errors import ArgumentError
from neuroscope.files import planned, write_whole
from neuroscope_bridge.files import FileError


def make_keys(folder: Path, client: str = "client") -> list[Path]:
    """Make the server's pair if there is none, and a client's. Return the files written. Never replaces a file."""
    if not client.replace("-", "").replace("_", "").isalnum() or client == "server":
        raise ArgumentError(f"{client!r} cannot be a client's name.", remedy="Letters, digits, - and _; not `server`.")
    allowed = folder / "clients"
    secret, public = folder / f"{client}.key_secret", allowed / f"{client}.key"
    for path in (secret, public):
        if path.exists():
            raise FileError(f"{path} already exists.", remedy="Choose another --client name, or remove the file.")
    with planned("The keys", folder):
        for one in (folder, allowed):
            one.mkdir(mode=0o700, parents=True, exist_ok=True)
        written: list[Path] = []
        if not (folder / "server.key_secret").exists():
            written += _write_pair(folder / "server.key", folder / "server.key_secret")
        return [*written, *_write_pair(public, secret)]


def _write_pair(public: Path, secret: Path) -> list[Path]:
    """Make a pair and write it in ZeroMQ's format; only the user can read the secret file, from its first moment on."""
    key, hidden = (half.decode() for half in zmq.curve_keypair())
    head = "# NeuroScope's {} key of ZeroMQ's CURVE\nmetadata\ncurve\n"
    write_whole(secret, f'{head.format("secret")}    public-key = "{key}"\n    secret-key = "{hidden}"\n', private=True)
    write_whole(public, f'{head.format("public")}    public-key = "{key}"\n')
    return [public, secret]


def read_pair(path: Path) -> tuple[bytes, bytes]:
    """Public and secret key of a `.key_secret` file. Raises `FileError`."""
    public, secret = _load(path)
    if secret is None:
        raise FileError(f"{path} has no secret key.", remedy="Give the file that ends in .key_secret.")
    return public, secret


def read_public(path: Path) -> bytes:
    """The public key of a key file."""
    return _load(path)[0]


def _load(path: Path) -> tuple[bytes, bytes | None]:
    try:
        return certs.load_certificate(path)
    except OSError as error:
        raise FileError(f"There is no key file {path}.", remedy="neuroscope keys FOLDER makes them.") from error
    except ValueError as error:
        raise FileError(f"{path} is not a key file.", remedy="neuroscope keys FOLDER makes them.") from error


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach a ZeroMQ endpoint."""
    parts = urlsplit(address)
    if parts.scheme in ("inproc", "ipc"):
        return True
    host = parts.hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # `*`, an interface's name, a host's name
        return False


def curve_available() -> bool:
    return bool(zmq.has("curve"))
