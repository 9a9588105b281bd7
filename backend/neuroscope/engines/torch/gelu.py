"""GELU's tanh form where transformers spells it out."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from transformers.activations import NewGELUActivation


class _Gelu(nn.Module):
    """GELU's tanh form in few passes over the array.

    ½ x (1 + tanh √(2/π)(x + 0.044715 x³)) is x σ(2 √(2/π)(x + 0.044715 x³)). torch's own kernel computes the tanh, which takes more than
    twice as long on a CPU; with gradients, and on other devices, it is the better one.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or (torch.is_grad_enabled() and x.requires_grad):
            return nn.functional.gelu(x, approximate="tanh")
        slope = 2 * math.sqrt(2 / math.pi)
        inner = (x * x).mul_(0.044715 * slope).add_(slope).mul_(x)
        return inner.sigmoid_().mul_(x)


def fuse(model: nn.Module) -> None:
    """GELU's tanh form where transformers spells it out, without its many passes: the same function to its last bits.

    Half precision is unchanged, since there every step rounds.
    """
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation):
                setattr(module, name, _Gelu())
