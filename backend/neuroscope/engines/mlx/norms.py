"""Normalisations in closed form on MLX: see `engines.torch.norms` for the equations and for half precision."""

from __future__ import annotations

from typing import Any

import mlx.core as mx

from neuroscope.engines.architectures import Architecture
from neuroscope.engines.mlx.ops import wide


def norm_gradient(norm: Any, x: mx.array, gradient: mx.array, kind: Architecture) -> mx.array:
    """Gradients at x (rows, positions, d_model) from gradients (rows, positions, k, d_model) after the norm."""
    x = wide(x)
    if kind.layer_norm:
        x = x - x.mean(-1, keepdims=True)
    scale = mx.rsqrt(mx.square(x).mean(-1, keepdims=True) + norm.eps)
    unit = (x * scale)[:, :, None]
    found = wide(gradient) * wide(norm.weight + kind.gain_shift)
    along = (found @ unit.swapaxes(2, 3)) / x.shape[-1]
    if kind.layer_norm:
        found = found - found.mean(-1, keepdims=True)
    return (found - along * unit) * scale[:, :, None]


def rms_scale(norm: Any, x: mx.array, kind: Architecture) -> mx.array:
    """The factor by which RMSNorm scales x, elementwise: (…, d_model)."""
    return mx.rsqrt(mx.square(wide(x)).mean(-1, keepdims=True) + norm.eps) * wide(norm.weight + kind.gain_shift)
