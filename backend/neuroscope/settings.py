"""Default seed, engine, floating type, device and degree of tensor parallelism of the current context.

They belong to the context (`contextvars`), so two runs in one process do not share them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeAlias, Union

import numpy as np

from neuroscope.errors import ArgumentError

if TYPE_CHECKING:
    import torch

#: A floating type: its name, or the type itself in torch, MLX or numpy.
DtypeLike: TypeAlias = Union[str, "torch.dtype", "np.dtype[Any]", "type[np.generic]"]

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


def dtype(given: DtypeLike | None = None) -> str:
    """The name of `given`, or of the context's floating type (float32 unless set). Raises `ArgumentError` for what names none."""
    return _dtype.get() if given is None else _named(given)


def _named(given: DtypeLike) -> str:
    found = dtype_name(given)
    if found is None:
        raise ArgumentError(f"{given!r} is no floating type.", remedy="Give a name such as 'bfloat16', or torch.bfloat16.")
    return found


def dtype_name(given: object) -> str | None:
    """The name of a floating type: `torch.bfloat16`, `mlx.core.bfloat16`, `numpy.float32` or a name; None for anything else."""
    if isinstance(given, str):
        return given.removeprefix("torch.")
    if isinstance(given, np.dtype) or (isinstance(given, type) and issubclass(given, np.generic)):
        return np.dtype(given).name
    kind = type(given)  # no framework is imported to ask
    if kind.__name__.lower() == "dtype" and kind.__module__.partition(".")[0] in ("torch", "mlx"):
        return str(given).rpartition(".")[2]
    return None


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
    dtype: DtypeLike | None = None,
    device: str | None = None,
    tp: int | None = None,
) -> Iterator[None]:
    """Set defaults for the duration of a block; None leaves one unchanged."""
    floats = None if dtype is None else _named(dtype)
    chosen: tuple[tuple[ContextVar[Any], Any], ...] = (
        (_seed, seed),
        (_engine, engine),
        (_dtype, floats),
        (_device, device),
        (_tp, tp),
    )
    tokens = [(variable, variable.set(value)) for variable, value in chosen if value is not None]
    try:
        yield
    finally:
        for variable, token in tokens:
            variable.reset(token)
