"""Activation tensors: arrays on their engine's device, with arithmetic."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterator
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroscope.engines.protocol import Array, ArrayOps, BoolArray
from neuroscope.errors import ArgumentError
from neuroscope.vocabulary import public, python_only


@public
class ActivationTensor:
    """An array on its engine's device.

    Arithmetic and comparison work elementwise and broadcast as in numpy. Indexing is zero-based on the last axis, at
    every position: `activations at: 7` are the values of unit 7, `at: 7 put: x` replaces them.

    If rows of different lengths are padded, the tensor and everything calculated from it know which cells are `real`: `mean`,
    `norm`, `max`, `min`, `dot` and `cosine` leave the padding out. The values include it.
    """

    def __init__(self, array: Array, ops: ArrayOps, real: BoolArray | None = None) -> None:
        self._array = array
        self._ops = ops
        self._real = real  # broadcasts to the array's shape; None if every cell is real

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(int(size) for size in self._array.shape)

    @property
    @python_only
    def array(self) -> Array:
        """The engine's array."""
        return self._array

    @python_only
    def numpy(self) -> NDArray[Any]:
        """A numpy copy (bfloat16 becomes float32)."""
        return self._ops.to_numpy(self._array)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """For `numpy.asarray`."""
        return self.numpy() if dtype is None else self.numpy().astype(dtype)

    def tolist(self) -> Any:
        """Nested lists of numbers."""
        return self.numpy().tolist()

    def mean(self) -> float:
        return float(self._cells().mean())

    def norm(self) -> float:
        """Euclidean norm over all elements."""
        return float(np.linalg.norm(self._cells().astype(np.float64)))

    def max(self) -> float:
        return float(self._cells().max())

    def min(self) -> float:
        return float(self._cells().min())

    def abs(self) -> ActivationTensor:
        return self._wrap(abs(self._array))

    def dot(self, other: ActivationTensor) -> float:
        """Inner product over all elements."""
        a, b = self._with(other)
        return float((a * b).sum())

    def cosine(self, other: ActivationTensor) -> float:
        """Cosine similarity over all elements. Raises `ArgumentError` if either is zero."""
        a, b = self._with(other)
        scale = np.linalg.norm(a) * np.linalg.norm(b)
        if scale == 0:
            raise ArgumentError("The cosine with a zero tensor is undefined.")
        return float((a * b).sum() / scale)

    def copy(self) -> ActivationTensor:
        return self._wrap(self._ops.copy(self._array))

    def _cells(self) -> NDArray[Any]:
        """A numpy copy of the real cells, flat if there is padding."""
        values = self.numpy()
        return values if self._real is None else values[np.broadcast_to(self._real, values.shape)]

    def _with(self, other: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        """Both operands of an inner product in double precision, with the padding of either set to zero."""
        sides = []
        for side in (self, other):
            values = np.asarray(_plain(side), dtype=np.float64)
            real = side._real if isinstance(side, ActivationTensor) else None
            sides.append(values if real is None else np.where(real, values, 0.0))
        if self._real is not None and sides[1].shape == sides[0].shape:
            sides[1] = np.where(self._real, sides[1], 0.0)
        if isinstance(other, ActivationTensor) and other._real is not None and sides[1].shape == sides[0].shape:
            sides[0] = np.where(other._real, sides[0], 0.0)
        return sides[0], sides[1]

    def __len__(self) -> int:
        return self.shape[-1] if self.shape else 1

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> ActivationTensor | float:
        value = self._array[..., self._checked(index)]
        # A copy, not a view: writing to this tensor later does not change it.
        if value.ndim == 0:
            return float(value)
        real = None if self._real is None else np.broadcast_to(self._real, self.shape)[..., index]
        return ActivationTensor(self._ops.settled(self._ops.copy(value)), self._ops, real)

    def __setitem__(self, index: int, value: Any) -> None:
        self._array[..., self._checked(index)] = _unwrap(value)
        self._ops.settled(self._array)

    def _checked(self, index: int) -> int:
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(self):
            raise ArgumentError(f"There is no unit {index!r}: units run from 0 to {len(self) - 1}.")
        return index

    def _wrap(self, array: Array, other: Any = None) -> ActivationTensor:
        """A tensor calculated from this one and `other`; a cell is real if it is real in both."""
        reals = [side._real for side in (self, other) if isinstance(side, ActivationTensor) and side._real is not None]
        real = functools.reduce(operator.and_, reals) if reals else None
        if real is not None and np.broadcast_shapes(real.shape, tuple(array.shape)) != tuple(array.shape):
            real = None
        return ActivationTensor(self._ops.settled(array), self._ops, real)

    def _operand(self, other: Any) -> Any:
        """The other operand as array or number; None if it is neither."""
        if isinstance(other, Real):
            return float(other)
        if isinstance(other, (list, tuple)):
            return self._ops.asarray(np.asarray(other, dtype=np.float64))
        if isinstance(other, np.ndarray):
            return self._ops.asarray(other)
        if isinstance(other, ActivationTensor):
            return other.array if other._ops is self._ops else self._ops.asarray(other.numpy())
        return None

    def _binary(self, other: Any, operation: Any) -> Any:
        operand = self._operand(other)
        if operand is None:
            return NotImplemented
        try:
            return self._wrap(operation(self._array, operand), other)
        except (RuntimeError, ValueError) as error:
            theirs = tuple(getattr(operand, "shape", ()))
            raise ArgumentError(f"Shapes {self.shape} and {theirs} cannot be broadcast together.") from error

    def __add__(self, other: Any) -> ActivationTensor:
        return self._binary(other, lambda a, b: a + b)

    def __radd__(self, other: Any) -> ActivationTensor:
        return self._binary(other, lambda a, b: b + a)

    def __sub__(self, other: Any) -> ActivationTensor:
        return self._binary(other, lambda a, b: a - b)

    def __rsub__(self, other: Any) -> ActivationTensor:
        return self._binary(other, lambda a, b: b - a)

    def __mul__(self, other: Any) -> ActivationTensor:
        return self._binary(other, lambda a, b: a * b)

    def __rmul__(self, other: Any) -> ActivationTensor:
        return self._binary(other, lambda a, b: b * a)

    def __truediv__(self, other: Any) -> ActivationTensor:
        return self._binary(other, lambda a, b: a / b)

    def __neg__(self) -> ActivationTensor:
        return self._wrap(-self._array)

    def print_string(self) -> str:
        size = " × ".join(str(size) for size in self.shape) or "scalar"
        return f"an ActivationTensor({size})"

    def __repr__(self) -> str:
        return self.print_string()

    def as_dictionary(self) -> dict[str, Any]:
        """Shape and values."""
        return {"shape": list(self.shape), "values": self.tolist()}


def _unwrap(value: Any) -> Any:
    return value.array if isinstance(value, ActivationTensor) else value


def _plain(value: Any) -> Any:
    return value.numpy() if isinstance(value, ActivationTensor) else np.asarray(value)
