"""Queries, keys and values in the outputs of torch modules."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from neuroscope.engines.layout import HeadRows
from neuroscope.engines.torch.packed import plain


class HeadSlot(HeadRows):
    """A per-head array inside a projection's output (rows, positions, features)."""

    def read(self, output: Tensor) -> Tensor:
        """(rows, positions, heads, d_head), a view."""
        return output.unflatten(-1, self.split)[(slice(None), slice(None), *self.pick)]

    def write(self, output: Tensor, value: Tensor) -> Tensor:
        """`output` with the slot replaced; a new tensor, so that gradients flow."""
        if self.alone:
            return value.flatten(-2)
        parts = output.unflatten(-1, self.split).clone()
        parts[(slice(None), slice(None), *self.pick)] = value
        return parts.flatten(2)

    def weight(self, module: nn.Module, dtype: torch.dtype) -> Tensor:
        """The slot's rows of the projection, (heads, d_head, d_model), a view."""
        return output_by_input(module, dtype).unflatten(0, self.split)[self.pick]

    def bias(self, module: nn.Module) -> Tensor | None:
        """(heads, d_head), a view; None if there is no bias."""
        bias = getattr(module, "bias", None)
        return None if bias is None else bias.unflatten(0, self.split)[self.pick]


def output_by_input(module: nn.Module, dtype: torch.dtype) -> Tensor:
    """The projection's matrix as (out, in); one that is packed is unpacked, in `dtype`."""
    weight = plain(module, dtype=dtype)
    # GPT-2's Conv1D stores (in, out); an adapter stands around the layer that it adapts.
    return weight if isinstance(getattr(module, "base_layer", module), nn.Linear) else weight.T
