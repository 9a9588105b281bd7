"""`ArrayOps` on MLX."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray


def wide(array: mx.array) -> mx.array:
    """The array in at least single precision."""
    return array.astype(mx.float32) if array.dtype in (mx.float16, mx.bfloat16) else array


class MlxOps:
    """`ArrayOps` for arrays of one floating type."""

    def __init__(self, dtype: mx.Dtype) -> None:
        self.dtype = dtype

    def asarray(self, value: Any) -> mx.array:
        """An MLX array; floats are converted to the engine's type, integers and booleans are not."""
        array = value if isinstance(value, mx.array) else mx.array(np.asarray(value))
        return array.astype(self.dtype) if mx.issubdtype(array.dtype, mx.floating) else array

    def precise(self, value: Any) -> mx.array:
        """See `ArrayOps.precise`."""
        return (value if isinstance(value, mx.array) else mx.array(np.asarray(value))).astype(mx.float32)

    def to_numpy(self, array: mx.array) -> NDArray[Any]:
        return np.array(wide(array))

    def wide(self, array: mx.array) -> mx.array:
        return wide(array)

    def einsum(self, pattern: str, *arrays: mx.array) -> mx.array:
        return mx.einsum(pattern, *arrays)

    def concatenate(self, arrays: Sequence[mx.array], axis: int) -> mx.array:
        return mx.concatenate(list(arrays), axis=axis)

    def stack(self, arrays: Sequence[mx.array], axis: int) -> mx.array:
        return mx.stack(list(arrays), axis=axis)

    def zeros(self, shape: Sequence[int]) -> mx.array:
        return mx.zeros(tuple(shape), dtype=self.dtype)

    def repeat(self, array: mx.array, times: int) -> mx.array:
        """All rows repeated `times` times: a, b, a, b …"""
        return mx.tile(array, (times, *([1] * (array.ndim - 1))))

    def transpose(self, array: mx.array, axes: Sequence[int]) -> mx.array:
        return array.transpose(*axes)

    def where(self, condition: mx.array, a: mx.array, b: mx.array) -> mx.array:
        return mx.where(condition, a, b)

    def log_softmax(self, array: mx.array) -> mx.array:
        array = wide(array)
        return array - mx.logsumexp(array, axis=-1, keepdims=True)

    def exp(self, array: mx.array) -> mx.array:
        return mx.exp(array)

    def one_hot(self, ids: Any, width: int) -> mx.array:
        return (mx.array(np.asarray(ids))[..., None] == mx.arange(width)).astype(self.dtype)

    def copy(self, array: mx.array) -> mx.array:
        return mx.array(array)

    def settled(self, array: mx.array) -> mx.array:
        """The array, evaluated: only the thread that created a lazy array can evaluate it."""
        mx.eval(array)
        return array

    def is_finite(self, array: mx.array) -> bool:
        return bool(mx.isfinite(array).all())

    def equal(self, a: mx.array, b: mx.array) -> bool:
        return a.shape == b.shape and bool(mx.array_equal(a, b))
