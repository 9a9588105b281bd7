"""Exact edge patching, which attribution approximates.

For an edge s → c the clean run is repeated with one change: receiver c reads the stream with s's ablated write (by default that
of the corrupt run) instead of its clean one. The decrease of the metric is the edge's effect. Edges into one layer run as rows
of one batch, from that layer on.

Source: Goldowsky-Dill et al. 2023, "Localizing Model Behavior with Path Patching" (paths of a single edge).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from neuroscope import events
from neuroscope.circuits.ablated import AblatedRun
from neuroscope.circuits.attribution import source_differences
from neuroscope.circuits.graph import Graph
from neuroscope.circuits.pair_runs import PairRuns
from neuroscope.engines.protocol import Apply, Array, Edit, EditScope, Engine, Port
from neuroscope.engines.sites import Component, Site
from neuroscope.tasks.pairs import PairBatch


def edge_effects(engine: Engine, pairs: PairBatch, edges: Sequence[tuple[int, int]]) -> NDArray[np.float64]:
    """The decrease of the metric (edges, rows) when each edge (receiver, source) alone carries its corrupt write."""
    runs = PairRuns(engine, pairs)
    return _effects(runs, AblatedRun.of(runs, "corrupt"), edges)


def every_edge_effect(runs: PairRuns, ablated: AblatedRun) -> NDArray[np.float64]:
    """The effect of every edge of the graph (receivers, sources), averaged over rows; zero where there is no edge."""
    graph = Graph.of(runs.engine.anatomy)
    edges = np.argwhere(graph.valid)
    found = np.zeros((graph.receivers, graph.sources))
    found[edges[:, 0], edges[:, 1]] = _effects(runs, ablated, edges.tolist()).mean(1)
    return found


def _effects(runs: PairRuns, ablated: AblatedRun, edges: Sequence[Sequence[int]]) -> NDArray[np.float64]:
    engine = runs.engine
    graph = Graph.of(engine.anatomy)
    shape = (graph.sources, runs.rows, runs.positions, engine.anatomy.d_model)
    differences = source_differences(graph, runs, ablated).reshape(*shape)
    edges = [(int(receiver), int(source)) for receiver, source in edges]
    by_layer: dict[int, list[int]] = {}
    for index, (receiver, _) in enumerate(edges):
        by_layer.setdefault(min(receiver // graph.receivers_per_layer, graph.layers), []).append(index)
    fit = max(1, engine.rows_that_fit(runs.positions) // runs.rows)
    found = np.zeros((len(edges), runs.rows))
    with events.progress("patching edges", total=len(edges), unit="edges") as job:
        for layer in sorted(by_layer):
            for first in range(0, len(by_layer[layer]), fit):
                group = by_layer[layer][first : first + fit]
                patches = _Patches(graph, runs, differences, [(edges[index][0], edges[index][1]) for index in group])
                found[group] = runs.clean.metric - patches.metric(layer)
                job.advance(len(group))
    return found


class _Patches:
    """Edges into one layer, each in its own group of rows."""

    def __init__(self, graph: Graph, runs: PairRuns, differences: Array, edges: Sequence[tuple[int, int]]) -> None:
        self.graph, self.runs, self.differences, self.edges = graph, runs, differences, edges

    def metric(self, layer: int) -> NDArray[np.float64]:
        """(edges, rows)"""
        clean, times = self.runs.clean, len(self.edges)
        entry = self.runs.engine.ops.repeat(clean.streams[layer], times)
        edits: list[Edit] = []
        if layer == self.graph.layers:
            for index, (_, source) in enumerate(self.edges):
                entry[self._group(index)] -= self.differences[source]
        else:
            for kind in (Component.QUERY, Component.KEY, Component.VALUE, Component.MLP_INPUT):
                stream = clean.mids[layer] if kind is Component.MLP_INPUT else clean.streams[layer]
                if self._members(layer, kind):
                    edits.append(Edit(Site(layer, kind), self._reader(layer, kind, stream)))
        return self.runs.again(times, residual=entry, start=layer, edits=edits)

    def _members(self, layer: int, kind: Component) -> list[int]:
        rows = self.graph.rows(layer, kind)
        return [index for index, (receiver, _) in enumerate(self.edges) if rows.start <= receiver < rows.stop]

    def _group(self, index: int) -> slice:
        return slice(index * self.runs.rows, (index + 1) * self.runs.rows)

    def _reader(self, layer: int, kind: Component, stream: Array) -> Apply:
        engine = self.runs.engine
        port = Port.MLP if kind is Component.MLP_INPUT else Port.ATTENTION
        first = self.graph.rows(layer, kind).start

        def apply(value: Array, _: EditScope) -> Array:
            value = engine.ops.copy(value)
            for index in self._members(layer, kind):
                receiver, source = self.edges[index]
                read = engine.normalise(layer, port, stream - self.differences[source])
                if port is Port.MLP:
                    value[self._group(index)] = read
                else:
                    head = receiver - first
                    value[self._group(index), :, head] = engine.project_head(Site(layer, kind, head=head), read)
            return value

        return apply
