"""Activation tensors: arrays on their engine's device.

In Python they behave as numpy's arrays: indexing from the first axis, comparison, reductions, `np.asarray`, DLPack. Messages of a
script address the units, the last axis: `activations at: 7` are the values of unit 7 at every position.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterator
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroscope.engines import torch_tensor
from neuroscope.engines.protocol import Array, ArrayOps, BoolArray
from neuroscope.errors import ArgumentError, first_line
from neuroscope.tensors import reductions
from neuroscope.tensors.indexing import Index, indexed, named
from neuroscope.vocabulary import public, python_only

Axis = int | tuple[int, ...] | None


@public
class ActivationTensor:
    """An array on its engine's device.

    Arithmetic, comparison and indexing work as in numpy, and answer new tensors: what was read does not change when this one is
    written. In a script `activations at: 7` are the values of unit 7 (the last axis) at every position, `at: 7 put: x` replaces them.

    If rows of different lengths are padded, the tensor and everything calculated from it know which cells are `real`: reductions,
    `dot` and `cosine` leave the padding out. The values include it.
    """

    def __init__(self, array: Array, ops: ArrayOps, real: BoolArray | None = None, *, traced: bool = False) -> None:
        self._array = array
        self._ops = ops
        self._real = real  # broadcasts to the array's shape; None if every cell is real
        #: Within a metric that is differentiated: reductions are the engine's own, and answer tensors.
        self._traced = traced

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(int(size) for size in self._array.shape)

    @property
    @python_only
    def ndim(self) -> int:
        return len(self.shape)

    @property
    @python_only
    def size(self) -> int:
        """Number of cells; in a script `size` is that of the last axis."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    @python_only
    def dtype(self) -> np.dtype[Any]:
        """The type of `numpy()`: that of the engine, float32 for bfloat16."""
        return self._ops.to_numpy(self._array.reshape(-1)[:0]).dtype

    @property
    @python_only
    def array(self) -> Array:
        """The engine's array."""
        return self._array

    @property
    @python_only
    def real(self) -> BoolArray | None:
        """Which cells belong to tokens, broadcastable to the shape; None if all do."""
        return self._real

    # --- to other libraries ---------------------------------------------------------------------------------------

    @python_only
    def numpy(self) -> NDArray[Any]:
        """A numpy copy (bfloat16 becomes float32)."""
        return np.array(self._ops.to_numpy(self._array))

    @python_only
    def torch(self) -> Any:
        """A `torch.Tensor`: the engine's own on torch, a copy from any other. Raises `MissingExtraError` without torch."""
        return torch_tensor(self._array, self._ops)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """For `numpy.asarray`."""
        if copy is False:
            raise ValueError("An ActivationTensor cannot be viewed by numpy without a copy.")
        return self.numpy() if dtype is None else self.numpy().astype(dtype)

    def __dlpack__(self, **options: Any) -> Any:
        """For `torch.from_dlpack` and others; shares memory with the engine's array where that allows it."""
        array = self._array.detach() if hasattr(self._array, "detach") else self._array
        return array.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self._array.__dlpack_device__()

    def tolist(self) -> Any:
        """Nested lists of numbers."""
        return self.numpy().tolist()

    @python_only
    def item(self) -> float | int | bool:
        """The only cell as Python's number. Raises `ArgumentError` if there are more."""
        if self.size != 1:
            raise ArgumentError(f"A tensor of shape {self.shape} is not one number.", remedy="Index it, or reduce it: mean().")
        return self._ops.to_numpy(self._array).reshape(-1)[0].item()

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __bool__(self) -> bool:
        if self.size != 1:
            raise ArgumentError(
                f"A tensor of shape {self.shape} is neither true nor false.", remedy="Ask for any() or all() of its cells."
            )
        return bool(self.item())

    # --- reductions -----------------------------------------------------------------------------------------------

    def mean(self, axis: Axis = None, keepdims: bool = False, **numpys: Any) -> Any:
        return self._reduced("mean", axis, keepdims, numpys)

    @python_only  # a script's `sum:` takes a block
    def sum(self, axis: Axis = None, keepdims: bool = False, **numpys: Any) -> Any:
        return self._reduced("sum", axis, keepdims, numpys)

    def max(self, axis: Axis = None, keepdims: bool = False, **numpys: Any) -> Any:
        return self._reduced("max", axis, keepdims, numpys)

    def min(self, axis: Axis = None, keepdims: bool = False, **numpys: Any) -> Any:
        return self._reduced("min", axis, keepdims, numpys)

    def std(self, axis: Axis = None, keepdims: bool = False, **numpys: Any) -> Any:
        """Standard deviation, with divisor n as in numpy."""
        return self._reduced("std", axis, keepdims, numpys)

    def norm(self, axis: Axis = None, keepdims: bool = False) -> Any:
        """Euclidean norm, over all cells or along axes."""
        return self._reduced("norm", axis, keepdims, {})

    @python_only
    def argmax(self, axis: int | None = None, **numpys: Any) -> Any:
        """Index of the largest cell: in the flat array, or along an axis."""
        return self._reduced("argmax", axis, False, numpys)

    @python_only
    def any(self, axis: Axis = None, keepdims: bool = False, **numpys: Any) -> Any:
        return self._reduced("any", axis, keepdims, numpys)

    @python_only
    def all(self, axis: Axis = None, keepdims: bool = False, **numpys: Any) -> Any:
        return self._reduced("all", axis, keepdims, numpys)

    def _reduced(self, name: str, axis: Axis, keepdims: bool, numpys: dict[str, Any]) -> Any:
        """A number over all cells, a tensor along axes. `numpys`: what numpy's functions pass on."""
        for key in (key for key, value in numpys.items() if value):  # numpy's defaults are None, and 0 for ddof
            raise ArgumentError(f"{name} of an ActivationTensor has no argument {key!r}.", remedy="Use tensor.numpy().")
        if self._traced:
            return self._wrap(reductions.traced(name, self._array, axis, keepdims))
        try:
            found, real = reductions.reduced(name, self._ops.to_numpy(self._array), self._real, axis, keepdims)
        except (np.exceptions.AxisError, ValueError) as error:
            raise ArgumentError(f"{name} of a tensor of shape {self.shape}: {first_line(error)}.") from error
        if np.ndim(found) == 0:
            return np.asarray(found).item()
        return ActivationTensor(self._ops.asarray(found), self._ops, real)

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

    @python_only
    def same(self, other: Any) -> bool:
        """Whether another tensor or array has the same shape and values."""
        if not isinstance(other, (ActivationTensor, np.ndarray)):
            return False
        return bool(np.array_equal(self.numpy(), _plain(other)))

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

    # --- elements -------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("A tensor without axes has no length.")
        return self.shape[0]

    def __iter__(self) -> Iterator[ActivationTensor]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: Any) -> Any:
        """A tensor; a number where every axis is indexed by one."""
        chosen = named(index, self.shape)
        real = None if self._real is None else np.broadcast_to(self._real, self.shape)[chosen.plain]
        if real is not None and real.all():
            real = None
        if chosen.backwards and not self._traced:
            return ActivationTensor(self._ops.asarray(np.ascontiguousarray(self.numpy()[chosen.plain])), self._ops, real)
        # A copy, not a view: writing to this tensor later does not change it.
        found = self._ops.copy(indexed(self._array, chosen, self._ops))
        if found.ndim == 0 and not self._traced:
            return self._ops.to_numpy(found).item()
        return self._made(found, real)

    def __setitem__(self, index: Any, value: Any) -> None:
        chosen = named(index, self.shape)
        operand = self._operand(value)
        if operand is None:
            raise ArgumentError(f"{value!r} cannot be written to a tensor.", remedy="Give numbers, an array or a tensor.")
        try:
            self._array[chosen.of(self._ops)] = operand
        except (RuntimeError, ValueError) as error:
            raise ArgumentError(
                f"Shape {tuple(getattr(operand, 'shape', ()))} does not fit there: {first_line(error)}"
            ) from error
        self._ops.settled(self._array)

    @property
    @python_only
    def by_unit(self) -> Units:
        """The tensor as the collection of its units that a script's messages see."""
        return Units(self)

    def copy(self) -> ActivationTensor:
        return self._wrap(self._ops.copy(self._array))

    @python_only
    def reshape(self, *shape: Any) -> ActivationTensor:
        """The cells in another shape; which of them are padding is not kept."""
        wanted = shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape
        return ActivationTensor(self._array.reshape(*wanted), self._ops, traced=self._traced)

    @property
    @python_only
    def T(self) -> ActivationTensor:  # noqa: N802 - numpy's name
        """The axes in reverse."""
        axes = tuple(range(self.ndim))[::-1]
        real = None if self._real is None else np.broadcast_to(self._real, self.shape).transpose(axes)
        return self._made(self._ops.transpose(self._array, axes), real)

    # --- arithmetic -----------------------------------------------------------------------------------------------

    def abs(self) -> ActivationTensor:
        return self._wrap(abs(self._array))

    def exp(self) -> ActivationTensor:
        return self._wrap(self._ops.exp(self._array))

    def log_softmax(self) -> ActivationTensor:
        """Log-probabilities over the last axis."""
        return self._wrap(self._ops.log_softmax(self._array))

    def softmax(self) -> ActivationTensor:
        """Probabilities over the last axis."""
        return self._wrap(self._ops.exp(self._ops.log_softmax(self._array)))

    def _made(self, array: Array, real: BoolArray | None) -> ActivationTensor:
        return ActivationTensor(array if self._traced else self._ops.settled(array), self._ops, real, traced=self._traced)

    def _wrap(self, array: Array, other: Any = None) -> ActivationTensor:
        """A tensor calculated from this one and `other`; a cell is real if it is real in both."""
        sides = [side for side in (self, other) if isinstance(side, ActivationTensor)]
        reals = [side._real for side in sides if side._real is not None]
        real = functools.reduce(operator.and_, reals) if reals else None
        if real is not None and np.broadcast_shapes(real.shape, tuple(array.shape)) != tuple(array.shape):
            real = None
        traced = any(side._traced for side in sides)
        return ActivationTensor(array if traced else self._ops.settled(array), self._ops, real, traced=traced)

    def _operand(self, other: Any) -> Any:
        """The other operand as array or number; None if it is neither."""
        if isinstance(other, (bool, np.bool_)):
            return bool(other)
        if isinstance(other, Real):
            return float(other)
        if isinstance(other, (list, tuple)):
            try:
                return self._ops.asarray(np.asarray(other, dtype=np.float64))
            except (TypeError, ValueError) as error:
                raise ArgumentError(f"{other!r:.60} is not an array of numbers.") from error
        if isinstance(other, np.ndarray):
            return self._ops.asarray(other)
        if isinstance(other, ActivationTensor):
            return other.array if other._ops is self._ops else self._ops.asarray(other.numpy())
        return other if type(other) is type(self._array) else None

    def _binary(self, other: Any, operation: Callable[[Any, Any], Any]) -> Any:
        operand = self._operand(other)
        if operand is None:
            return NotImplemented
        try:
            return self._wrap(operation(self._array, operand), other)
        except (RuntimeError, ValueError, TypeError) as error:
            theirs = tuple(getattr(operand, "shape", ()))
            raise ArgumentError(f"Shapes {self.shape} and {theirs} cannot be broadcast together.") from error

    def __add__(self, other: Any) -> ActivationTensor:
        return self._binary(other, operator.add)

    def __radd__(self, other: Any) -> ActivationTensor:
        return self._binary(other, lambda a, b: b + a)

    def __sub__(self, other: Any) -> ActivationTensor:
        return self._binary(other, operator.sub)

    def __rsub__(self, other: Any) -> ActivationTensor:
        return self._binary(other, lambda a, b: b - a)

    def __mul__(self, other: Any) -> ActivationTensor:
        return self._binary(other, operator.mul)

    def __rmul__(self, other: Any) -> ActivationTensor:
        return self._binary(other, lambda a, b: b * a)

    def __truediv__(self, other: Any) -> ActivationTensor:
        return self._binary(other, operator.truediv)

    def __rtruediv__(self, other: Any) -> ActivationTensor:
        return self._binary(other, lambda a, b: b / a)

    def __pow__(self, other: Any) -> ActivationTensor:
        return self._binary(other, operator.pow)

    def __matmul__(self, other: Any) -> ActivationTensor:
        return self._binary(other, operator.matmul)

    def __neg__(self) -> ActivationTensor:
        return self._wrap(-self._array)

    def __abs__(self) -> ActivationTensor:
        return self.abs()

    def __eq__(self, other: object) -> ActivationTensor:  # type: ignore[override]
        """Cell by cell, as in numpy; `=` of a script compares shape and values (`same`)."""
        return self._binary(other, operator.eq)

    def __ne__(self, other: object) -> ActivationTensor:  # type: ignore[override]
        return self._binary(other, operator.ne)

    def __hash__(self) -> int:
        """The object's, as in torch."""
        return object.__hash__(self)

    def __lt__(self, other: Any) -> ActivationTensor:
        return self._binary(other, operator.lt)

    def __le__(self, other: Any) -> ActivationTensor:
        return self._binary(other, operator.le)

    def __gt__(self, other: Any) -> ActivationTensor:
        return self._binary(other, operator.gt)

    def __ge__(self, other: Any) -> ActivationTensor:
        return self._binary(other, operator.ge)

    def print_string(self) -> str:
        size = " × ".join(str(size) for size in self.shape) or "scalar"
        return f"an ActivationTensor({size})"

    def __repr__(self) -> str:
        return self.print_string()

    def __format__(self, specification: str) -> str:
        return format(self.item(), specification) if specification else str(self)

    def as_dictionary(self) -> dict[str, Any]:
        """Shape and values."""
        return {"shape": list(self.shape), "values": self.tolist()}


class Units:
    """A tensor as a collection over its last axis, for the messages of a script: `at:`, `at:put:`, `size`, `do:` and their kin.

    `at:` of a tensor with one axis answers a number.
    """

    def __init__(self, tensor: ActivationTensor) -> None:
        self._tensor = tensor

    def __len__(self) -> int:
        return self._tensor.shape[-1] if self._tensor.shape else 1

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> ActivationTensor | float:
        return self._tensor[self._at(index)]

    def __setitem__(self, index: int, value: Any) -> None:
        self._tensor[self._at(index)] = value

    def _at(self, index: Any) -> Index:
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(self):
            raise ArgumentError(f"There is no unit {index!r}: units run from 0 to {len(self) - 1}.")
        return (..., index) if self._tensor.shape else ()


def _plain(value: Any) -> Any:
    return value.numpy() if isinstance(value, ActivationTensor) else np.asarray(value)
