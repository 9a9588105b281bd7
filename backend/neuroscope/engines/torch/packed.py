"""Quantised weights on torch: MXFP4 experts of gpt-oss as they are stored, and matrices that bitsandbytes or torchao packed.

What is packed stays packed: a run unpacks an expert when tokens reach it, and for gradients again, so that no more than one expert's
matrix is there at a time. Libraries' matrices run in their own kernels; whoever composes with them (`project`, `head_writes`) gets them
unpacked. Gradients flow through packed weights, not to them.

MXFP4: 32 numbers of 4 bits share an exponent (Open Compute Project, "Microscaling Formats", 2023). A byte holds two, the first in its
low half. All of them are exact in bfloat16.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

_VALUES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
#: Numbers that share an exponent, and what is subtracted from it.
GROUP, _BIAS = 32, 127


@cache
def _pairs(dtype: torch.dtype, device: torch.device) -> Tensor:
    """(256, 2): the two numbers of every byte."""
    one = torch.tensor([*_VALUES, *(-value for value in _VALUES)], dtype=dtype, device=device)
    byte = torch.arange(256, device=device)
    return torch.stack([one[byte & 15], one[byte >> 4]], dim=1)


def unpacked(blocks: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    """The matrix (…, in, out) of bytes (…, out, groups, 16) and exponents (…, out, groups)."""
    numbers = _pairs(dtype, blocks.device)[blocks.int()].flatten(-2)
    return torch.ldexp(numbers, scales.int()[..., None] - _BIAS).flatten(-2).mT


class _Product(torch.autograd.Function):
    """x times a packed matrix, which is unpacked again for the gradient instead of being kept."""

    @staticmethod
    def forward(context: Any, x: Tensor, blocks: Tensor, scales: Tensor) -> Tensor:
        context.save_for_backward(blocks, scales)
        return x @ unpacked(blocks, scales, x.dtype)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        blocks, scales = context.saved_tensors
        return gradient @ unpacked(blocks, scales, gradient.dtype).mT, None, None


class PackedMatrix:
    """The matrices (experts, in, out) of all experts, packed."""

    def __init__(self, blocks: Tensor, scales: Tensor) -> None:
        self.blocks, self.scales = blocks, scales

    @property
    def shape(self) -> tuple[int, int, int]:
        experts, out, groups, _ = self.blocks.shape
        return experts, groups * GROUP, out

    def times(self, x: Tensor, expert: int) -> Tensor:
        """x (tokens, in) times an expert's matrix: (tokens, out)."""
        found: Tensor = _Product.apply(x, self.blocks[expert], self.scales[expert])  # type: ignore[no-untyped-call]
        return found

    def unpacked(self, dtype: torch.dtype) -> Tensor:
        return unpacked(self.blocks, self.scales, dtype).contiguous()


def times(x: Tensor, matrix: Tensor | PackedMatrix, expert: int) -> Tensor:
    """x (tokens, in) times an expert's matrix."""
    return matrix.times(x, expert) if isinstance(matrix, PackedMatrix) else x @ matrix[expert]


def is_packed(owner: Any, name: str) -> bool:
    """Whether a module's weight is packed: by us, bitsandbytes or torchao, or in a way that nobody here knows."""
    value = getattr(owner, name, None)
    if isinstance(value, PackedMatrix):
        return True
    if not isinstance(value, Tensor):
        return False
    return _library(value) is not None or not value.is_floating_point() or value.element_size() == 1


def _library(value: Tensor) -> str | None:
    root = type(value).__module__.partition(".")[0]
    return root if root in ("torchao", "bitsandbytes") else None


def plain(owner: Any, name: str = "weight", dtype: torch.dtype | None = None) -> Tensor:
    """A module's weight as numbers: itself where it is not packed, else a copy, in `dtype`. Raises `TypeError` for an unknown packing."""
    value = getattr(owner, name)
    if not is_packed(owner, name):
        assert isinstance(value, Tensor)
        return value
    wanted = dtype or torch.float32
    if isinstance(value, PackedMatrix):
        return value.unpacked(wanted)
    library = _library(value)
    if library == "torchao":
        found: Tensor = value.dequantize()
    elif library == "bitsandbytes":
        from transformers.integrations.bitsandbytes import dequantize_bnb_weight

        found = dequantize_bnb_weight(value, getattr(owner, "state", None))
    else:
        raise TypeError(f"a {type(value).__name__} of {value.dtype}")
    return found.detach().to(wanted).contiguous()


def unpack(root: Any, path: str, dtype: torch.dtype) -> None:
    """Replace the packed weight at a path by its numbers, for good."""
    where, _, name = path.rpartition(".")
    owner = root.get_submodule(where)
    if isinstance(getattr(owner, name), PackedMatrix):
        owner.unpack(name, dtype)
        return
    weight, bias = plain(owner, name, dtype), owner.bias
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    linear.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        linear.bias = nn.Parameter(bias.detach().to(dtype), requires_grad=False)
    root.set_submodule(where, linear.eval())
