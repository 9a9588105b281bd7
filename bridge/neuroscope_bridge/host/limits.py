"""Limits of a server."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Limits:
    """`message` and its `header` in bytes, `frames` of a message, `source` of a text in characters; `handles`, `queue` (waiting
    requests), `memory` (bytes by which its requests may make the process grow), `waiting` (bytes that its client has not read) of
    one session; `time` in seconds a request may run.
    """

    message: int = 1 << 30
    header: int = 16 << 20
    frames: int = 1_000
    source: int = 500_000
    memory: int | None = 2 << 30
    waiting: int = 256 << 20
    handles: int = 100_000
    queue: int = 1_000
    sessions: int = 256
    time: float | None = None

    def as_dictionary(self) -> dict[str, float | None]:
        return asdict(self)


#: Default seconds of silence after which a session ends.
LEASE = 3600.0
SHORTEST_LEASE, LONGEST_LEASE = 1.0, 7 * 86400.0

#: Bytes of long messages of one session that may wait to be decoded, if one message may have fewer.
UNDECODED = 64 << 20

#: Longer collections are sent as handles.
BY_VALUE = 10_000

#: Values from a client may be nested this deep.
DEPTH = 100
