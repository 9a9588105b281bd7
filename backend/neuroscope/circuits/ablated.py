"""Ablations: what an edge outside a circuit carries instead of the clean activation.

`corrupt`   its source's write in the pair's corrupt run (Conmy et al. 2023)
`resample`  its source's write in the corrupt run of another pair, drawn at random (Chan et al. 2022)
`mean`      the mean of its source's writes, over all tokens of all corrupt runs (Wang et al. 2022)
`zero`      nothing

The streams that receivers read change accordingly: a stream is the sum of its sources' writes and the biases, which are not
ablated.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from neuroscope.circuits.graph import Graph
from neuroscope.circuits.pair_runs import PairRuns
from neuroscope.engines.protocol import Array, Engine, Port
from neuroscope.engines.sites import Component, Site
from neuroscope.errors import ArgumentError
from neuroscope.names import only

#: (sources, d_model)
Means = NDArray[np.float32]

ABLATIONS = ("corrupt", "mean", "zero", "resample")


@dataclass(frozen=True)
class AblatedRun:
    """Writes and streams of the ablated run, laid out as in `PairRuns`.

    embedding: (rows, positions, d_model). heads: per layer (rows, positions, heads, d_model). mlps: per layer.
    streams: before each layer, and after the last. mids: what each MLP's norm reads.
    """

    embedding: Array
    heads: list[Array]
    mlps: list[Array]
    streams: list[Array]
    mids: list[Array]
    _projected: dict[Site, Array] = field(default_factory=dict, repr=False)

    def projected(self, engine: Engine, site: Site) -> Array:
        """Queries, keys or values (rows, positions, heads, d_head) of a layer that reads the ablated run's stream."""
        if site not in self._projected:
            assert site.layer is not None
            stream = self.streams[site.layer]
            anatomy = engine.anatomy
            heads = anatomy.heads if site.component is Component.QUERY else anatomy.key_value_heads
            normalised = engine.normalise(site.layer, Port.ATTENTION, stream)
            self._projected[site] = engine.project(site, engine.ops.stack([normalised] * heads, 0))
        return self._projected[site]

    @classmethod
    def of(cls, runs: PairRuns, ablation: str, *, seed: int = 0) -> AblatedRun:
        """The ablated run of a kind. `mean` and `zero` need runs without a shared prefix."""
        engine, corrupt = runs.engine, runs.corrupt
        heads = [engine.head_writes(layer, found) for layer, found in enumerate(corrupt.heads)]
        plain = cls(corrupt.streams[0], heads, corrupt.mlps, corrupt.streams, corrupt.mids)
        if ablation == "corrupt":
            return plain
        if runs.first > 0:
            raise ArgumentError(f"The ablation {ablation} needs runs that share no prefix.")
        return plain._replaced(runs, ablation, seed)

    def _replaced(self, runs: PairRuns, ablation: str, seed: int) -> AblatedRun:
        ops, graph = runs.engine.ops, Graph.of(runs.engine.anatomy)
        real = ops.asarray(runs.pairs.corrupt.real.astype(np.float32))
        other = ops.asarray(derangement(runs.rows, seed))

        def instead(write: Array) -> Array:
            if ablation == "zero":
                return write * 0
            if ablation == "resample":
                return write[other]
            weights = real.reshape(*real.shape, *[1] * (len(write.shape) - 2))
            mean = (ops.wide(write) * weights).sum(0).sum(0) / ops.wide(real).sum()
            return write * 0 + mean

        embedding = instead(self.embedding)
        heads, mlps = [instead(write) for write in self.heads], [instead(write) for write in self.mlps]
        shift = embedding - self.embedding
        streams, mids = [self.streams[0] + shift], []
        for layer in range(graph.layers):
            attention = (heads[layer] - self.heads[layer]).sum(2)
            mids.append(self.mids[layer] + (shift if graph.parallel else shift + attention))
            shift = shift + attention + mlps[layer] - self.mlps[layer]
            streams.append(self.streams[layer + 1] + shift)
        return AblatedRun(embedding, heads, mlps, streams, mids)


def checked_ablation(name: str) -> str:
    """The ablation's name. Raises `ArgumentError` with the nearest names."""
    return only("ablation", ABLATIONS, listing="Ablations")[name]


def source_means(runs: PairRuns) -> Means:
    """The mean of every source's writes, over all real tokens of all corrupt prompts."""
    engine, corrupt = runs.engine, runs.corrupt
    graph = Graph.of(engine.anatomy)
    real = runs.pairs.corrupt.real
    found = np.zeros((graph.sources, engine.anatomy.d_model), dtype=np.float32)
    found[0] = engine.ops.to_numpy(corrupt.streams[0])[real].mean(0)
    for layer in range(graph.layers):
        first = graph.head(layer, 0)
        found[first : first + graph.heads] = engine.ops.to_numpy(engine.head_writes(layer, corrupt.heads[layer]))[real].mean(0)
        found[graph.mlp(layer)] = engine.ops.to_numpy(corrupt.mlps[layer])[real].mean(0)
    return found


def derangement(rows: int, seed: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """A random derangement of the rows: one cycle."""
    order = np.random.default_rng(seed).permutation(rows)
    other = np.empty(rows, dtype=np.int64)
    other[order] = np.roll(order, 1)
    return other
