"""Path patching from one source into several receivers at once.

For the paths s → c₁, s → c₂ … the clean run is repeated with one change: the receivers c₁, c₂ … read the stream with s's
corrupt write instead of its clean one. Other readers of s do not change; later effects of the changed receivers are computed.
The decrease of the metric is the joint effect of these paths. With one receiver that is the effect of an edge
(`edge_patching`); into the logits alone it is the source's direct effect.

Source: Goldowsky-Dill et al. 2023, "Localizing Model Behavior with Path Patching"; Wang et al. 2022.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from neuroscope import events
from neuroscope.circuits.graph import Graph
from neuroscope.circuits.pair_runs import Numbers, PairRuns
from neuroscope.engines.protocol import Apply, Array, Edit, EditScope, Engine, Port
from neuroscope.engines.sites import Component, Site
from neuroscope.errors import CircuitError
from neuroscope.models.model import TransformerModel
from neuroscope.parallel.team import Team
from neuroscope.parallel.worker import kept
from neuroscope.tasks.pairs import PairBatch

_PROJECTED = (Component.QUERY, Component.KEY, Component.VALUE)
#: Tokens of a chunk of paths, where workers share them.
_TOKENS = 4096


@dataclass(frozen=True)
class Paths:
    """Edges out of one source, patched together. receivers: queries, keys, values of later heads, or the logits."""

    source: int
    receivers: tuple[int, ...]


class PathPatcher:
    """Patches paths on a batch of pairs, with stored clean and corrupt runs.

    clean: metric of each pair's clean run (rows,). gaps: that minus the corrupt run's (rows,). units: the units of each row.
    """

    def __init__(self, engine: Engine, pairs: PairBatch) -> None:
        self.graph = Graph.of(engine.anatomy)
        self.pairs = pairs
        self.units = pairs.units or None
        chunk = max(1, engine.rows_that_fit(pairs.clean.positions) // 2)
        self._parts = [_Part(self.graph, PairRuns(engine, part)) for part in pairs.chunks(chunk)]
        self.clean: Numbers = np.concatenate([part.runs.clean.metric for part in self._parts])
        self.gaps: Numbers = np.concatenate([part.runs.clean.metric - part.runs.corrupt.metric for part in self._parts])

    def falls(self, patched: Sequence[Paths], team: Team | None = None) -> Numbers:
        """The decrease of the metric (paths, rows) with each of `patched`.

        team: the workers among whom the paths are shared out, unless the metric is a function; None: this thread computes all. Raises
        `CircuitError` for a receiver that does not read the source, or an MLP's.
        """
        for one in patched:
            _check(self.graph, one)
        if team is not None and self.pairs.metric.function is None:
            return self._shared(patched, team)
        with events.progress("patching paths", total=len(patched) * len(self._parts), unit="paths") as job:
            return np.concatenate([part.falls(patched, job.advance) for part in self._parts], axis=1)

    def _shared(self, patched: Sequence[Paths], team: Team) -> Numbers:
        """The paths in chunks of one first layer each, whose size depends on the pairs alone."""
        parts = self.pairs.without_reference().chunks(max(1, _TOKENS // self.pairs.clean.positions))
        layers = [_first_layer(self.graph, one) for one in patched]
        found = [np.zeros((len(patched), part.rows)) for part in parts]
        for mine, part in zip(found, parts, strict=True):
            size = max(1, _TOKENS // (part.clean.positions * part.rows))
            members = [[index for index, at in enumerate(layers) if at == layer] for layer in sorted(set(layers))]
            groups = [some[first : first + size] for some in members for first in range(0, len(some), size)]
            work = [(part, [patched[index] for index in group]) for group in groups]
            team.fill(mine, _fallen, groups, work, name="patching paths", unit="paths")
        return np.concatenate(found, axis=1)


def _fallen(model: TransformerModel, pairs: PairBatch, patched: Sequence[Paths]) -> Numbers:
    return kept(model, "path patcher", (pairs,), lambda: PathPatcher(model.engine, pairs)).falls(patched)


def _first_layer(graph: Graph, paths: Paths) -> int:
    """The first layer that reads; the number of layers for the logits."""
    return min(min(receiver // graph.receivers_per_layer, graph.layers) for receiver in paths.receivers)


def _check(graph: Graph, paths: Paths) -> None:
    for receiver in paths.receivers:
        site = graph.receiver_site(receiver)
        if site.component is Component.MLP_INPUT or not graph.valid[receiver, paths.source]:
            raise CircuitError(
                f"There is no path to patch from {graph.source_site(paths.source)} to {site}.",
                site=site,
                remedy="Receivers: queries, keys and values of later heads, and logits.",
            )
    if not paths.receivers:
        raise CircuitError(f"The paths out of {graph.source_site(paths.source)} have no receivers.")


class _Part:
    """The pairs that run together."""

    def __init__(self, graph: Graph, runs: PairRuns) -> None:
        self.graph, self.runs = graph, runs

    def falls(self, patched: Sequence[Paths], advance: Callable[[int], None]) -> Numbers:
        found = np.zeros((len(patched), self.runs.rows))
        fit = max(1, self.runs.engine.rows_that_fit(self.runs.positions) // self.runs.rows)
        by_layer: dict[int, list[int]] = {}
        for index, one in enumerate(patched):
            by_layer.setdefault(_first_layer(self.graph, one), []).append(index)
        for layer, members in sorted(by_layer.items()):
            for first in range(0, len(members), fit):
                group = members[first : first + fit]
                found[group] = self.runs.clean.metric - self._metric(layer, [patched[index] for index in group])
                advance(len(group))
        return found

    def _metric(self, layer: int, patched: Sequence[Paths]) -> Numbers:
        """(paths, rows), run from `layer` on."""
        differences = self._differences({one.source for one in patched})
        entry = self.runs.engine.ops.repeat(self.runs.clean.streams[layer], len(patched))
        edits: list[Edit] = []
        for at in range(layer, self.graph.layers):
            edits += _Reads(self.graph, self.runs, at, patched, differences).edits()
        direct = {index: one.source for index, one in enumerate(patched) if self.graph.logits in one.receivers}

        def at_logits(value: Array, _: EditScope | None = None) -> Array:
            value = self.runs.engine.ops.copy(value)
            for index, source in direct.items():
                value[_group(self.runs, index)] -= differences[source]
            return value

        if layer == self.graph.layers:
            entry = at_logits(entry)
        elif direct:
            edits.append(Edit(Site(self.graph.layers - 1, Component.RESIDUAL), at_logits))
        return self.runs.again(len(patched), residual=entry, start=layer, edits=edits)

    def _differences(self, sources: set[int]) -> dict[int, Array]:
        """Each source's write in the clean run minus that in the corrupt one (rows, positions, d_model)."""
        engine, clean, corrupt = self.runs.engine, self.runs.clean, self.runs.corrupt
        found: dict[int, Array] = {}
        heads: dict[int, list[int]] = {}
        for source in sources:
            site = self.graph.source_site(source)
            if site.layer is None:
                found[source] = clean.streams[0] - corrupt.streams[0]
            elif site.head is None:
                found[source] = clean.mlps[site.layer] - corrupt.mlps[site.layer]
            else:
                heads.setdefault(site.layer, []).append(site.head)
        for layer, members in heads.items():
            # Not the write of the outputs' difference: a quantised projection may not be linear.
            written = engine.head_writes(layer, clean.heads[layer]) - engine.head_writes(layer, corrupt.heads[layer])
            for head in members:
                found[self.graph.head(layer, head)] = written[:, :, head]
        return found


class _Reads:
    """One layer's queries, keys and values that read a changed stream, each in the rows of its paths."""

    def __init__(
        self, graph: Graph, runs: PairRuns, layer: int, patched: Sequence[Paths], differences: dict[int, Array]
    ) -> None:
        self.runs, self.layer, self.differences = runs, layer, differences
        self.stream: Array | None = None
        #: kind → (index of the paths, their source, head that reads)
        self.readers: dict[Component, list[tuple[int, int, int]]] = {}
        for kind in _PROJECTED:
            rows = graph.rows(layer, kind)
            for index, one in enumerate(patched):
                for receiver in one.receivers:
                    if rows.start <= receiver < rows.stop:
                        self.readers.setdefault(kind, []).append((index, one.source, receiver - rows.start))

    def edits(self) -> list[Edit]:
        if not self.readers:
            return []
        kept = Edit(Site(self.layer, Component.RESIDUAL_PRE), self._keep)
        return [kept, *(Edit(Site(self.layer, kind), self._read(kind)) for kind in self.readers)]

    def _keep(self, value: Array, _: EditScope) -> Array:
        self.stream = value
        return value

    def _read(self, kind: Component) -> Apply:
        engine = self.runs.engine

        def apply(value: Array, _: EditScope) -> Array:
            value = engine.ops.copy(value)
            for index, source, head in self.readers[kind]:
                mine = _group(self.runs, index)
                assert self.stream is not None
                read = engine.normalise(self.layer, Port.ATTENTION, self.stream[mine] - self.differences[source])
                value[mine, :, head] = engine.project_head(Site(self.layer, kind, head=head), read)
            return value

        return apply


def _group(runs: PairRuns, index: int) -> slice:
    return slice(index * runs.rows, (index + 1) * runs.rows)
