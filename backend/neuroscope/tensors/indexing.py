"""numpy's indices on the arrays of every engine.

Engines differ: MLX checks no bounds and takes no boolean masks, torch has no slices that run backwards. An index is checked against
the shape by numpy, and masks become numbers, so that all answer what numpy does.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import EllipsisType
from typing import Any

import numpy as np

from neuroscope.engines.protocol import Array, ArrayOps
from neuroscope.errors import ArgumentError

Index = int | slice | EllipsisType | None | tuple[Any, ...]


class IndexRangeError(ArgumentError, IndexError):
    """An index does not fit the shape of a tensor."""


@dataclass(frozen=True)
class Chosen:
    """A checked index. plain: for numpy. backwards: whether it has a slice that runs backwards, which torch lacks."""

    plain: tuple[Any, ...]
    backwards: bool

    def of(self, ops: ArrayOps) -> tuple[Any, ...]:
        """The index for an engine's array."""
        return tuple(ops.asarray(part) if isinstance(part, np.ndarray) else part for part in self.plain)


def named(index: Any, shape: tuple[int, ...]) -> Chosen:
    """An index as a tuple of numbers, slices and arrays of numbers. Raises `IndexRangeError` that says what does not fit."""
    parts: list[Any] = []
    for part in index if isinstance(index, tuple) else (index,):
        parts += _part(part)
    plain = tuple(parts)
    try:
        np.broadcast_to(np.int8(0), shape)[plain]
    except (IndexError, ValueError, TypeError) as error:
        said = str(error).split(" (`None`)")[0]
        raise IndexRangeError(
            f"The index {_shown(index)} does not fit the shape {shape}: {said}.",
            remedy="Axes count from zero, from the first one: [row, position, unit]; `[..., 7]` is unit 7 everywhere.",
        ) from error
    return Chosen(plain, any(isinstance(part, slice) and (part.step or 1) < 0 for part in plain))


def indexed(array: Array, chosen: Chosen, ops: ArrayOps) -> Array:
    """The cells of an engine's array."""
    return array[chosen.of(ops)]


def _part(part: Any) -> list[Any]:
    if part is None or part is Ellipsis or isinstance(part, slice):
        return [part]
    if isinstance(part, (bool, np.bool_)):
        raise IndexRangeError(f"{part!r} is no index.", remedy="Give numbers, slices, or a mask of the tensor's shape.")
    if hasattr(part, "__index__") and np.ndim(part) == 0:
        return [int(part)]
    found = np.asarray(part)
    if found.dtype == np.bool_:
        return list(np.nonzero(found))
    if found.size == 0:
        found = found.astype(np.int64)
    if not np.issubdtype(found.dtype, np.integer):
        raise IndexRangeError(f"{_shown(part)} is no index.", remedy="Give whole numbers, slices, or a mask.")
    return [found.astype(np.int64)]


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
