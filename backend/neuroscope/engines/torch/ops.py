"""`ArrayOps` on torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def wide(array: Tensor) -> Tensor:
    """The array in at least single precision."""
    return array.float() if array.dtype in (torch.float16, torch.bfloat16) else array


def as_tensor(array: Any, to_numpy: Callable[[Any], NDArray[Any]]) -> Tensor:
    """A tensor itself, or a copy of another framework's array."""
    return array if isinstance(array, Tensor) else torch.from_numpy(np.array(to_numpy(array)))


class TorchOps:
    """`ArrayOps` for tensors of one device and floating type."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device = device
        self.dtype = dtype

    def asarray(self, value: Any) -> Tensor:
        """A tensor on the engine's device; floats are converted to the engine's type, integers and booleans are not."""
        tensor = value if isinstance(value, Tensor) else torch.as_tensor(np.asarray(value))
        return tensor.to(self.device, self.dtype if tensor.is_floating_point() else tensor.dtype)

    def precise(self, value: Any) -> Tensor:
        """See `ArrayOps.precise`."""
        tensor = value if isinstance(value, Tensor) else torch.as_tensor(np.asarray(value))
        return tensor.to(self.device, torch.promote_types(self.dtype, torch.float32))

    def to_numpy(self, array: Tensor) -> NDArray[Any]:
        return wide(array.detach()).cpu().numpy()

    def wide(self, array: Tensor) -> Tensor:
        return wide(array)

    def einsum(self, pattern: str, *arrays: Tensor) -> Tensor:
        return torch.einsum(pattern, *arrays)

    def concatenate(self, arrays: Sequence[Tensor], axis: int) -> Tensor:
        return torch.cat(list(arrays), dim=axis)

    def stack(self, arrays: Sequence[Tensor], axis: int) -> Tensor:
        return torch.stack(list(arrays), dim=axis)

    def zeros(self, shape: Sequence[int]) -> Tensor:
        return torch.zeros(tuple(shape), device=self.device, dtype=self.dtype)

    def repeat(self, array: Tensor, times: int) -> Tensor:
        """All rows repeated `times` times: a, b, a, b …"""
        return array.repeat(times, *([1] * (array.ndim - 1)))

    def transpose(self, array: Tensor, axes: Sequence[int]) -> Tensor:
        return array.permute(*axes)

    def where(self, condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return torch.where(condition, a, b)

    def log_softmax(self, array: Tensor) -> Tensor:
        return wide(array).log_softmax(-1)

    def exp(self, array: Tensor) -> Tensor:
        return array.exp()

    def one_hot(self, ids: Any, width: int) -> Tensor:
        found = torch.nn.functional.one_hot(torch.as_tensor(np.asarray(ids)), width)
        return found.to(self.device, self.dtype)

    def copy(self, array: Tensor) -> Tensor:
        return array.clone()

    def settled(self, array: Tensor) -> Tensor:
        return array

    def is_finite(self, array: Tensor) -> bool:
        return bool(torch.isfinite(array).all())

    def equal(self, a: Tensor, b: Tensor) -> bool:
        return torch.equal(a, b)
