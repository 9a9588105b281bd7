"""The user at the other end of a connection within this machine, where the system tells (Linux)."""

from __future__ import annotations

import ipaddress
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))


def is_stranger(client: Sequence[Any] | None, server: Sequence[Any] | None) -> bool:
    """Whether a connection on a loopback address comes from another user of this machine, the administrator excepted.

    client, server: addresses and ports. Systems without these tables do not say; then the answer is false.
    """
    if not sys.platform.startswith("linux") or client is None or server is None:
        return False
    user = user_of(_written(client), _written(server))
    return user is not None and user not in (os.getuid(), 0)


def user_of(local: set[str], remote: set[str]) -> int | None:
    """The user of the socket between two addresses, as the tables write them, or None."""
    for table in _TABLES:
        try:
            lines = table.read_text(encoding="ascii").splitlines()[1:]
        except (OSError, UnicodeDecodeError):
            continue
        for line in lines:
            fields = line.split()
            if len(fields) > 7 and fields[1] in local and fields[2] in remote:
                return int(fields[7])
    return None


def _written(address: Sequence[Any]) -> set[str]:
    """An address and port as the tables write them: words of four bytes, in the processor's order; IPv4 within IPv6 too."""
    ip, port = ipaddress.ip_address(str(address[0]).partition("%")[0]), int(address[1])
    forms = {ip.packed}
    if isinstance(ip, ipaddress.IPv4Address):
        forms.add(b"\0" * 10 + b"\xff\xff" + ip.packed)
    elif ip.ipv4_mapped is not None:
        forms.add(ip.ipv4_mapped.packed)
    return {f"{_words(form)}:{port:04X}" for form in forms}


def _words(packed: bytes) -> str:
    return "".join(f"{int.from_bytes(packed[at : at + 4], sys.byteorder):08X}" for at in range(0, len(packed), 4))
