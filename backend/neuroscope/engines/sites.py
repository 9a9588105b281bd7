"""Sites: the grammar for places in a model, independent of the framework.

    10.residual            the residual stream after layer 10
    5.headOutput[3]        head 3 of layer 5, before the output projection
    12.mlp[1043]           neuron 1043 of layer 12 (mixture of experts: expert · d_ff + neuron)
    7.attention@-1         what attention writes in layer 7, at the last token
    embedding, logits      places outside the layers

Layers, heads, neurons, experts and positions count from zero. A negative layer or position counts from the end.
The same text appears in Python, scripts, the wire protocol, circuit files and error messages.

TransformerLens' names (Nanda & Bloom 2022) work as well, alone or as hook names: `5.resid_post`, `5.z[3]`,
`blocks.5.attn.hook_z`.

>>> str(Site.parse("5.headOutput[3]@-1")), str(Site.parse("blocks.5.hook_resid_post"))
('5.headOutput[3]@-1', '5.residual')
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from neuroscope.engines.other_names import instead, rewritten
from neuroscope.errors import SiteError, did_you_mean
from neuroscope.naming import fold

if TYPE_CHECKING:
    from neuroscope.engines.anatomy import Anatomy


class Component(StrEnum):
    """Activations that can be read and written. Shapes are for a batch of `rows` × `positions` tokens."""

    EMBEDDING = "embedding"  # (rows, positions, d_model): the residual stream that enters layer 0
    RESIDUAL = "residual"  # (rows, positions, d_model): the residual stream after the layer
    RESIDUAL_PRE = "residualPre"  # (rows, positions, d_model): the residual stream before the layer
    MLP_READ = "mlpRead"  # (rows, positions, d_model): the stream as the MLP's norm reads it, after attention
    ATTENTION = "attention"  # (rows, positions, d_model): what attention adds to the stream
    MLP = "mlp"  # (rows, positions, neurons): neuron activations after the nonlinearity
    MLP_OUTPUT = "mlpOutput"  # (rows, positions, d_model): what the MLP adds to the stream
    QUERY = "query"  # (rows, positions, heads, d_head): before rotation
    KEY = "key"  # (rows, positions, key-value heads, d_head): before rotation
    VALUE = "value"  # (rows, positions, key-value heads, d_head)
    HEAD_OUTPUT = "headOutput"  # (rows, positions, heads, d_head): before the output projection
    ATTENTION_SCORES = "attentionScores"  # (rows, heads, positions, keys): scaled, before the mask
    ATTENTION_PATTERN = "attentionPattern"  # (rows, heads, positions, keys): after the softmax
    ROUTER = "router"  # (rows, positions, experts): weight of each expert, zero where not routed
    LAYER_NORM = "layerNorm"  # (rows, positions, d_model): the normalised input of attention
    MLP_INPUT = "mlpInput"  # (rows, positions, d_model): the normalised input of the MLP
    LOGITS = "logits"  # (rows, positions, vocabulary)

    def __str__(self) -> str:
        return self.value

    @classmethod
    def parse(cls, name: object) -> Component:
        """The component called `name`, ignoring case and underscores. Raises `SiteError` with the nearest names."""
        if isinstance(name, Component):
            return name
        found = _BY_NAME.get(fold(str(name)))
        if found is None and fold(str(name)) == "result":
            raise SiteError(
                "What each head adds to the stream is not a component.",
                site=str(name),
                remedy="Read headOutput (z), and multiply it by the weight attn.W_O.",
            )
        if found is None:
            raise SiteError(
                f"There is no component {str(name)!r}.",
                site=str(name),
                remedy=did_you_mean(str(name), [c.value for c in cls], listing="Components"),
            )
        return found


#: Their names in TransformerLens.
TRANSFORMER_LENS = {
    "resid_pre": Component.RESIDUAL_PRE,
    "resid_mid": Component.MLP_READ,
    "resid_post": Component.RESIDUAL,
    "attn_out": Component.ATTENTION,
    "mlp_out": Component.MLP_OUTPUT,
    "mlp_post": Component.MLP,
    "z": Component.HEAD_OUTPUT,
    "q": Component.QUERY,
    "k": Component.KEY,
    "v": Component.VALUE,
    "attn_scores": Component.ATTENTION_SCORES,
    "pattern": Component.ATTENTION_PATTERN,
}
_BY_NAME = {fold(component.value): component for component in Component} | {
    fold(name): component for name, component in TRANSFORMER_LENS.items()
}

GLOBAL = frozenset({Component.EMBEDDING, Component.LOGITS})
PER_HEAD = frozenset({Component.QUERY, Component.HEAD_OUTPUT, Component.ATTENTION_SCORES, Component.ATTENTION_PATTERN})
PER_KEY_VALUE_HEAD = frozenset({Component.KEY, Component.VALUE})
ATTENTION_MATRICES = frozenset({Component.ATTENTION_SCORES, Component.ATTENTION_PATTERN})

_SITE = re.compile(
    r"\s*(?:(?P<layer>-?\d+)\s*\.)?\s*(?P<component>[A-Za-z_]+)\s*(?:\[\s*(?P<index>\d+)\s*\])?\s*(?:@\s*(?P<position>-?\d+))?\s*"
)


@dataclass(frozen=True)
class Site:
    """A place in a model. `head` selects in per-head components, `neuron` in those with a width, `position` in any."""

    layer: int | None
    component: Component
    head: int | None = None
    neuron: int | None = None
    position: int | None = None

    @classmethod
    def at(
        cls,
        layer: int | None,
        component: str | Component,
        *,
        head: int | None = None,
        neuron: int | None = None,
        position: int | None = None,
    ) -> Site:
        """A site from plain values; any spelling of the component."""
        return cls(layer, Component.parse(component), head, neuron, position)

    @classmethod
    def parse(cls, text: str | Site) -> Site:
        """Read the grammar of this module. Raises `SiteError` that quotes the text."""
        if isinstance(text, Site):
            return text
        if not isinstance(text, str):
            raise SiteError(f"{text!r:.60} is not a site.", site=str(text), remedy="Give a text: '5.headOutput[3]@-1'.")
        match = _SITE.fullmatch(rewritten(text))
        if match is None or instead(text) is not None:
            raise SiteError(
                f"{text!r} is not a site.",
                site=text,
                remedy=instead(text)
                or "Write layer.component, with optional [head or neuron] and @position: 5.headOutput[3]@-1",
            )
        component = Component.parse(match["component"])
        layer = None if match["layer"] is None else int(match["layer"])
        index = None if match["index"] is None else int(match["index"])
        position = None if match["position"] is None else int(match["position"])
        per_head = component in PER_HEAD or component in PER_KEY_VALUE_HEAD
        return cls(layer, component, index if per_head else None, None if per_head else index, position)

    def __str__(self) -> str:
        index = self.head if self.head is not None else self.neuron
        text = self.component.value if self.layer is None else f"{self.layer}.{self.component.value}"
        text += "" if index is None else f"[{index}]"
        return text if self.position is None else f"{text}@{self.position}"

    @property
    def whole(self) -> Site:
        """The same component without head, neuron and position."""
        return Site(self.layer, self.component)

    def checked(self, anatomy: Anatomy) -> Site:
        """This site with a non-negative layer, with every part checked against the model.

        Raises `SiteError` that names what is out of range, and the range.
        """
        component = self.component
        if component in GLOBAL:
            if self.layer is not None:
                raise SiteError(f"{component} belongs to no layer.", site=self, remedy=f"Write {component}.")
            site = self
        else:
            site = replace(self, layer=anatomy.checked_layer(self.layer, self))
        if component is Component.ROUTER and not anatomy.experts:
            raise SiteError(
                f"{anatomy.architecture} has no router: its MLPs are dense.",
                site=self,
                remedy="Use mlp or mlpOutput.",
            )
        if self.head is not None:
            heads = anatomy.key_value_heads if component in PER_KEY_VALUE_HEAD else anatomy.heads
            if component not in PER_HEAD and component not in PER_KEY_VALUE_HEAD:
                raise SiteError(f"{component} has no heads.", site=self, remedy="headOutput, query, key and value have heads.")
            if not 0 <= self.head < heads:
                raise SiteError(
                    f"There is no head {self.head} of {component} in layer {site.layer}: the model has {heads}.",
                    site=self,
                    remedy=f"Heads of {component} run from 0 to {heads - 1}.",
                )
        if self.neuron is not None:
            width = anatomy.width(component)
            if width is None:
                raise SiteError(f"{component} is indexed by head, not by neuron.", site=self)
            if not 0 <= self.neuron < width:
                raise SiteError(
                    f"There is no unit {self.neuron} in {component}: it is {width} wide.",
                    site=self,
                    remedy=f"Units of {component} run from 0 to {width - 1}.",
                )
        return site


def real_cells(site: Site, real: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
    """Mask of the cells of a site's array that belong to real tokens, from that of positions: (rows, positions) →
    broadcastable.

    None if the site has a position, which is real in every row; of attention's matrices the keys may still be padding.
    """
    if site.position is not None:
        if site.component not in ATTENTION_MATRICES:
            return None
        return real if site.head is not None else real[:, None, :]
    if site.component in ATTENTION_MATRICES:
        matrix = real[:, :, None] & real[:, None, :]
        return matrix if site.head is not None else matrix[:, None]
    per_head = site.component in PER_HEAD or site.component in PER_KEY_VALUE_HEAD
    axes = 2 + (site.head is None and per_head) + (site.neuron is None)
    return real.reshape(*real.shape, *[1] * (axes - 2))
