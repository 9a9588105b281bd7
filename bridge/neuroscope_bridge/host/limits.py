"""Limits of a server."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Limits:
    """`message` in bytes; `handles` and `queue` (waiting requests) of one session; `time` in seconds a request may run."""

    message: int = 1 << 30
    handles: int = 100_000
    queue: int = 1_000
    sessions: int = 256
    time: float | None = None

    def as_dictionary(self) -> dict[str, float | None]:
        return asdict(self)


#: Default seconds of silence after which a session ends.
LEASE = 3600.0
SHORTEST_LEASE, LONGEST_LEASE = 1.0, 7 * 86400.0

#: Longer collections are sent as handles.
BY_VALUE = 10_000

#: Values from a client may be nested this deep.
DEPTH = 100
