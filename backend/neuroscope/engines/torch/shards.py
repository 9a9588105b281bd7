"""Arrays of which each process of a group holds a part: joining and dividing them, with gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from neuroscope.engines.torch.ranks import Ranks
from neuroscope.errors import ArgumentError


class _Join(torch.autograd.Function):
    """Part → whole. The gradient of the whole is alike on all ranks, so each takes its part of it."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, axis: int, ranks: Ranks) -> Tensor:
        ctx.axis, ctx.ranks = axis, ranks
        return ranks.gathered(part, axis)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return ctx.ranks.part(gradients[0], ctx.axis).contiguous(), None, None


class _Divide(torch.autograd.Function):
    """Whole → part. Each rank has the gradient of its part, so the whole's is joined."""

    @staticmethod
    def forward(ctx: Any, whole: Tensor, axis: int, ranks: Ranks) -> Tensor:
        ctx.axis, ctx.ranks = axis, ranks
        return ranks.part(whole, axis).contiguous()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return ctx.ranks.gathered(gradients[0], ctx.axis), None, None


def joined(part: Tensor, axis: int, ranks: Ranks) -> Tensor:
    """The whole array of which each rank holds a part along an axis."""
    return _Join.apply(part, axis, ranks)  # type: ignore[no-untyped-call]


def divided(whole: Tensor, axis: int, ranks: Ranks) -> Tensor:
    """This rank's part of an array that is alike on all ranks."""
    return _Divide.apply(whole, axis, ranks)  # type: ignore[no-untyped-call]


# --- code of rank 0 alone --------------------------------------------------------------------------------------------


class _Entry(torch.autograd.Function):
    """On rank 0, what an edit reads: its gradient goes to the other ranks, which have not run the edit."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks = ranks
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return ctx.ranks.share(gradients[0]), None


class _Told(torch.autograd.Function):
    """On the other ranks, an edit: what it wrote and the gradient of what it read come from rank 0."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, ranks: Ranks, shape: tuple[int, ...]) -> Tensor:
        ctx.ranks, ctx.shape, ctx.dtype = ranks, value.shape, value.dtype
        return ranks.share(ranks.empty(shape, value.dtype))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return ctx.ranks.share(ctx.ranks.empty(ctx.shape, ctx.dtype)), None, None


def entry(value: Tensor, ranks: Ranks) -> Tensor:
    """On rank 0, the value for an edit to read; the value itself where no gradient flows."""
    if not (torch.is_grad_enabled() and value.requires_grad):
        return value
    return _Entry.apply(value, ranks)  # type: ignore[no-untyped-call]


def told(new: Tensor, read: Tensor, value: Tensor, ranks: Ranks) -> Tensor:
    """On rank 0, let the others go on with what an edit made, `new`, of what it `read`, the entry of `value`.

    Raises `ArgumentError` for an edit whose gradients go elsewhere than through what it read: the other ranks cannot follow them.
    """
    if new is read or new is value:
        ranks.answer(None)
        return value
    flows = torch.is_grad_enabled() and new.requires_grad and _flows(new, read)
    new = new if flows else new.detach()
    ranks.answer(tuple(new.shape), flows)
    ranks.share(new)
    return new


def heard(value: Tensor, ranks: Ranks) -> Tensor:
    """On the other ranks, what rank 0's edit makes of a value. Meanwhile they perform what the edit calls."""
    shape, *flows = ranks.listen()
    if shape is None:
        return value
    if flows[0]:
        return _Told.apply(value, ranks, shape)  # type: ignore[no-untyped-call]
    return ranks.share(ranks.empty(shape, value.dtype))


def _flows(new: Tensor, read: Tensor) -> bool:
    """Whether gradients pass from `new` to `read`."""
    found, seen, left = False, set(), [new.grad_fn]
    while left:
        node = left.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node is read.grad_fn:
            found = True
            continue
        if not node.next_functions and hasattr(node, "variable"):
            raise ArgumentError(
                "An edit's gradients must flow through the value that it gets, where a model is shared among processes.",
                remedy="Detach the other arrays it uses, or load the model without tp.",
            )
        left += [parent for parent, _ in node.next_functions]
    return found
