"""Reductions that leave padding out."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroscope.engines.protocol import Array, BoolArray
from neuroscope.errors import ArgumentError

#: What stands for padding in each reduction, so that it changes nothing.
_NEUTRAL = {"sum": 0.0, "norm": 0.0, "max": -np.inf, "min": np.inf, "argmax": -np.inf, "any": False, "all": True}


def reduced(
    name: str, values: NDArray[Any], real: BoolArray | None, axis: Any, keepdims: bool
) -> tuple[NDArray[Any], BoolArray | None]:
    """The reduction over the real cells, and which cells of its result have any; None if all do.

    A cell without a real one is NaN for `mean`, `std`, `max` and `min`, and zero else.
    """
    mask = None if real is None else np.broadcast_to(real, values.shape)
    if values.size == 0 and name in ("mean", "std", "max", "min", "argmax"):
        raise ValueError("there are no cells")
    if name == "norm":
        name, values, root = "sum", values.astype(np.float64) ** 2, True
    else:
        root = False
    if name == "argmax":
        shown = values if mask is None else np.where(mask, values, -np.inf)
        return np.asarray(shown.argmax(axis)), _any(mask, axis, keepdims)
    if name in ("mean", "std", "sum") and not np.issubdtype(values.dtype, np.complexfloating):
        values = values.astype(np.float64)
    if mask is None:
        found = getattr(values, name)(axis=axis, keepdims=keepdims)
    elif name in ("mean", "std"):
        with np.errstate(invalid="ignore"):
            count = mask.sum(axis=axis, keepdims=True)
            mean = np.where(mask, values, 0.0).sum(axis=axis, keepdims=True) / count
            if name == "std":
                mean = np.sqrt((np.where(mask, values - mean, 0.0) ** 2).sum(axis=axis, keepdims=True) / count)
        found = mean if keepdims else mean.reshape(mask.any(axis=axis).shape)
    else:
        found = getattr(np.where(mask, values, _NEUTRAL[name]), name)(axis=axis, keepdims=keepdims)
        if name in ("max", "min"):
            found = np.where(mask.any(axis=axis, keepdims=keepdims), found, np.nan)
    return np.sqrt(found) if root else found, _any(mask, axis, keepdims)


def _any(mask: BoolArray | None, axis: Any, keepdims: bool) -> BoolArray | None:
    if mask is None:
        return None
    left = np.asarray(mask.any(axis=axis, keepdims=keepdims))
    return None if left.all() else left


def traced(name: str, array: Array, axis: Any, keepdims: bool) -> Array:
    """The engine's own reduction, which gradients pass."""
    if name == "norm":
        return _engines("sum", array * array, axis, keepdims) ** 0.5
    if name in ("argmax", "any", "all"):
        raise ArgumentError(f"A metric that is differentiated cannot use {name}.", remedy="Patch with the method `exact`.")
    if name in ("max", "min"):
        if axis is None:
            return getattr(array.reshape(-1), name)()
        raise ArgumentError(f"A metric that is differentiated cannot use {name} along an axis.", remedy="Use `exact`.")
    return _engines(name, array, axis, keepdims)


def _engines(name: str, array: Array, axis: Any, keepdims: bool) -> Array:
    # torch takes numpy's names of the arguments, but not an axis of None together with keepdims
    if axis is None:
        axis = tuple(range(array.ndim))
    return getattr(array, name)(axis=axis, keepdims=keepdims) if axis else array
