"""Running a circuit: the model in which every edge outside the circuit carries its corrupt activation.

With u_s the write of source s in this run and u'_s its write in the corrupt run, channel c reads

    x_c = (corrupt stream at c) + Σ over sources s with an edge s → c in the circuit of (u_s − u'_s)

so that the full graph gives the clean run, the empty one the corrupt run, and each channel has an input of its own
(Conmy et al. 2023; Hanna et al. 2024). The run goes through the model's own layers with the reads replaced.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from neuroscope.circuits.graph import Graph
from neuroscope.circuits.pairs import PairBatch
from neuroscope.circuits.reference import Numbers, Reference, metric_values, reference, with_reference
from neuroscope.models.engines.protocol import Array, BoolArray, Edit, EditScope, Engine, Port, TokenBatch
from neuroscope.models.sites import Component, Site
from neuroscope.tasks.metrics import PromptMetric


@dataclass
class _State:
    """One masked run in progress: what its sources wrote beyond the corrupt run, (sources, rows, positions, d_model)."""

    differences: Array


@dataclass(frozen=True)
class Removal:
    """An edge taken out of the circuit for one group of rows."""

    channel: int
    source: int


class MaskedModel:
    """Runs circuits on a batch of pairs, against the pairs' own corrupt run.

    `clean` and `corrupt` are the metric of each pair (rows,) in the two whole runs.
    """

    def __init__(self, engine: Engine, pairs: PairBatch) -> None:
        self.engine = engine
        self.graph = Graph.of(engine.anatomy)
        self.pairs = with_reference(engine, pairs)
        self._corrupt: Reference = reference(engine, self.pairs.corrupt, self.pairs.metric)
        clean = engine.forward(self.pairs.clean, logits=self.pairs.metric.request(self.pairs.clean))
        self.clean: Numbers = metric_values(engine, self.pairs.metric, clean.logits)
        self.corrupt: Numbers = self._corrupt.metric
        # What heads write is linear in their output up to a norm behind it, so the corrupt writes are kept once.
        self._head_writes = [engine.head_writes(layer, heads) for layer, heads in enumerate(self._corrupt.heads)]
        self._entry = engine.forward(
            self.pairs.clean, capture=[Site(None, Component.EMBEDDING)], stop=0, logits=None
        ).activations[Site(None, Component.EMBEDDING)]

    def metric(self, mask: BoolArray) -> Numbers:
        """The metric of each pair (rows,) when only the edges of `mask` (channels, sources) carry the clean run."""
        return self._run(mask)[0]

    def removals(self, mask: BoolArray, edges: Sequence[Removal]) -> Numbers:
        """The metric (edges, rows) of the circuit without each one of `edges` in turn.

        Edges into one layer run together as rows of a batch, from that layer on.
        """
        _, state = self._run(mask)
        found = np.zeros((len(edges), self.pairs.rows))
        by_layer: dict[int, list[int]] = {}
        for index, edge in enumerate(edges):
            by_layer.setdefault(min(int(edge.channel) // self.graph.channels_per_layer, self.graph.layers), []).append(index)
        fit = max(1, self.engine.rows_that_fit(self.pairs.clean.positions) // (4 * self.pairs.rows))
        for layer, members in by_layer.items():
            for first in range(0, len(members), fit):
                group = members[first : first + fit]
                found[group] = self._run_from(mask, state, layer, [edges[index] for index in group])
        return found

    def _run(self, mask: BoolArray) -> tuple[Numbers, _State]:
        rows, positions = self.pairs.clean.ids.shape
        state = _State(self.engine.ops.zeros((self.graph.sources, rows, positions, self.engine.anatomy.d_model)))
        state.differences[0] = self._entry - self._corrupt.streams[0]
        values = self._forward(mask, state, 0, self._entry, [], self.pairs.clean, self.pairs.metric)
        return values, state

    def _run_from(self, mask: BoolArray, base: _State, layer: int, edges: Sequence[Removal]) -> Numbers:
        """The metric (edges, rows) with one edge into `layer` removed per group of rows; layer = layers is the logits."""
        ops, times = self.engine.ops, len(edges)
        state = _State(ops.concatenate([base.differences] * times, 1))
        batch = self.pairs.clean.repeat(times)
        metric = self.pairs.metric.repeat(times, self.engine)
        if layer == self.graph.layers:
            entry = self._final(mask, state, edges)
        else:
            entry = ops.repeat(self._corrupt.streams[layer], times)
        return self._forward(mask, state, layer, entry, edges, batch, metric).reshape(times, -1)

    def _forward(
        self,
        mask: BoolArray,
        state: _State,
        start: int,
        entry: Array,
        removed: Sequence[Removal],
        batch: TokenBatch,
        metric: PromptMetric,
    ) -> Numbers:
        edits: list[Edit] = []
        for layer in range(start, self.graph.layers):
            edits += self._layer_edits(mask, state, layer, removed, max(1, len(removed)))
        run = self.engine.forward(batch, edits=edits, start=start, residual=entry, logits=metric.request(batch))
        return metric_values(self.engine, metric, run.logits)

    def _layer_edits(
        self, mask: BoolArray, state: _State, layer: int, removed: Sequence[Removal], times: int
    ) -> list[Edit]:
        engine, graph, ops = self.engine, self.graph, self.engine.ops

        def read(component: Component, port: Port, stream: Array) -> Edit:
            def apply(_: Array, __: EditScope) -> Array:
                inputs = self._read(mask, state, graph.readable(layer, component), graph.rows(layer, component), stream, removed)
                normalised = engine.normalise(layer, port, inputs)
                return normalised[:, :, 0] if port is Port.MLP else engine.project(Site(layer, component), normalised)

            return Edit(Site(layer, component), apply)

        def record_heads(value: Array, _: EditScope) -> Array:
            writes = engine.head_writes(layer, value) - ops.repeat(self._head_writes[layer], times)
            first = graph.head(layer, 0)
            state.differences[first : first + graph.heads] = ops.transpose(writes, (2, 0, 1, 3))
            return value

        def record_mlp(value: Array, _: EditScope) -> Array:
            state.differences[graph.mlp(layer)] = value - ops.repeat(self._corrupt.mlps[layer], times)
            return value

        edits = [
            *(read(kind, Port.ATTENTION, self._corrupt.streams[layer]) for kind in (Component.QUERY, Component.KEY, Component.VALUE)),
            Edit(Site(layer, Component.HEAD_OUTPUT), record_heads),
            read(Component.MLP_INPUT, Port.MLP, self._corrupt.mids[layer]),
            Edit(Site(layer, Component.MLP_OUTPUT), record_mlp),
        ]
        if layer == graph.layers - 1:

            final = Site(layer, Component.RESIDUAL)
            edits.append(Edit(final, lambda _, __: self._final(mask, state, removed)))
        return edits

    def _final(self, mask: BoolArray, state: _State, removed: Sequence[Removal]) -> Array:
        """The residual stream (rows, positions, d_model) that the logits read."""
        rows = slice(self.graph.logits, self.graph.logits + 1)
        return self._read(mask, state, self.graph.sources, rows, self._corrupt.streams[-1], removed)[:, :, 0]

    def _read(
        self, mask: BoolArray, state: _State, readable: int, channels: slice, stream: Array, removed: Sequence[Removal]
    ) -> Array:
        """Inputs (rows, positions, channels, d_model) of some channels of one layer under the mask."""
        ops = self.engine.ops
        sources = state.differences[:readable]
        _, rows, positions, width = (int(size) for size in sources.shape)
        chosen = ops.asarray(mask[channels, :readable].astype(np.float32))
        count = int(chosen.shape[0])
        mixed = (chosen @ sources.reshape(readable, -1)).reshape(count, rows, positions, width)
        group = self.pairs.rows
        for index, edge in enumerate(removed):
            if channels.start <= edge.channel < channels.stop:
                mine = slice(index * group, (index + 1) * group)
                mixed[edge.channel - channels.start, mine] -= sources[edge.source, mine]
        times = max(1, len(removed))
        return ops.transpose(mixed, (1, 2, 0, 3)) + ops.repeat(stream, times)[:, :, None]
