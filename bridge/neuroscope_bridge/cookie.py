"""The cookie of a server on this machine: a secret that only programs of the same user can read.

A server that listens on loopback writes a new secret when it starts, into ~/.neuroscope/cookies/NAME, readable by its user alone.
Clients on the machine find the file by the address, and authenticate with ZeroMQ's mechanism PLAIN: neither a web page nor another
user of the machine can read it, and peers that speak an older protocol, or HTTP, cannot authenticate at all.

NEUROSCOPE_COOKIES names another folder.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
from pathlib import Path

from neuroscope.errors import NeuroScopeError, reason
from neuroscope_bridge.files import FileError

#: The name that goes with the secret.
USER = b"neuroscope"

_SECRET = re.compile(rb"[0-9a-f]{64}\Z")


def cookie_folder() -> Path:
    """The folder of this user's cookies."""
    return Path(os.environ.get("NEUROSCOPE_COOKIES") or Path.home() / ".neuroscope" / "cookies")


def cookie_path(address: str) -> Path:
    """The file for an address: by its port, or for ipc by its path, with `-` for everything but letters and digits."""
    scheme, _, rest = address.partition("://")
    name = rest.rpartition(":")[2] if scheme == "tcp" else rest
    return cookie_folder() / f"{scheme}-{re.sub('[^A-Za-z0-9]', '-', name)}"


def new_secret() -> bytes:
    return secrets.token_hex(32).encode()


def write_cookie(address: str, secret: bytes) -> Path:
    """Leave a server's secret for the clients of the same user. Raises `FileError`.

    The file has its mode from the first moment, and takes the place of an older one at once.
    """
    path = cookie_path(address)
    partial = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _check_private(path.parent, "folder")
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secret)
        os.replace(partial, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise FileError(
            f"{path} cannot be written: {reason(error)}.", remedy="NEUROSCOPE_COOKIES names another folder for cookies."
        ) from error
    return path


def read_cookie(address: str) -> bytes | None:
    """The secret of the server at an address, or None if no server of this user left one.

    Raises `FileError` if others can read or replace it.
    """
    path = cookie_path(address)
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise FileError(f"{path} cannot be read: {reason(error)}.", remedy="Start the server anew as this user.") from error
    with os.fdopen(descriptor, "rb") as file:
        _check_private(path, "file", os.fstat(file.fileno()))
        found = file.read(100)
    return found if _SECRET.match(found) else None


def remove_cookie(path: Path, secret: bytes) -> None:
    """Remove a server's cookie, unless another server has left its own there."""
    with contextlib.suppress(OSError, NeuroScopeError):
        if path.read_bytes() == secret:
            path.unlink()


def _check_private(path: Path, what: str, found: os.stat_result | None = None) -> None:
    if os.name != "posix":
        return
    found = found or path.lstat()
    wanted = "0700" if stat.S_ISDIR(found.st_mode) else "0600"
    if found.st_uid != os.getuid() or stat.S_ISLNK(found.st_mode) or found.st_mode & 0o077:
        raise FileError(
            f"The {what} {path} belongs to or is open to other users of this machine.", remedy=f"chmod {wanted[1:]} {path}"
        )
