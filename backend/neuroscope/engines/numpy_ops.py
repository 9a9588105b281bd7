"""`ArrayOps` on numpy, for activations that belong to no model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class NumpyOps:
    """`ArrayOps` in single precision."""

    def asarray(self, value: Any) -> Array:
        array = np.asarray(value)
        return array.astype(np.float32) if np.issubdtype(array.dtype, np.floating) else array

    def precise(self, value: Any) -> Array:
        return np.asarray(value, dtype=np.float32)

    def to_numpy(self, array: Array) -> Array:
        return array

    def wide(self, array: Array) -> Array:
        return array.astype(np.float32) if array.dtype == np.float16 else array

    def einsum(self, pattern: str, *arrays: Array) -> Array:
        found: Array = np.einsum(pattern, *arrays)
        return found

    def concatenate(self, arrays: Sequence[Array], axis: int) -> Array:
        return np.concatenate(list(arrays), axis=axis)

    def stack(self, arrays: Sequence[Array], axis: int) -> Array:
        return np.stack(list(arrays), axis=axis)

    def zeros(self, shape: Sequence[int]) -> Array:
        return np.zeros(tuple(shape), dtype=np.float32)

    def repeat(self, array: Array, times: int) -> Array:
        """All rows repeated `times` times: a, b, a, b …"""
        return np.tile(array, (times, *([1] * (array.ndim - 1))))

    def transpose(self, array: Array, axes: Sequence[int]) -> Array:
        return array.transpose(*axes)

    def where(self, condition: Array, a: Array, b: Array) -> Array:
        return np.where(condition, a, b)

    def log_softmax(self, array: Array) -> Array:
        shifted = array - array.max(-1, keepdims=True)
        return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))

    def exp(self, array: Array) -> Array:
        return np.exp(array)

    def one_hot(self, ids: Any, width: int) -> Array:
        return (np.asarray(ids)[..., None] == np.arange(width)).astype(np.float32)

    def copy(self, array: Array) -> Array:
        return array.copy()

    def settled(self, array: Array) -> Array:
        return array

    def is_finite(self, array: Array) -> bool:
        return bool(np.isfinite(array).all())

    def equal(self, a: Array, b: Array) -> bool:
        return bool(np.array_equal(a, b))
