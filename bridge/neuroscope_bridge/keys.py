"""CURVE keys, for servers that other machines can reach.

FOLDER/server.key_secret    the server's pair (public key inside)
FOLDER/server.key           its public key: give it to clients
FOLDER/clients/NAME.key     public keys of the clients that may connect
FOLDER/NAME.key_secret      a client's pair: move it to that client

The server reads FOLDER/clients again whenever it changes: a key that is taken away is refused from then on, and ends its sessions.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import re
import stat
import threading
from pathlib import Path
from urllib.parse import urlsplit

import zmq
from zmq.utils import z85

from neuroscope.errors import ArgumentError, reason
from neuroscope_bridge.files import FileError
from neuroscope_bridge.secrets import LONGEST, check_unwritable, private_folder, read_secret, write_new

log = logging.getLogger("neuroscope.bridge")

_MAKE = "neuroscope keys FOLDER makes them."
_LINE = re.compile(r'^\s*(public-key|secret-key)\s*=\s*"([^"]*)"\s*$', re.MULTILINE)


def make_keys(folder: Path, client: str = "client") -> list[Path]:
    """Make the server's pair if there is none, and a client's. Return the files written. Never replaces a file.

    Secrets and their folder are for their user alone from the first moment. Raises `FileError`; then nothing new is left.
    """
    if not client.replace("-", "").replace("_", "").isalnum() or client == "server":
        raise ArgumentError(f"{client!r} cannot be a client's name.", remedy="Letters, digits, - and _; not `server`.")
    allowed = folder / "clients"
    try:
        private_folder(folder)
        _check_folder(folder)
        private_folder(allowed)
    except OSError as error:
        raise FileError(f"{folder} cannot be made: {reason(error)}.", remedy="Choose a folder of your own.") from error
    wanted = [(folder / f"{client}.key_secret", allowed / f"{client}.key")]
    if not (folder / "server.key_secret").exists():
        wanted.insert(0, (folder / "server.key_secret", folder / "server.key"))
    for path in (path for pair in wanted for path in pair):
        if path.exists() or path.is_symlink():
            raise FileError(f"{path} already exists.", remedy="Choose another --client name, or remove the file.")
    written: list[Path] = []
    try:
        for secret, public in wanted:
            mine, hidden = (key.decode("ascii") for key in zmq.curve_keypair())
            write_new(secret, _certificate(mine, hidden), 0o600)
            written.append(secret)
            write_new(public, _certificate(mine), 0o644)
            written.append(public)
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
        raise
    return written


def _certificate(public: str, secret: str | None = None) -> str:
    """A key file in ZeroMQ's format of certificates."""
    told = "A public key of NeuroScope." if secret is None else "A secret key of NeuroScope. Give it to nobody."
    lines = [f"# {told}", "metadata", "curve", f'    public-key = "{public}"']
    return "\n".join(lines if secret is None else [*lines, f'    secret-key = "{secret}"']) + "\n"


def read_pair(path: Path) -> tuple[bytes, bytes]:
    """Public and secret key of a `.key_secret` file. Raises `FileError`, also where other users can read the file."""
    public, secret = _keys(path, read_secret(path, "a secret key"))
    if secret is None:
        raise FileError(f"{path} has no secret key.", remedy="Give the file that ends in .key_secret.")
    if zmq.curve_public(secret) != public:
        raise FileError(f"{path} is damaged: its public key is not that of its secret key.", remedy=_MAKE)
    return public, secret


def read_public(path: Path) -> bytes:
    """The public key of a key file. Raises `FileError`."""
    try:
        if not path.is_file():
            raise FileError(f"There is no key file {path}.", remedy=_MAKE)
        with path.open("rb") as file:
            text = file.read(LONGEST).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"{path} cannot be read: {reason(error)}.", remedy=_MAKE) from error
    return _keys(path, text)[0]


def _keys(path: Path, text: str) -> tuple[bytes, bytes | None]:
    found = dict(_LINE.findall(text))
    if "public-key" not in found:
        raise FileError(f"{path} is not a key file.", remedy=_MAKE)
    for name, key in found.items():
        if len(key) != 40 or not _is_z85(key):
            raise FileError(f"{path} is damaged: its {name} is not 40 characters of Z85.", remedy=_MAKE)
    secret = found.get("secret-key")
    return found["public-key"].encode("ascii"), None if secret is None else secret.encode("ascii")


def _is_z85(text: str) -> bool:
    try:
        return len(z85.decode(text.encode("ascii"))) == 32
    except (KeyError, ValueError, UnicodeEncodeError):
        return False


def _check_folder(folder: Path) -> None:
    check_unwritable(folder)
    if os.name == "posix" and stat.S_IMODE(folder.stat().st_mode) & 0o077:
        log.warning("other users of this machine can look into %s: chmod 700 %s", folder, folder)


class Clients:
    """The clients that may connect: the public keys in a folder, read again whenever it changes. Thread-safe."""

    def __init__(self, folder: Path) -> None:
        """folder: that of the keys. Raises `FileError` if other users can change it; warns if they can read it, and if no client may connect."""
        self._folder = folder / "clients"
        _check_folder(folder)
        if self._folder.exists():
            check_unwritable(self._folder)
        self._lock = threading.Lock()
        self._seen: object = None
        self._keys: frozenset[bytes] = frozenset()
        self._told: set[str] = set()
        if not self.keys():
            state = "is empty" if self._folder.is_dir() else "is missing"
            log.warning("%s %s: no client can connect until it has a key; neuroscope keys makes one", self._folder, state)

    def keys(self) -> frozenset[bytes]:
        """Their public keys, 40 characters of Z85 each, as they are now. Damaged files are told in the log, once each."""
        with self._lock:
            try:
                paths = sorted(self._folder.glob("*.key"))
                seen = [(path, (found := path.stat()).st_mtime_ns, found.st_ino, found.st_size) for path in paths]
            except OSError:
                paths, seen = [], []
            if seen != self._seen:
                self._keys, self._seen = frozenset(self._read(paths)), seen
            return self._keys

    def _read(self, paths: list[Path]) -> list[bytes]:
        found = []
        for path in paths:
            try:
                if stat.S_ISREG(path.stat().st_mode):
                    check_unwritable(path)
                    found.append(read_public(path))
            except (FileError, OSError) as error:
                if str(error) not in self._told:
                    self._told.add(str(error))
                    log.warning("a client's key is not used: %s", " ".join(str(error).split()))
        return found

    def allow(self, key: bytes) -> bool:
        """Whether the client with this public key (40 characters of Z85) may connect."""
        return key in self.keys()

    def callback(self, domain: str, key: bytes) -> bool:
        """The same for ZeroMQ's authenticator, which gives the key as it would be in a file. It must not raise."""
        try:
            return self.allow(key)
        except Exception:
            log.exception("a client's key could not be checked")
            return False


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
