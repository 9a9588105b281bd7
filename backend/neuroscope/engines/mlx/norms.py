"""Normalisations in closed form on MLX: see `torch_norms` for the equations and for half precision."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn

from neuroscope.engines.mlx.ops import wide


def norm_gradient(norm: Any, x: mx.array, gradient: mx.array) -> mx.array:
    """Gradients at x (rows, positions, d_model) from gradients (rows, positions, k, d_model) behind the norm."""
    centred = isinstance(norm, nn.LayerNorm)
    x = wide(x)
    if centred:
        x = x - x.mean(-1, keepdims=True)
    scale = mx.rsqrt(mx.square(x).mean(-1, keepdims=True) + norm.eps)
    unit = (x * scale)[:, :, None]
    found = wide(gradient) * wide(_weight(norm))
    along = (found @ unit.swapaxes(2, 3)) / x.shape[-1]
    if centred:
        found = found - found.mean(-1, keepdims=True)
    return (found - along * unit) * scale[:, :, None]


def rms_scale(norm: Any, x: mx.array) -> mx.array:
    """What RMSNorm multiplies x by, elementwise: (…, d_model)."""
    return mx.rsqrt(mx.square(wide(x)).mean(-1, keepdims=True) + norm.eps) * wide(_weight(norm))


def _weight(norm: Any) -> mx.array:
    # mlx-lm's own RMSNorm, which only Gemma uses, stores the weight's distance from one.
    return norm.weight if isinstance(norm, (nn.RMSNorm, nn.LayerNorm)) else norm.weight + 1
