"""Default seed, engine, floating type, device and degree of tensor parallelism of the current context.

They belong to the context (`contextvars`), so two runs in one process do not share them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from neuroscope.errors import ArgumentError

_seed: ContextVar[int] = ContextVar("neuroscope_seed")
_engine: ContextVar[str | None] = ContextVar("neuroscope_engine", default=None)
_dtype: ContextVar[str] = ContextVar("neuroscope_dtype", default="float32")
_device: ContextVar[str | None] = ContextVar("neuroscope_device", default=None)
_tp: ContextVar[int | None] = ContextVar("neuroscope_tp", default=None)


def seed(given: int | None = None) -> int:
    """`given`, or the context's seed. Raises `ArgumentError` for anything but a whole number from zero."""
    if given is None:
        return _seed.get(0)
    if isinstance(given, bool) or not hasattr(given, "__index__") or given < 0:
        raise ArgumentError(f"A seed is a whole number from zero, not {given!r}.")
    return int(given)


def given_seed() -> int | None:
    """The seed that was set for this context, or None."""
    return _seed.get(None)


def engine(given: str | None = None) -> str | None:
    """`given`, or the context's engine, or None."""
    return given or _engine.get()


def dtype(given: str | None = None) -> str:
    """`given`, or the context's floating type (float32 unless set)."""
    return _dtype.get() if given is None else given


def device(given: str | None = None) -> str | None:
    """`given`, or the context's device, or None: the engine's own choice."""
    return given or _device.get()


def tp(given: int | None = None) -> int | None:
    """`given`, or the context's number of processes that share a model, or None: one."""
    return _tp.get() if given is None else given


@contextmanager
def defaults(
    *,
    seed: int | None = None,
    engine: str | None = None,
    dtype: str | None = None,
    device: str | None = None,
    tp: int | None = None,
) -> Iterator[None]:
    """Set defaults for the duration of a block; None leaves one unchanged."""
    chosen: tuple[tuple[ContextVar[Any], Any], ...] = (
        (_seed, seed),
        (_engine, engine),
        (_dtype, dtype),
        (_device, device),
        (_tp, tp),
    )
    tokens = [(variable, variable.set(value)) for variable, value in chosen if value is not None]
    try:
        yield
    finally:
        for variable, token in tokens:
            variable.reset(token)
