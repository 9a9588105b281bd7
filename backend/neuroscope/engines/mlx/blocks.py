"""One decoder layer on MLX, run from mlx-lm's own modules so that every component passes through the run's taps.

mlx-lm's modules have no hooks. So a `Block` calls a layer's norms, projections, rotation and experts itself, in the layer's
order, and computes what lies between them (attention, the nonlinearity). Without taps it uses the same fused kernels as mlx-lm.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import mlx.core as mx
import mlx.nn as nn

from neuroscope.engines.anatomy import Anatomy
from neuroscope.engines.architectures import Architecture
from neuroscope.engines.layout import get_module
from neuroscope.engines.mlx.slots import ACTIVATIONS, HeadSlot
from neuroscope.engines.mlx.taps import MlxTaps
from neuroscope.engines.sites import Component

#: Runs layer `index` on a residual stream.
LayerCall = Callable[[int, mx.array], mx.array]


class KeyValues(Protocol):
    """Keys and values of earlier columns, (rows, key-value heads, columns, d_head) each."""

    def update(self, layer: int, key: mx.array, value: mx.array) -> tuple[mx.array, mx.array]: ...


@dataclass(frozen=True)
class Pass:
    """The arguments of every layer in one run, other than the residual stream.

    offset: token number of the first column, one number or one for each row.
    plain:  attention is computed without a fused kernel, so that gradients flow.
    """

    taps: MlxTaps
    masks: Sequence[mx.array | None]
    offset: int | mx.array
    cache: KeyValues | None
    plain: bool


class Block:
    """A layer of a model, with its parts looked up once."""

    def __init__(
        self, layer: Any, index: int, where: Architecture, slots: dict[Component, HeadSlot], anatomy: Anatomy, activation: str
    ) -> None:
        def part(path: str | None) -> Any:
            return None if path is None else get_module(layer, path)

        self.layer = layer
        self.index = index
        self.parallel = anatomy.parallel
        self.attention_norm, self.mlp_norm = part(where.attention_norm), part(where.mlp_norm)
        self.attention_write_norm, self.mlp_write_norm = part(where.attention_write_norm), part(where.mlp_write_norm)
        self.attention = part(where.attention)
        self.output_projection = part(where.output_projection)
        self.slots = slots
        self.projections = {slot.module: get_module(layer, slot.module) for slot in slots.values()}
        self.scale = score_scale(self.attention)
        self.softcap = getattr(self.attention, "attn_logit_softcapping", None)
        self.activation = ACTIVATIONS[activation]
        if where.moe:
            self.moe, self.experts_per_token = layer.mlp, anatomy.experts_per_token
        else:
            self.moe = None
            self.gate, self.up = part(where.gate_projection), part(where.up_projection)
            self.down = part(where.down_projection)

    @property
    def sinks(self) -> mx.array | None:
        """Each head's attention sink, if the architecture has them."""
        return self.attention.get("sinks")

    def __call__(self, x: mx.array, state: Pass) -> mx.array:
        """The residual stream (rows, columns, d_model) after the layer."""
        touch, index = state.taps.touch, self.index
        normed = touch(index, Component.LAYER_NORM, self.attention_norm(x))
        outputs = {path: module(normed) for path, module in self.projections.items()}
        query, key, value = (touch(index, c, slot.read(outputs[slot.module])) for c, slot in self.slots.items())
        heads = touch(index, Component.HEAD_OUTPUT, self._attend(query, key, value, state))
        written = self.output_projection(heads.flatten(-2))
        if self.attention_write_norm is not None:
            written = self.attention_write_norm(written)
        middle = x + touch(index, Component.ATTENTION, written)
        read = touch(index, Component.MLP_READ, x if self.parallel else middle)
        mlp_input = touch(index, Component.MLP_INPUT, self.mlp_norm(read))
        written = self._neurons(mlp_input, state.taps) if self.moe is None else self._experts(mlp_input, state.taps)
        if self.mlp_write_norm is not None:
            written = self.mlp_write_norm(written)
        return middle + touch(index, Component.MLP_OUTPUT, written)

    # --- attention -------------------------------------------------------------------------------------------------

    def _attend(self, query: mx.array, key: mx.array, value: mx.array, state: Pass) -> mx.array:
        """Head outputs (rows, columns, heads, d_head) from queries, keys and values of the same layout."""
        attention = self.attention
        if "q_norm" in attention:
            query, key = attention.q_norm(query), attention.k_norm(key)
        query, key, value = (array.transpose(0, 2, 1, 3) for array in (query, key, value))
        if "rope" in attention:
            query, key = attention.rope(query, offset=state.offset), attention.rope(key, offset=state.offset)
        if state.cache is not None:
            key, value = state.cache.update(self.index, key, value)
        mask = state.masks[self.index]
        taps = state.taps
        looked_into = taps.wants(self.index, Component.ATTENTION_SCORES) or taps.wants(self.index, Component.ATTENTION_PATTERN)
        if looked_into or self.softcap is not None or (state.plain and self.sinks is not None):
            out = self._explicit(query, key, value, mask, taps)
        else:
            causal = "causal" if query.shape[2] > 1 else None
            out = mx.fast.scaled_dot_product_attention(
                query, key, value, scale=self.scale, mask=causal if mask is None else mask, sinks=self.sinks
            )
        return out.transpose(0, 2, 1, 3)

    def _explicit(self, query: mx.array, key: mx.array, value: mx.array, mask: mx.array | None, taps: MlxTaps) -> mx.array:
        groups = query.shape[1] // key.shape[1]
        if groups > 1:
            key, value = mx.repeat(key, groups, axis=1), mx.repeat(value, groups, axis=1)
        scores = (query @ key.swapaxes(2, 3)) * self.scale
        if self.softcap is not None:
            scores = mx.tanh(scores / self.softcap) * self.softcap
        scores = taps.touch(self.index, Component.ATTENTION_SCORES, scores)
        queries, keys = scores.shape[2:]
        if mask is None and queries > 1:
            mask = mx.tri(queries, keys, keys - queries, dtype=mx.bool_)
        if mask is not None:
            scores = mx.where(mask, scores, mx.array(mx.finfo(scores.dtype).min, scores.dtype))
        if self.sinks is not None:
            sinks = mx.broadcast_to(self.sinks.reshape(1, -1, 1, 1), (*scores.shape[:3], 1))
            pattern = mx.softmax(mx.concatenate([scores, sinks], axis=-1), axis=-1, precise=True)[..., :-1]
        else:
            pattern = mx.softmax(scores, axis=-1, precise=True)
        return taps.touch(self.index, Component.ATTENTION_PATTERN, pattern) @ value

    # --- MLP -------------------------------------------------------------------------------------------------------

    def _neurons(self, x: mx.array, taps: MlxTaps) -> mx.array:
        if self.gate is None:
            neurons = self.activation(self.up(x))
        else:
            gate, up = mx.split(self.up(x), 2, axis=-1) if self.gate is self.up else (self.gate(x), self.up(x))
            neurons = self.activation(gate) * up
        return self.down(taps.touch(self.index, Component.MLP, neurons))

    def _experts(self, x: mx.array, taps: MlxTaps) -> mx.array:
        """Same as mlx-lm, but with dense arrays of router weights and neurons if a tap needs them."""
        logits = self.moe.router(x)
        count = logits.shape[-1]
        indices = largest(logits, self.experts_per_token)
        weights = mx.softmax(mx.take_along_axis(logits, indices, axis=-1), axis=-1, precise=True)
        if taps.wants(self.index, Component.ROUTER):
            dense = (weights[..., None] * _routed(indices, count, weights.dtype)).sum(-2)
            dense = taps.touch(self.index, Component.ROUTER, dense)
            # An edit may route a token to more experts than usual.
            used = max(self.experts_per_token, int((dense != 0).sum(-1).max()))
            indices = largest(mx.abs(dense), used)
            weights = mx.take_along_axis(dense, indices, axis=-1)
        if taps.wants(self.index, Component.MLP):
            outputs = self._expert_outputs(x, indices, count, taps)
        else:
            outputs = self.moe.experts(x, indices)
        return (outputs * weights[..., None]).sum(-2)

    def _expert_outputs(self, x: mx.array, indices: mx.array, count: int, taps: MlxTaps) -> mx.array:
        """(rows, columns, k, d_model), row by row: mlx-lm's own call sorts the rows by expert when there are many."""
        experts = self.moe.experts
        lone = x[..., None, None, :]
        active = experts.activation(experts.up_proj(lone, indices), experts.gate_proj(lone, indices)).squeeze(-2)
        hot = _routed(indices, count, active.dtype)
        neurons = taps.touch(self.index, Component.MLP, (hot.swapaxes(-1, -2) @ active).flatten(-2))
        shaped = mx.unflatten(neurons, -1, (count, active.shape[-1]))
        active = mx.take_along_axis(shaped, indices[..., None], axis=-2)
        return experts.down_proj(active[..., None, :], indices).squeeze(-2)


def largest(values: mx.array, k: int) -> mx.array:
    """Indices of the k largest along the last axis, in no order."""
    return mx.stop_gradient(mx.argpartition(-values, kth=k - 1, axis=-1)[..., :k])


def score_scale(attention: nn.Module) -> float:
    """The factor by which an attention module scales its scores."""
    return float(attention.sm_scale if hasattr(attention, "sm_scale") else attention.scale)


def _routed(indices: mx.array, count: int, dtype: mx.Dtype) -> mx.array:
    """One-hot experts: (…, k, experts)."""
    return (indices[..., None] == mx.arange(count)).astype(dtype)
