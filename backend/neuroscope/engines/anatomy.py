"""Anatomy: the sizes of a model, independent of the framework that runs it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import SupportsIndex

from neuroscope.engines.sites import Component
from neuroscope.errors import SiteError
from neuroscope.results import Result
from neuroscope.vocabulary import public, python_only


@public
@dataclass(frozen=True)
class Anatomy(Result):
    """The sizes of a decoder.

    `parallel`: attention and MLP of a layer read the same residual stream (GPT-NeoX), so no edge leads from a layer's heads to
    its MLP. `sliding_windows[l]` is the window of layer `l` in tokens, or None. For a mixture of experts `d_mlp` is the width
    of one expert, and the neurons of a layer are experts · d_mlp.
    """

    architecture: str
    layers: int
    heads: int
    key_value_heads: int
    d_model: int
    d_head: int
    d_mlp: int
    vocabulary: int
    context: int
    experts: int = 0
    experts_per_token: int = 0
    parallel: bool = False
    attention_sinks: bool = False
    sliding_windows: tuple[int | None, ...] = field(default=(), repr=False)

    @property
    def neurons(self) -> int:
        """Neurons of one layer, over all experts."""
        return self.d_mlp * max(self.experts, 1)

    @property
    def group(self) -> int:
        """Query heads that share one key-value head."""
        return self.heads // self.key_value_heads

    @python_only
    def width(self, component: Component) -> int | None:
        """Size of the last axis of `component`; None for components indexed by head."""
        if component in {Component.MLP}:
            return self.neurons
        if component is Component.ROUTER:
            return self.experts
        if component is Component.LOGITS:
            return self.vocabulary
        if component in {
            Component.QUERY,
            Component.KEY,
            Component.VALUE,
            Component.HEAD_OUTPUT,
            Component.ATTENTION_SCORES,
            Component.ATTENTION_PATTERN,
        }:
            return None
        return self.d_model

    @python_only
    def checked_layer(self, layer: SupportsIndex | None, site: object = None) -> int:
        """`layer` as a non-negative index. Raises `SiteError` if it is missing, not an integer, or out of range."""
        if isinstance(layer, bool) or not isinstance(layer, SupportsIndex):
            raise SiteError(f"A layer must be a whole number, not {layer!r}.", site=site, remedy=self._layer_range())
        layer = layer.__index__()
        if not -self.layers <= layer < self.layers:
            raise SiteError(f"There is no layer {layer}: the model has {self.layers}.", site=site, remedy=self._layer_range())
        return layer % self.layers

    def _layer_range(self) -> str:
        return f"Layers run from 0 to {self.layers - 1}."

    def print_string(self) -> str:
        moe = f", {self.experts} experts of which {self.experts_per_token} per token" if self.experts else ""
        return f"{self.architecture}: {self.layers} layers × {self.heads} heads, d_model {self.d_model}{moe}"
