"""Edge attribution patching with integrated gradients (EAP-IG), and plain EAP.

The score of an edge from source s to channel c estimates how much the metric m falls when c reads the corrupt output
of s instead of the clean one:

    score(s → c) = Σ over tokens of (s_clean − s_corrupt) · 1/K Σ_k ∂m/∂c at the input x_k
    x_k = x_corrupt + k/K (x_clean − x_corrupt),  k = 1 … K

c is the residual stream as that channel reads it, so gradients are taken at the channel and carried back through its
projection and its normalisation. K = 1 is EAP: one gradient, at the clean input.

1. Run clean and corrupt prompts; keep what every source writes, as differences (sources × tokens × d_model).
2. Run the K interpolated inputs as rows of one batch; differentiate the metric at all channels at once.
3. Layer by layer: gradients behind the projections → at the residual stream, averaged over the K inputs, contracted
   with the differences of all earlier sources in one matrix product. No source × channel array of vectors is kept.

Sources: Nanda 2023, "Attribution patching"; Syed et al. 2023 (EAP); Hanna et al. 2024, "Have Faith in
Faithfulness" (EAP-IG).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from neuroscope import events
from neuroscope.circuits.graph import Graph
from neuroscope.circuits.pairs import PairBatch
from neuroscope.circuits.reference import PairRuns
from neuroscope.errors import ArgumentError, NonFiniteActivationError
from neuroscope.models.engines.protocol import Array, Engine, Port
from neuroscope.models.sites import Component, Site

Scores = NDArray[np.float64]

_PROJECTED = (Component.QUERY, Component.KEY, Component.VALUE)


def edge_scores(engine: Engine, pairs: PairBatch, *, steps: int = 5) -> Scores:
    """Scores (channels, sources), averaged over pairs; zero where there is no edge. `steps` is K; 1 is plain EAP.

    Raises `ArgumentError` for fewer than one step, `NonFiniteActivationError` when a gradient is not finite.
    """
    if steps < 1:
        raise ArgumentError(f"Integrated gradients need at least one step, not {steps}.")
    graph = Graph.of(engine.anatomy)
    total = np.zeros((graph.channels, graph.sources))
    size = max(1, engine.rows_that_fit(pairs.clean.positions - pairs.shared_columns) // (4 * steps))
    with events.progress("attributing edges", total=pairs.rows, unit="pairs") as job:
        for chunk in pairs.chunks(size):
            total += _chunk_scores(graph, PairRuns(engine, chunk), steps)
            job.advance(chunk.rows)
    if not np.isfinite(total).all():
        raise NonFiniteActivationError("Some gradients are NaN or infinite.", remedy="Load the model in float32.")
    return total / pairs.rows


def source_differences(graph: Graph, runs: PairRuns) -> Array:
    """What each source writes in the clean run minus the corrupt run: (sources, rows · positions · d_model)."""
    engine, clean, corrupt = runs.engine, runs.clean, runs.corrupt
    parts = [_flat(clean.streams[0] - corrupt.streams[0])[None]]
    for layer in range(graph.layers):
        heads = engine.head_writes(layer, clean.heads[layer]) - engine.head_writes(layer, corrupt.heads[layer])
        parts += [_flat(heads[:, :, head])[None] for head in range(graph.heads)]
        parts.append(_flat(clean.mlps[layer] - corrupt.mlps[layer])[None])
    return engine.ops.concatenate(parts, 0)


def _chunk_scores(graph: Graph, runs: PairRuns, steps: int) -> Scores:
    engine, ops = runs.engine, runs.engine.ops
    differences = source_differences(graph, runs)
    low, high = runs.corrupt.streams[0], runs.clean.streams[0]
    inputs = ops.concatenate([low + (high - low) * ((k + 1) / steps) for k in range(steps)], 0)
    last = graph.layers - 1
    sites = [
        Site(layer, kind) for layer in range(graph.layers) for kind in (*_PROJECTED, Component.RESIDUAL_PRE, Component.MLP_READ)
    ] + [Site(last, Component.RESIDUAL)]
    found = runs.gradients(steps, residual=inputs, sites=sites)

    scores = np.zeros((graph.channels, graph.sources))
    for layer in range(graph.layers):
        stream = found.values[Site(layer, Component.RESIDUAL_PRE)]
        behind = [engine.project_gradient(Site(layer, kind), found.gradients[Site(layer, kind)]) for kind in _PROJECTED]
        at_stream = engine.normalise_gradient(layer, Port.ATTENTION, stream, ops.concatenate(behind, 2))
        first = graph.channel(layer, Component.QUERY)
        readable = graph.readable(layer, Component.QUERY)
        channels = slice(first, first + graph.heads + 2 * graph.key_value_heads)
        scores[channels, :readable] = _contract(engine, at_stream, differences[:readable], steps)

        at_stream = found.gradients[Site(layer, Component.MLP_READ)][:, :, None]
        readable = graph.readable(layer, Component.MLP_INPUT)
        rows = graph.rows(layer, Component.MLP_INPUT)
        scores[rows, :readable] = _contract(engine, at_stream, differences[:readable], steps)
    at_end = found.gradients[Site(last, Component.RESIDUAL)][:, :, None]
    scores[graph.logits] = _contract(engine, at_end, differences, steps)[0]
    return scores


def _contract(engine: Engine, gradients: Array, differences: Array, steps: int) -> Scores:
    """Gradients (steps · rows, positions, channels, d_model) against differences (sources, rows · positions · d_model)."""
    rows, positions, channels, width = (int(size) for size in gradients.shape)
    mean = gradients.reshape(steps, rows // steps, positions, channels, width).sum(0) / steps
    by_channel = engine.ops.transpose(mean, (2, 0, 1, 3)).reshape(channels, -1)
    return engine.ops.to_numpy(by_channel @ differences.T).astype(np.float64)


def _flat(array: Array) -> Array:
    return array.reshape(-1)
