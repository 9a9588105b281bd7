"""Defaults of the current context: which seed and which engine serve where none is named.

They belong to the context (`contextvars`), so that two runs in one process do not share them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_seed: ContextVar[int] = ContextVar("neuroscope_seed")
_engine: ContextVar[str | None] = ContextVar("neuroscope_engine", default=None)


def seed(given: int | None = None) -> int:
    """`given`, or the context's seed."""
    return _seed.get(0) if given is None else given


def given_seed() -> int | None:
    """The seed that somebody set for this context; None where it is the default."""
    return _seed.get(None)


def engine(given: str | None = None) -> str | None:
    """`given`, or the context's engine; None where neither names one."""
    return given or _engine.get()


@contextmanager
def defaults(*, seed: int | None = None, engine: str | None = None) -> Iterator[None]:
    """Set defaults for the duration of a block; None leaves one as it is."""
    tokens = []
    if seed is not None:
        tokens.append((_seed, _seed.set(seed)))
    engine_token = None if engine is None else _engine.set(engine)
    try:
        yield
    finally:
        for variable, token in tokens:
            variable.reset(token)
        if engine_token is not None:
            _engine.reset(engine_token)
