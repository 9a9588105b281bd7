"""Queries, keys and values in the outputs of mlx-lm's modules, and their matrices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from neuroscope.engines.layout import HeadRows

Array = mx.array


class HeadSlot(HeadRows):
    """A per-head array inside a projection's output (rows, positions, features)."""

    def read(self, output: Array) -> Array:
        """(rows, positions, heads, d_head) of a projection's output."""
        return mx.unflatten(output, -1, self.split)[(slice(None), slice(None), *self.pick)]

    def weight(self, module: nn.Module) -> Array:
        """The slot's rows of the projection: (heads, d_head, d_model)."""
        return mx.unflatten(matrix(module), 0, self.split)[self.pick]

    def bias(self, module: nn.Module) -> Array | None:
        """(heads, d_head), or None if there is no bias."""
        return mx.unflatten(module.bias, 0, self.split)[self.pick] if "bias" in module else None


def matrix(module: nn.Module) -> Array:
    """A projection's or an embedding's matrix as (out, in), dequantised."""
    return _unpacked(module, slice(None))


def matrix_rows(module: nn.Module, ids: Array) -> Array:
    """Rows of that matrix: (…, in) for ids (…)."""
    return _unpacked(module, ids)


def _unpacked(module: nn.Module, rows: Any) -> Array:
    if "scales" not in module:
        return module.weight[rows]
    biases = module.get("biases")
    return mx.dequantize(
        module.weight[rows],
        module.scales[rows],
        None if biases is None else biases[rows],
        group_size=module.group_size,
        bits=module.bits,
        mode=module.mode,
    )


#: Hugging Face's names of nonlinearities.
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "silu": nn.silu,
    "gelu": nn.gelu,
    "gelu_new": nn.gelu_approx,
    "gelu_pytorch_tanh": nn.gelu_approx,
}
