"""Exact edge patching: the truth that attribution approximates.

For an edge s → c the clean run is repeated with one change: channel c alone reads the stream with s's corrupt write in
place of its clean one. The fall of the metric is the edge's effect. Edges into one layer run as rows of one batch,
from that layer on.

Source: Goldowsky-Dill et al. 2023, "Localizing Model Behavior with Path Patching" (paths of a single edge).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from neuroscope import events
from neuroscope.circuits.attribution import source_differences
from neuroscope.circuits.graph import Graph
from neuroscope.circuits.pairs import PairBatch
from neuroscope.circuits.reference import Numbers, metric_values, reference, with_reference
from neuroscope.models.engines.protocol import Apply, Array, Edit, EditScope, Engine, Port
from neuroscope.models.sites import Component, Site


def edge_effects(engine: Engine, pairs: PairBatch, edges: Sequence[tuple[int, int]]) -> NDArray[np.float64]:
    """How much the metric falls (edges, rows) when each edge (channel, source) alone carries its corrupt write."""
    graph = Graph.of(engine.anatomy)
    pairs = with_reference(engine, pairs)
    clean = reference(engine, pairs.clean, pairs.metric)
    corrupt = reference(engine, pairs.corrupt, pairs.metric)
    rows, positions = pairs.clean.ids.shape
    shape = (graph.sources, rows, positions, engine.anatomy.d_model)
    differences = source_differences(engine, graph, clean, corrupt).reshape(*shape)
    by_layer: dict[int, list[int]] = {}
    edges = [(int(channel), int(source)) for channel, source in edges]
    for index, (channel, _) in enumerate(edges):
        by_layer.setdefault(min(channel // graph.channels_per_layer, graph.layers), []).append(index)
    fit = max(1, engine.rows_that_fit(positions) // rows)
    found = np.zeros((len(edges), rows))
    with events.progress("patching edges", total=len(edges), unit="edges") as job:
        for layer in sorted(by_layer):
            for first in range(0, len(by_layer[layer]), fit):
                group = by_layer[layer][first : first + fit]
                patches = _Patches(engine, graph, differences, [edges[index] for index in group], rows)
                streams = (clean.streams[layer], clean.mids[layer] if layer < graph.layers else None)
                found[group] = clean.metric - patches.run(pairs, layer, *streams)
                job.advance(len(group))
    return found


class _Patches:
    """Some edges into one layer, each in a group of rows of its own."""

    def __init__(self, engine: Engine, graph: Graph, differences: Array, edges: Sequence[tuple[int, int]], rows: int) -> None:
        self.engine, self.graph, self.differences, self.edges, self.rows = engine, graph, differences, edges, rows

    def run(self, pairs: PairBatch, layer: int, stream: Array, middle: Array | None) -> Numbers:
        engine, times = self.engine, len(self.edges)
        batch, metric = pairs.clean.repeat(times), pairs.metric.repeat(times, engine)
        entry = engine.ops.repeat(stream, times)
        edits: list[Edit] = []
        if layer == self.graph.layers:
            for index in range(times):
                entry[self._group(index)] -= self.differences[self.edges[index][1]]
        else:
            edits = [Edit(Site(layer, kind), self._reader(layer, kind, stream)) for kind in self._kinds(layer)]
            if middle is not None and self._members(layer, Component.MLP_INPUT):
                edits.append(Edit(Site(layer, Component.MLP_INPUT), self._reader(layer, Component.MLP_INPUT, middle)))
        run = engine.forward(batch, edits=edits, start=layer, residual=entry, logits=metric.request(batch))
        return metric_values(engine, metric, run.logits).reshape(times, self.rows)

    def _kinds(self, layer: int) -> list[Component]:
        return [kind for kind in (Component.QUERY, Component.KEY, Component.VALUE) if self._members(layer, kind)]

    def _members(self, layer: int, kind: Component) -> list[int]:
        rows = self.graph.rows(layer, kind)
        return [index for index, (channel, _) in enumerate(self.edges) if rows.start <= channel < rows.stop]

    def _group(self, index: int) -> slice:
        return slice(index * self.rows, (index + 1) * self.rows)

    def _reader(self, layer: int, kind: Component, stream: Array) -> Apply:
        engine = self.engine
        port = Port.MLP if kind is Component.MLP_INPUT else Port.ATTENTION
        first = self.graph.rows(layer, kind).start

        def apply(value: Array, _: EditScope) -> Array:
            value = engine.ops.copy(value)
            for index in self._members(layer, kind):
                channel, source = self.edges[index]
                read = engine.normalise(layer, port, stream - self.differences[source])
                if port is Port.MLP:
                    value[self._group(index)] = read
                else:
                    head = channel - first
                    value[self._group(index), :, head] = engine.project_head(Site(layer, kind, head=head), read)
            return value

        return apply
