"""Defaults of the current context: which seed, engine and floating type serve where none is named.

They belong to the context (`contextvars`), so that two runs in one process do not share them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

_seed: ContextVar[int] = ContextVar("neuroscope_seed")
_engine: ContextVar[str | None] = ContextVar("neuroscope_engine", default=None)
_dtype: ContextVar[str] = ContextVar("neuroscope_dtype", default="float32")


def seed(given: int | None = None) -> int:
    """`given`, or the context's seed."""
    return _seed.get(0) if given is None else given


def given_seed() -> int | None:
    """The seed that somebody set for this context; None where it is the default."""
    return _seed.get(None)


def engine(given: str | None = None) -> str | None:
    """`given`, or the context's engine; None where neither names one."""
    return given or _engine.get()


def dtype(given: str | None = None) -> str:
    """`given`, or the context's floating type, which is float32 where nobody named another."""
    return _dtype.get() if given is None else given


@contextmanager
def defaults(*, seed: int | None = None, engine: str | None = None, dtype: str | None = None) -> Iterator[None]:
    """Set defaults for the duration of a block; None leaves one as it is."""
    chosen: tuple[tuple[ContextVar[Any], Any], ...] = ((_seed, seed), (_engine, engine), (_dtype, dtype))
    tokens = [(variable, variable.set(value)) for variable, value in chosen if value is not None]
    try:
        yield
    finally:
        for variable, token in tokens:
            variable.reset(token)
