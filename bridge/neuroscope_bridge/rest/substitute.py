"""A server for scripts that find none: who runs a script may offer one. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

#: Where `neuroscope serve` listens unless told otherwise, and where `LMStudioRESTClient default` looks.
DEFAULT_URL = "http://127.0.0.1:50111"

_start: ContextVar[Callable[[], str] | None] = ContextVar("neuroscope_rest_substitute", default=None)


@contextmanager
def served_by(start: Callable[[], str]) -> Iterator[None]:
    """For a block, let `default` clients that find no server at `DEFAULT_URL` have one: `start()` answers its URL."""
    token = _start.set(start)
    try:
        yield
    finally:
        _start.reset(token)


def substitute() -> Callable[[], str] | None:
    """What starts a server in this context, if anything does."""
    return _start.get()
