"""Running a circuit: the model in which every edge outside the circuit carries its ablated activation.

With u_s the write of source s in this run and u'_s its write in the ablated run (by default the corrupt run), receiver c reads

    x_c = (ablated stream at c) + Σ over sources s with an edge s → c in the circuit of (u_s − u'_s)

so the full graph gives the clean run, the empty one the ablated run, and each receiver has its own input (Conmy et al. 2023;
Hanna et al. 2024). The model's own layers run with the reads replaced.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from neuroscope import events
from neuroscope.circuits.ablated import AblatedRun
from neuroscope.circuits.graph import Graph
from neuroscope.circuits.pair_runs import Numbers, PairRuns
from neuroscope.engines.protocol import Apply, Array, BoolArray, Edit, EditScope, Engine, IntArray, Port
from neuroscope.engines.sites import Component, Site
from neuroscope.models.model import TransformerModel
from neuroscope.parallel.team import Team
from neuroscope.parallel.worker import kept
from neuroscope.tasks.pairs import PairBatch

#: How much memory what the sources write may take in one run.
MEMORY, BYTES = 1 << 30, 4
#: Rows of a chunk of circuits, where workers share them.
_ROWS = 64
_PROJECTED = (Component.QUERY, Component.KEY, Component.VALUE)


@dataclass(frozen=True)
class Removal:
    """An edge removed from the circuit for one group of rows."""

    receiver: int
    source: int


class CircuitEvaluation:
    """Runs circuits on a batch of pairs, against an ablated run (`ablated.ABLATIONS`).

    `clean` and `empty` are the metric of each pair (rows,) in the clean run and in the circuit without edges. Many pairs run in
    parts that fit into memory; with the ablations `mean` and `resample` each part has its own ablated run. team: the workers among whom
    circuits are shared out, unless the metric is a function; None: this thread runs all.
    """

    def __init__(
        self, engine: Engine, pairs: PairBatch, *, ablation: str = "corrupt", seed: int = 0, team: Team | None = None
    ) -> None:
        self.engine = engine
        self.team = team
        self._how = ablation, seed
        self.graph = Graph.of(engine.anatomy)
        self.pairs = pairs
        row = self.graph.sources * pairs.clean.positions * engine.anatomy.d_model * BYTES
        self._parts = [_Part(engine, part, ablation, seed) for part in pairs.chunks(max(1, MEMORY // row))]
        self._known: dict[bytes, Numbers] = {}
        self.clean: Numbers = np.concatenate([part.runs.clean.metric for part in self._parts])
        self.empty: Numbers = np.concatenate([part.runs.corrupt.metric for part in self._parts])
        if ablation != "corrupt":
            self.empty = self.metric(np.zeros_like(self.graph.valid))

    def runs_of(self, rows: slice = slice(None)) -> list[PairRuns]:
        """The clean and corrupt runs of the pairs, or of some rows of them."""
        found, before = [], 0
        start, stop, _ = rows.indices(self.pairs.rows)
        for part in self._parts:
            mine = slice(max(start - before, 0), min(stop - before, part.runs.rows))
            if mine.start < mine.stop:
                found.append(part.runs.part(mine))
            before += part.runs.rows
        return found

    def metric(self, mask: BoolArray) -> Numbers:
        """The metric of each pair (rows,) if only the edges of `mask` (receivers, sources) carry the clean run."""
        return self.metrics([mask])[0]

    def metrics(self, masks: Sequence[BoolArray]) -> Numbers:
        """The metric (masks, rows) of several circuits, which run together as groups of rows of one batch.

        A circuit that was measured before does not run again. Raises `CircuitError` when the model's weights were changed since the
        pairs ran.
        """
        for part in self._parts:
            part.runs.check_weights()
        keys = [hashlib.blake2b(mask.tobytes(), digest_size=16).digest() for mask in masks]
        new = {key: mask for key, mask in zip(keys, masks, strict=True) if key not in self._known}
        if new:
            found = self._shared("metrics", list(new.values()))
            if found is None:
                found = np.concatenate([part.metrics(list(new.values())) for part in self._parts], axis=1)
            self._known.update(zip(new, found, strict=True))
        return np.stack([self._known[key] for key in keys])

    def without(self, subsets: Sequence[Sequence[int]]) -> Numbers:
        """The metric (subsets, rows) of the whole model with the nodes of a subset ablated.

        The same as the circuit of all edges that do not start at those nodes, at the cost of plain runs. The embedding cannot
        be ablated.
        """
        found = self._shared("without", subsets)
        return np.concatenate([part.without(subsets) for part in self._parts], axis=1) if found is None else found

    def removals(self, mask: BoolArray, edges: Sequence[Removal]) -> Numbers:
        """The metric (edges, rows) of the circuit without each of `edges` in turn.

        Edges into one layer run together as rows of a batch, from that layer on.
        """
        found = self._shared("removals", edges, mask)
        if found is not None:
            return found
        with events.progress("removing edges", total=len(edges) * len(self._parts), unit="edges") as job:
            return np.concatenate([part.removals(mask, edges, job.advance) for part in self._parts], axis=1)

    def _shared(self, method: str, items: Sequence[Any], *before: Any) -> Numbers | None:
        """A method's numbers (items, rows), the items in chunks whose size depends on the pairs alone; None if nobody shares the work."""
        if self.team is None or self.pairs.metric.function is not None or len(items) < 2:
            return None
        found = [np.zeros((len(items), part.runs.rows)) for part in self._parts]
        groups: list[Sequence[int]] = []
        for mine, part in zip(found, self._parts, strict=True):
            size = max(1, _ROWS // part.runs.rows)
            groups = [range(first, min(first + size, len(items))) for first in range(0, len(items), size)]
            pairs = part.runs.pairs.without_reference()
            work = [(pairs, *self._how, method, *before, [items[index] for index in group]) for group in groups]
            self.team.fill(mine, _measured, groups, work, name="measuring circuits", unit="circuits")
        return np.concatenate(found, axis=1)


def _measured(model: TransformerModel, pairs: PairBatch, ablation: str, seed: int, method: str, *arguments: Any) -> Numbers:
    def make() -> CircuitEvaluation:
        return CircuitEvaluation(model.engine, pairs, ablation=ablation, seed=seed)

    found: Numbers = getattr(kept(model, "circuit evaluation", (pairs, ablation, seed), make), method)(*arguments)
    return found


class _Part:
    """The pairs that run together: their two runs, and the ablated run."""

    def __init__(self, engine: Engine, pairs: PairBatch, ablation: str, seed: int) -> None:
        self.engine = engine
        self.graph = Graph.of(engine.anatomy)
        self.runs = PairRuns(engine, pairs, share_prefix=ablation == "corrupt")
        self.ablated = AblatedRun.of(self.runs, ablation, seed=seed)

    def metrics(self, masks: Sequence[BoolArray]) -> Numbers:
        size = self.graph.sources * self.runs.rows * self.runs.positions * self.engine.anatomy.d_model * BYTES
        fit = min(MEMORY // size, self._fitting)
        return np.concatenate([self.run(masks[first : first + fit])[0] for first in _steps(len(masks), fit)])

    def without(self, subsets: Sequence[Sequence[int]]) -> Numbers:
        removed = np.zeros((len(subsets), self.graph.sources), dtype=np.bool_)
        for row, nodes in zip(removed, subsets, strict=True):
            row[list(nodes)] = True
        fit = self._fitting
        return np.concatenate([self._run_without(removed[first : first + fit]) for first in _steps(len(removed), fit)])

    @property
    def _fitting(self) -> int:
        """Number of runs of all pairs that fit into one batch."""
        return max(1, self.engine.rows_that_fit(self.runs.positions) // (2 * self.runs.rows))

    def removals(self, mask: BoolArray, edges: Sequence[Removal], advance: Callable[[int], None]) -> Numbers:
        _, differences = self.run([mask])
        found = np.zeros((len(edges), self.runs.rows))
        by_layer: dict[int, list[int]] = {}
        for index, edge in enumerate(edges):
            by_layer.setdefault(min(edge.receiver // self.graph.receivers_per_layer, self.graph.layers), []).append(index)
        fit = self._fitting
        for layer, members in sorted(by_layer.items()):
            for first in range(0, len(members), fit):
                group = members[first : first + fit]
                found[group] = self._run_from(mask, differences, layer, [edges[index] for index in group])
                advance(len(group))
        return found

    def run(self, masks: Sequence[BoolArray]) -> tuple[Numbers, Written]:
        """The metric (masks, rows), and the sources' writes relative to the ablated run."""
        ops, times = self.engine.ops, len(masks)
        entry = ops.repeat(self.runs.clean.streams[0], times)
        circuit = CircuitRun(self.engine, self.ablated, masks)
        circuit.begin(entry)
        edits = [edit for layer in range(self.graph.layers) for edit in circuit.edits(layer)]
        return self.runs.again(times, residual=entry, edits=edits), circuit.written

    def _run_without(self, removed: BoolArray) -> Numbers:
        """The metric (groups, rows) with the sources removed (groups, sources) of each group of rows."""
        times, layers = len(removed), self.graph.layers
        by_layer = removed[:, 1:].reshape(times, layers, -1)
        edits = [edit for layer in range(layers) for edit in self._removing(layer, by_layer[:, layer])]
        first = min((edit.site.layer or 0 for edit in edits), default=layers - 1)
        entry = self.engine.ops.repeat(self.runs.clean.streams[first], times)
        return self.runs.again(times, residual=entry, start=first, edits=edits)

    def _removing(self, layer: int, removed: BoolArray) -> list[Edit]:
        """Edits that give heads and MLP removed (groups, heads + 1) their ablated writes."""
        engine, times = self.engine, len(removed)
        heads = np.flatnonzero(removed[:, :-1].any(0))
        outputs: list[Array] = []

        def keep(value: Array, _: EditScope) -> Array:
            outputs[:] = [value]
            return value

        def attention(value: Array, _: EditScope) -> Array:
            writes = engine.head_writes(layer, outputs[0], heads)
            grouped = writes.reshape(times, -1, *writes.shape[1:])
            beyond = self.ablated.heads[layer][:, :, engine.ops.asarray(heads)] - grouped
            change = (beyond * engine.ops.asarray(removed[:, None, None, heads, None].astype(np.float32))).sum(3)
            return engine.ops.wide(value) + change.reshape(value.shape)

        def mlp(value: Array, _: EditScope) -> Array:
            grouped = value.reshape(times, -1, *value.shape[1:])
            gone = engine.ops.asarray(removed[:, -1, None, None, None].astype(np.float32)) > 0
            return engine.ops.where(gone, self.ablated.mlps[layer][None], grouped).reshape(value.shape)

        found = []
        if len(heads):
            found += [Edit(Site(layer, Component.HEAD_OUTPUT), keep), Edit(Site(layer, Component.ATTENTION), attention)]
        if removed[:, -1].any():
            found.append(Edit(Site(layer, Component.MLP_OUTPUT), mlp))
        return found

    def _run_from(self, mask: BoolArray, before: Written, layer: int, removed: Sequence[Removal]) -> Numbers:
        """The metric (edges, rows) with one edge into `layer` removed per group of rows; layer = layers is the logits."""
        times = len(removed)
        masks = np.repeat(mask[None], times, axis=0)
        masks[np.arange(times), [edge.receiver for edge in removed], [edge.source for edge in removed]] = False
        circuit = CircuitRun(self.engine, self.ablated, masks)
        circuit.written = before.repeated(times, self.engine)
        if layer == self.graph.layers:
            entry = circuit.at_logits()
        else:
            entry = self.engine.ops.repeat(self.ablated.streams[layer], times)
        edits = [edit for later in range(layer, self.graph.layers) for edit in circuit.edits(later)]
        return self.runs.again(times, residual=entry, start=layer, edits=edits)


def _steps(count: int, at_once: int) -> range:
    return range(0, count, max(1, at_once))


@dataclass(frozen=True)
class Written:
    """Sources' writes relative to the ablated run: `values` (slots, rows, positions, d_model), wide, for sources that are read.

    slots: (sources,) index of a source's write; -1 for those that nothing reads.
    """

    slots: IntArray
    values: Array

    @classmethod
    def empty(cls, read: BoolArray, shape: Sequence[int], engine: Engine) -> Written:
        """Zeros for the sources that are read (sources,), in a run of `shape` (rows, positions, d_model)."""
        slots = np.where(read, np.cumsum(read) - 1, -1)
        return cls(slots, engine.ops.wide(engine.ops.zeros((int(read.sum()), *shape))))

    def repeated(self, times: int, engine: Engine) -> Written:
        return Written(self.slots, engine.ops.concatenate([self.values] * times, 1))


class CircuitRun:
    """One run of circuits: its edits replace every read and record every source's write relative to the ablated run.

    masks: a circuit for each group of rows (groups, receivers, sources). Only what some circuit uses is computed: a receiver
    without edges reads what it reads in the ablated run, and a source that nothing reads is not recorded. watched: somebody else
    looks into the run, so that the engine computes what no circuit reads, too.
    """

    def __init__(
        self, engine: Engine, ablated: AblatedRun, masks: Sequence[BoolArray] | BoolArray, *, watched: bool = False
    ) -> None:
        self.engine, self.ablated = engine, ablated
        self.masks: BoolArray = np.asarray(masks)
        self.graph = Graph.of(engine.anatomy)
        self.groups = len(self.masks)
        self._reading: BoolArray = np.asarray(self.masks.any((0, 2)))
        self._read_from: BoolArray = np.asarray(self.masks.any((0, 1)))
        self._read_from[0] = True
        self._watched = watched
        self.written: Written

    def begin(self, entry: Array) -> None:
        """Start with the embedding (rows, positions, d_model)."""
        ops = self.engine.ops
        shape = tuple(int(size) for size in entry.shape)
        self.written = Written.empty(self._read_from, shape, self.engine)
        self.written.values[0] = (self._grouped(ops.wide(entry)) - self.ablated.embedding).reshape(shape)

    def edits(self, layer: int) -> list[Edit]:
        """What makes the layer part of the run. Where no source of it is read, that is to compute none, unless it is watched."""
        heads, mlp = self._read_from[self.graph.head(layer, 0) : self.graph.mlp(layer)], self.graph.mlp(layer)
        everything = None if self._watched else np.ones(1, dtype=np.bool_)
        found = []
        if heads.any():
            inputs: dict[Component, Array] = {}
            for kind in _PROJECTED:
                found.append(Edit(Site(layer, kind), self._read_projected(layer, kind, inputs), unread=everything))
            found.append(Edit(Site(layer, Component.HEAD_OUTPUT), self._record_heads(layer, np.flatnonzero(heads))))
        elif not self._watched:
            found.append(Edit(Site(layer, Component.ATTENTION), _as_it_is, unread=everything))
        if self._read_from[mlp]:
            unread = None if self._watched else np.asarray(~self.masks[:, :, mlp].any(1))
            found.append(Edit(Site(layer, Component.MLP_INPUT), self._read_mlp(layer)))
            found.append(Edit(Site(layer, Component.MLP_OUTPUT), self._record_mlp(layer), unread=unread))
        elif not self._watched:
            found.append(Edit(Site(layer, Component.MLP_OUTPUT), _as_it_is, unread=everything))
        if layer == self.graph.layers - 1:
            found.append(Edit(Site(layer, Component.RESIDUAL), lambda _, __: self.at_logits()))
        return found

    def at_logits(self) -> Array:
        """The residual stream (rows, positions, d_model) that the logits read."""
        return self._read(self.graph.sources, np.array([self.graph.logits]), self.ablated.streams[-1])[0]

    def _attention_inputs(self, layer: int) -> dict[Component, Array]:
        """What the queries, keys and values of a layer that read something get, normalised; one product with all sources."""
        places = [self.graph.rows(layer, kind) for kind in _PROJECTED]
        reading = [rows.start + np.flatnonzero(self._reading[rows]) for rows in places]
        receivers = np.concatenate(reading)
        mixed = self._read(self.graph.readable(layer, Component.QUERY), receivers, self.ablated.streams[layer])
        mixed = self.engine.normalise(layer, Port.ATTENTION, mixed)
        ends = np.cumsum([len(mine) for mine in reading]).tolist()
        parts = zip(_PROJECTED, [0, *ends], ends, strict=False)
        return {kind: mixed[first:end] for kind, first, end in parts if first < end}

    def _read_projected(self, layer: int, kind: Component, inputs: dict[Component, Array]) -> Apply:
        """Replaces queries, keys or values by those of what they read. inputs: shared by the three, computed by the first of them."""
        site = Site(layer, kind)
        reading = np.flatnonzero(self._reading[self.graph.rows(layer, kind)])

        def apply(value: Array, _: EditScope) -> Array:
            ops, shape = self.engine.ops, tuple(int(size) for size in value.shape)
            everyone = len(reading) == shape[2]
            if len(reading):
                if kind not in inputs:
                    inputs.update(self._attention_inputs(layer))
                found = self.engine.project(site, inputs.pop(kind), None if everyone else reading)
                if everyone:
                    return found
            rest = (self.groups, shape[0] // self.groups, *shape[1:])
            whole = (ops.zeros(rest) + self.ablated.projected(self.engine, site)).reshape(shape)
            if len(reading):
                whole[:, :, ops.asarray(reading)] = found
            return whole

        return apply

    def _read_mlp(self, layer: int) -> Apply:
        kind = Component.MLP_INPUT
        receiver = np.array([self.graph.receiver(layer, kind)])

        def apply(_: Array, __: EditScope) -> Array:
            inputs = self._read(self.graph.readable(layer, kind), receiver, self.ablated.mids[layer])
            return self.engine.normalise(layer, Port.MLP, inputs[0])

        return apply

    def _record_heads(self, layer: int, heads: IntArray) -> Apply:
        ops, graph = self.engine.ops, self.graph
        everyone = len(heads) == graph.heads

        def apply(value: Array, _: EditScope) -> Array:
            writes = self.engine.head_writes(layer, value, None if everyone else heads)
            ablated = self.ablated.heads[layer]
            beyond = self._grouped(writes) - (ablated if everyone else ablated[:, :, ops.asarray(heads)])
            first = int(self.written.slots[graph.head(layer, int(heads[0]))])
            by_head = ops.transpose(beyond.reshape(writes.shape), (2, 0, 1, 3))
            self.written.values[first : first + len(heads)] = by_head
            return value

        return apply

    def _record_mlp(self, layer: int) -> Apply:
        ops = self.engine.ops

        def apply(value: Array, _: EditScope) -> Array:
            beyond = self._grouped(ops.wide(value)) - ops.wide(self.ablated.mlps[layer])
            self.written.values[int(self.written.slots[self.graph.mlp(layer)])] = beyond.reshape(value.shape)
            return value

        return apply

    def _grouped(self, value: Array) -> Array:
        """(rows, …) as (groups, rows of one circuit, …), which the ablated run broadcasts to."""
        return value.reshape(self.groups, int(value.shape[0]) // self.groups, *value.shape[1:])

    def _read(self, readable: int, receivers: IntArray, stream: Array) -> Array:
        """Inputs (receivers, rows, positions, d_model) of some receivers of one layer under the masks."""
        ops, groups, count = self.engine.ops, self.groups, len(receivers)
        _, rows, positions, width = (int(size) for size in self.written.values.shape)
        masks = self.masks[:, receivers, :readable]
        used = np.flatnonzero(masks.any((0, 1)))
        shape = (groups, count, rows // groups, positions, width)
        if len(used):
            slots = self.written.slots[used]
            first, last = int(slots[0]), int(slots[-1]) + 1
            weights = np.zeros((groups, count, last - first), dtype=np.float32)
            sources = self.written.values[first:last]
            if len(used) > (last - first) // 2:
                weights[:, :, slots - first] = masks[:, :, used]
            else:
                weights, sources = masks[:, :, used].astype(np.float32), self.written.values[ops.asarray(slots)]
            by_group = ops.transpose(sources.reshape(int(sources.shape[0]), groups, -1), (1, 0, 2))
            mixed = (ops.wide(ops.asarray(weights)) @ by_group).reshape(shape)
            mixed += stream
        else:
            mixed = ops.wide(ops.zeros(shape)) + stream
        return ops.transpose(mixed, (1, 0, 2, 3, 4)).reshape(count, rows, positions, width)


def _as_it_is(value: Array, _: EditScope) -> Array:
    return value
