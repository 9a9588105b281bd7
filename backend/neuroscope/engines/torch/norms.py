"""Normalisations in closed form: their scale, and how gradients pass back through them.

With x̂ = x · s (after centring, for LayerNorm), y = w x̂ + b and g = ∂m/∂y,

    ∂m/∂x = s (w g − x̂ mean(w g x̂))                for RMSNorm
    ∂m/∂x = s (w g − mean(w g) − x̂ mean(w g x̂))    for LayerNorm

which takes a few passes over g instead of the dozen of differentiating the module for each reader. Half precision is computed
in float32, and gradients stay in float32.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from neuroscope.engines.architectures import Architecture
from neuroscope.engines.torch.ops import wide
from neuroscope.errors import UnsupportedArchitectureError


def norm_gradient(norm: nn.Module, x: Tensor, gradient: Tensor, kind: Architecture) -> Tensor:
    """Gradients at x (rows, positions, d_model) from gradients (rows, positions, k, d_model) after the norm."""
    x = wide(x)
    if kind.layer_norm:
        x = x - x.mean(-1, keepdim=True)
    scale = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + _epsilon(norm))
    unit = (x * scale)[:, :, None]
    found = wide(gradient) * wide(_gain(norm, kind))
    along = (found @ unit.transpose(2, 3)) / x.shape[-1]
    if kind.layer_norm:
        found -= found.mean(-1, keepdim=True)
    found -= along * unit
    found *= scale[:, :, None]
    return found


def rms_scale(norm: nn.Module, x: Tensor, kind: Architecture) -> Tensor:
    """The factor by which RMSNorm scales x, elementwise: (…, d_model)."""
    scale = torch.rsqrt(wide(x).pow(2).mean(-1, keepdim=True) + _epsilon(norm))
    return scale * wide(_gain(norm, kind))


def _gain(norm: Any, kind: Architecture) -> Tensor:
    return norm.weight + kind.gain_shift if kind.gain_shift else norm.weight


def _epsilon(norm: Any) -> float:
    for name in ("variance_epsilon", "eps"):
        if hasattr(norm, name):
            return float(getattr(norm, name))
    raise UnsupportedArchitectureError(f"{type(norm).__name__} is an unknown kind of normalisation.")
