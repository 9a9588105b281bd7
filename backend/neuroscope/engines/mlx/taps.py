"""Sites in a run of MLX layers, and their gradients.

MLX differentiates functions of arrays. So an array of zeros, which is an argument of the run, is added to a site: the gradient
with respect to the zeros is the gradient at the site.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import mlx.core as mx
import numpy as np

from neuroscope.engines.anatomy import Anatomy
from neuroscope.engines.protocol import IntArray
from neuroscope.engines.sites import ATTENTION_MATRICES, PER_HEAD, PER_KEY_VALUE_HEAD, Component, Site
from neuroscope.engines.taps import Taps


class MlxTaps(Taps):
    """`Taps` for MLX arrays. In a `differentiated` run, `shifts` are added to whole components, by (checked) site."""

    differentiated = False
    shifts: Mapping[Site, mx.array] = MappingProxyType({})

    def _as_index(self, ids: IntArray, value: mx.array) -> mx.array:
        return mx.array(ids)

    def _replaced(self, value: mx.array, where: tuple[Any, ...], new: mx.array) -> mx.array:
        value = mx.array(value)
        value[where] = new
        return value

    def _like(self, new: Any, old: mx.array) -> mx.array:
        array = new if isinstance(new, mx.array) else mx.array(np.asarray(new))
        return array.astype(old.dtype)

    def _watched(self, layer: int | None, component: Component, value: mx.array) -> mx.array:
        shift = self.shifts.get(Site(layer, component)) if self.differentiated else None
        return value if shift is None else value + shift


def shape_of(component: Component, anatomy: Anatomy, rows: int, columns: int, keys: int) -> tuple[int, ...]:
    """Shape of a component's array in a run of `columns` columns that see `keys` keys."""
    if component in ATTENTION_MATRICES:
        return rows, anatomy.heads, columns, keys
    if component in PER_KEY_VALUE_HEAD:
        return rows, columns, anatomy.key_value_heads, anatomy.d_head
    if component in PER_HEAD:
        return rows, columns, anatomy.heads, anatomy.d_head
    width = anatomy.width(component)
    assert width is not None
    return rows, columns, width
