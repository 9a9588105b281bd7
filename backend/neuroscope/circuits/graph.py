"""The computational graph of a decoder, and circuits as sets of its edges.

Sources write to the residual stream: the embedding, each attention head, each MLP (or block of experts). Receivers
read it: the query of each head, the key and the value of each key-value head, each MLP, and the logits. An edge leads
from a source to a later receiver. With grouped queries a key or value receiver serves all heads of its group, as it
does in the model.

Order of sources: embedding, then per layer its heads and its MLP. Order of receivers: per layer queries, keys, values,
MLP; then the logits. Nodes and receivers are named by the site grammar: `5.headOutput[3]` → `7.query[1]`.

Source of the edge view: Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits".
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from neuroscope.engines.anatomy import Anatomy
from neuroscope.engines.protocol import BoolArray, IntArray
from neuroscope.engines.sites import Component, Site
from neuroscope.errors import CircuitError


@dataclass(frozen=True)
class Graph:
    """Sources, receivers and the edges between them, for one anatomy."""

    layers: int
    heads: int
    key_value_heads: int
    parallel: bool

    @classmethod
    def of(cls, anatomy: Anatomy) -> Graph:
        return cls(anatomy.layers, anatomy.heads, anatomy.key_value_heads, anatomy.parallel)

    @property
    def sources(self) -> int:
        return 1 + self.layers * (self.heads + 1)

    @property
    def receivers_per_layer(self) -> int:
        return self.heads + 2 * self.key_value_heads + 1

    @property
    def receivers(self) -> int:
        return self.layers * self.receivers_per_layer + 1

    @property
    def edges(self) -> int:
        return int(self.valid.sum())

    def sources_before(self, layer: int) -> int:
        """How many sources write before layer `layer`."""
        return 1 + layer * (self.heads + 1)

    def head(self, layer: int, head: int) -> int:
        """Index of a head as source."""
        return self.sources_before(layer) + head

    def mlp(self, layer: int) -> int:
        """Index of an MLP as source."""
        return self.sources_before(layer) + self.heads

    def receiver(self, layer: int, component: Component, head: int = 0) -> int:
        """Index of a receiver: QUERY, KEY or VALUE of a head, or MLP_INPUT."""
        first = {
            Component.QUERY: 0,
            Component.KEY: self.heads,
            Component.VALUE: self.heads + self.key_value_heads,
            Component.MLP_INPUT: self.heads + 2 * self.key_value_heads,
        }[component]
        return layer * self.receivers_per_layer + first + head

    @property
    def logits(self) -> int:
        return self.receivers - 1

    def rows(self, layer: int, component: Component) -> slice:
        """The receivers of one component of a layer."""
        count = {Component.QUERY: self.heads, Component.MLP_INPUT: 1}.get(component, self.key_value_heads)
        first = self.receiver(layer, component)
        return slice(first, first + count)

    def readable(self, layer: int, component: Component) -> int:
        """How many sources a receiver of this layer can read."""
        before = self.sources_before(layer)
        return before + self.heads if component is Component.MLP_INPUT and not self.parallel else before

    @functools.cached_property
    def valid(self) -> BoolArray:
        """(receivers, sources): where an edge exists. The one array; do not write to it."""
        valid = np.zeros((self.receivers, self.sources), dtype=np.bool_)
        for layer in range(self.layers):
            for component in (Component.QUERY, Component.KEY, Component.VALUE, Component.MLP_INPUT):
                valid[self.rows(layer, component), : self.readable(layer, component)] = True
        valid[self.logits] = True
        valid.setflags(write=False)
        return valid

    def source_site(self, source: int) -> Site:
        """The site that a source writes from."""
        if source == 0:
            return Site(None, Component.EMBEDDING)
        layer, index = divmod(source - 1, self.heads + 1)
        if index == self.heads:
            return Site(layer, Component.MLP_OUTPUT)
        return Site(layer, Component.HEAD_OUTPUT, head=index)

    def receiver_site(self, receiver: int) -> Site:
        """The site that a receiver reads into."""
        if receiver == self.logits:
            return Site(None, Component.LOGITS)
        layer, index = divmod(receiver, self.receivers_per_layer)
        if index < self.heads:
            return Site(layer, Component.QUERY, head=index)
        index -= self.heads
        if index < 2 * self.key_value_heads:
            component = Component.KEY if index < self.key_value_heads else Component.VALUE
            return Site(layer, component, head=index % self.key_value_heads)
        return Site(layer, Component.MLP_INPUT)

    def source_of(self, site: Site) -> int:
        """Index of the source at a site; `CircuitError` when it is none."""
        if site.component is Component.EMBEDDING:
            return 0
        if site.layer is not None and 0 <= site.layer < self.layers:
            if site.component is Component.MLP_OUTPUT:
                return self.mlp(site.layer)
            if site.component is Component.HEAD_OUTPUT and site.head is not None and 0 <= site.head < self.heads:
                return self.head(site.layer, site.head)
        raise CircuitError(
            f"{site} is no source of the graph.", site=site, remedy="Sources: embedding, L.headOutput[H], L.mlpOutput."
        )

    def receiver_of(self, site: Site) -> int:
        """Index of the receiver at a site; `CircuitError` when it is none."""
        if site.component is Component.LOGITS:
            return self.logits
        counts = {
            Component.QUERY: self.heads,
            Component.KEY: self.key_value_heads,
            Component.VALUE: self.key_value_heads,
            Component.MLP_INPUT: 1,
        }
        head = site.head or 0
        if site.layer is None or not 0 <= site.layer < self.layers or not 0 <= head < counts.get(site.component, 0):
            raise CircuitError(
                f"{site} is no receiver of the graph.",
                site=site,
                remedy="Receivers: L.query[H], L.key[K], L.value[K], L.mlpInput, logits.",
            )
        return self.receiver(site.layer, site.component, head)

    def node_receivers(self, source: int) -> IntArray:
        """The receivers through which a source reads; none for the embedding."""
        if source == 0:
            return np.zeros(0, dtype=np.int64)
        layer, index = divmod(source - 1, self.heads + 1)
        if index == self.heads:
            return np.array([self.receiver(layer, Component.MLP_INPUT)])
        shared = index // (self.heads // self.key_value_heads)
        return np.array(
            [
                self.receiver(layer, Component.QUERY, index),
                self.receiver(layer, Component.KEY, shared),
                self.receiver(layer, Component.VALUE, shared),
            ]
        )

    def pruned(self, mask: BoolArray) -> BoolArray:
        """`mask` without edges that lie on no path from the embedding to the logits.

        Such an edge carries nothing: either its source reads only corrupt activations, or nobody reads what it feeds.
        """
        mask = mask & self.valid
        alive = np.zeros(self.sources, dtype=np.bool_)
        alive[0] = True
        for layer in range(self.layers):  # heads of a layer do not read each other; its MLP may read them
            before, mlp = self.sources_before(layer), self.mlp(layer)
            first, last = self.receiver(layer, Component.QUERY), self.receiver(layer, Component.MLP_INPUT)
            query, key, value = np.split(
                (mask[first:last, :before] & alive[:before]).any(1), [self.heads, self.heads + self.key_value_heads]
            )
            alive[before:mlp] = query | np.repeat(key | value, self.heads // self.key_value_heads)
            alive[mlp] = bool((mask[last, :mlp] & alive[:mlp]).any())
        read = np.zeros(self.receivers, dtype=np.bool_)
        read[self.logits] = True
        for layer in reversed(range(self.layers)):
            first, last = self.receiver(layer, Component.QUERY), self.receiver(layer, Component.MLP_INPUT)
            before, mlp = self.sources_before(layer), self.mlp(layer)
            read[last] = bool((mask[last + 1 :, mlp] & read[last + 1 :]).any())
            heads = (mask[last:, before:mlp] & read[last:, None]).any(0)
            shared = heads.reshape(self.key_value_heads, -1).any(1)
            read[first:last] = np.concatenate([heads, shared, shared])
        return mask & alive[None, :] & read[:, None]

    def nodes(self, mask: BoolArray) -> list[int]:
        """Sources with an outgoing edge, without the embedding."""
        return [int(source) for source in np.flatnonzero(mask.any(0)) if source != 0]
