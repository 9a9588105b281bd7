"""A substitute server for scripts that find none. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

#: Default address of `neuroscope serve` and of `LMStudioRESTClient default`.
DEFAULT_URL = "http://127.0.0.1:50111"

_start: ContextVar[Callable[[], str] | None] = ContextVar("neuroscope_rest_substitute", default=None)


@contextmanager
def served_by(start: Callable[[], str]) -> Iterator[None]:
    """In a block, `default` clients that find no server at `DEFAULT_URL` start one: `start()` returns its URL."""
    token = _start.set(start)
    try:
        yield
    finally:
        _start.reset(token)


def substitute() -> Callable[[], str] | None:
    """The function that starts a server in this context, or None."""
    return _start.get()
