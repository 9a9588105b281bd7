"""Scores for every edge of the graph: how much the metric would fall if the edge carried its ablated activation.

The score of an edge from source s to receiver c is the first-order estimate

    score(s → c) = Σ over tokens of (s_clean − s_baseline) · mean over inputs of ∂m/∂c

with c the residual stream as that receiver reads it: gradients are taken at the receiver and propagated back through its
projection and normalisation. The methods differ in the inputs at which they take gradients:

`eap`                  the clean prompt
`eap_ig`               K prompts between ablated and clean embedding, x_i = x_base + α_i (x_clean − x_base)
`eap_ig_activations`   for each source, the clean prompt with that source's write between ablated and clean
`exact`                none: every edge is patched (`edge_patching`)
`hybrid`               combines `eap_ig` and `exact`: see `_hybrid`
`auto`                 `hybrid` if the graph is small enough to patch every edge (`PATCHED`), else `eap_ig`

Gradients vanish at a saturated softmax or gate, for any number of steps; patching a single edge has no effect if another edge
compensates. Each of the two finds what the other misses.

α_1 … α_K sample the integral from ablated (0) to clean (1) by a rule:

`midpoint`   (i − ½)/K, with an error of O(1/K²); the others have O(1/K)
`hanna`      (i − 1)/K, as in the code of Hanna et al.
`paper`      i/K, as in their paper

1. Run clean and corrupt prompts; store the differences of every source's writes (sources × tokens × d_model).
2. Run the K inputs as rows of one batch; differentiate the metric at all receivers at once.
3. Layer by layer: gradients after the projections → at the residual stream, averaged over the K inputs, contracted with the
   differences of all earlier sources in one matrix product, without a source × receiver array of vectors.

Sources: Nanda 2023, "Attribution patching"; Syed et al. 2023 (EAP); Hanna et al. 2024, "Have Faith in
Faithfulness" (EAP-IG, on inputs and on activations); ensembles of scores: Mondorf et al. 2025.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroscope import events
from neuroscope.circuits.ablated import AblatedRun
from neuroscope.circuits.graph import Graph
from neuroscope.circuits.journal import Journal
from neuroscope.circuits.pair_runs import PairRuns
from neuroscope.engines.protocol import Array, Edit, EditScope, Engine, Gradients, Port
from neuroscope.engines.sites import Component, Site
from neuroscope.errors import ArgumentError, NonFiniteActivationError
from neuroscope.models.model import TransformerModel
from neuroscope.names import only
from neuroscope.parallel.team import Team
from neuroscope.tasks.pairs import PairBatch

Scores = NDArray[np.float64]

METHODS = ("auto", "eap_ig", "eap", "eap_ig_activations", "exact", "hybrid")
#: `auto` patches every edge if that takes at most this many runs: the graph's edges times the pairs.
PATCHED = 20_000
#: The sign of an exact effect is uncertain below this share of the largest one.
_SILENT = 0.01
#: Pairs of a chunk, and chunks between two saves of the journal, where workers share them.
_CHUNK, _WAVE = 4, 64
#: Position of the gradient in each of the K intervals from ablated to clean.
_PLACES = {"midpoint": 0.5, "hanna": 0.0, "paper": 1.0}
RULES = tuple(_PLACES)
_PROJECTED = (Component.QUERY, Component.KEY, Component.VALUE)


def checked_method(name: str) -> str:
    """The method's name in snake case. Raises `ArgumentError` with the nearest names."""
    return only("scoring method", METHODS, listing="Methods")[name]


def chosen_method(name: str, graph: Graph, pairs: int) -> str:
    """The method for a number of pairs: decides `auto`; returns any other name unchanged."""
    method = checked_method(name)
    if method != "auto":
        return method
    return "hybrid" if graph.edges * pairs <= PATCHED else "eap_ig"


def checked_rule(name: str) -> str:
    """The name of an integration rule. Raises `ArgumentError` with the nearest names."""
    return only("integration rule", RULES, listing="Rules")[name]


def path(rule: str, steps: int) -> list[float]:
    """α_1 … α_K of a rule. Raises `ArgumentError` for an unknown rule, and for fewer than one step."""
    if steps < 1:
        raise ArgumentError(f"Integrated gradients need at least one step, not {steps}.")
    return [(step + _PLACES[checked_rule(rule)]) / steps for step in range(steps)]


def edge_scores(
    engine: Engine,
    pairs: PairBatch,
    *,
    method: str = "auto",
    steps: int = 5,
    rule: str = "midpoint",
    ablation: str = "corrupt",
    seed: int = 0,
    runs: Sequence[PairRuns] = (),
    team: Team | None = None,
    journal: Journal | None = None,
) -> Scores:
    """Scores (receivers, sources), averaged over pairs; zero where there is no edge.

    method: one of `METHODS`. steps: K. rule: one of `RULES`. Both matter to integrated gradients only.
    runs: the clean and corrupt runs of these pairs where they are kept already, with a shared prefix for the ablation `corrupt` alone.
    With the ablations `mean` and `resample` the ablated run is that of the pairs which run together. team: the workers among whom the
    pairs are shared out, unless their metric is a function or their ablation one of those two; None: this thread computes all. journal:
    what has the sums of an earlier run, and gets those of this one. Raises `ArgumentError` for a method or a rule that does not exist
    and for fewer than one step, `NonFiniteActivationError` when a gradient is not finite.
    """
    graph, at = Graph.of(engine.anatomy), path(rule, steps)
    method = chosen_method(method, graph, pairs.rows)
    how = {"steps": steps, "rule": rule, "ablation": ablation, "seed": seed}
    if method == "hybrid":
        exact, gradients = (
            edge_scores(engine, pairs, method=each, **how, runs=runs, team=team, journal=journal)  # type: ignore[arg-type]
            for each in ("exact", "eap_ig")
        )
        return _hybrid(exact, gradients)
    if team is not None and pairs.metric.function is None and ablation in ("corrupt", "zero"):
        return _shared(team, pairs, {"method": method, **how}, journal)
    if method == "eap":
        at = [1.0]
    steps = len(at)
    done, total = _begun(journal, method, graph)
    with events.progress("attributing edges", total=pairs.rows, unit="pairs") as job:
        if done:
            job.advance(done)
        for part in _parts(engine, pairs, runs, steps, share_prefix=ablation == "corrupt", after=done):
            ablated = AblatedRun.of(part, ablation, seed=seed)
            if method == "exact":
                from neuroscope.circuits.edge_patching import every_edge_effect

                total += every_edge_effect(part, ablated) * part.rows
            elif method == "eap_ig_activations":
                total += _on_activations(graph, part, ablated, at)
            else:
                total += _on_inputs(graph, part, ablated, at)
            done += part.rows
            if journal is not None:
                journal.save(method, done, {"total": total})
            job.advance(part.rows)
    if not np.isfinite(total).all():
        raise NonFiniteActivationError("Some gradients are NaN or infinite.", remedy="Load the model in float32.")
    return total / pairs.rows


def _begun(journal: Journal | None, method: str, graph: Graph) -> tuple[int, Scores]:
    """The pairs that are done, and the sum of their scores."""
    done, arrays = (0, {}) if journal is None else journal.load(method)
    return done, arrays.get("total", np.zeros((graph.receivers, graph.sources)))


def _shared(team: Team, pairs: PairBatch, how: Mapping[str, Any], journal: Journal | None) -> Scores:
    """The pairs in chunks of a size that depends on nothing, added up in their order."""
    method = str(how["method"])
    done, total = _begun(journal, method, Graph.of(team.model.architecture))
    for first in range(done, pairs.rows, _CHUNK * _WAVE):
        last = min(first + _CHUNK * _WAVE, pairs.rows)
        parts = [pairs.take(slice(at, min(at + _CHUNK, last))).without_reference() for at in range(first, last, _CHUNK)]
        sizes = [part.rows for part in parts]
        for part in team.map(_scored, [(part, how) for part in parts], name="attributing edges", unit="pairs", sizes=sizes):
            total = total + part
        if journal is not None:
            journal.save(method, last, {"total": total})
    return total / pairs.rows


def _scored(model: TransformerModel, pairs: PairBatch, how: Mapping[str, Any]) -> Scores:
    return edge_scores(model.engine, pairs, **how) * pairs.rows


def _parts(
    engine: Engine, pairs: PairBatch, kept: Sequence[PairRuns], steps: int, *, share_prefix: bool, after: int = 0
) -> Iterator[PairRuns]:
    """Runs of as many pairs as `steps` inputs of each fit for, from those that are kept where there are any; without the first `after`."""

    def at_once(positions: int) -> int:
        return max(1, engine.rows_that_fit(positions) // (4 * steps))

    if not kept:
        size = at_once(pairs.clean.positions - (pairs.shared_columns if share_prefix else 0))
        for chunk in pairs.take(slice(after, None)).chunks(size) if after < pairs.rows else []:
            yield PairRuns(engine, chunk, share_prefix=share_prefix)
    for runs in kept:
        size = at_once(runs.positions)
        for first in range(after, runs.rows, size):
            yield runs.part(slice(first, first + size))
        after = max(0, after - runs.rows)


def node_scores(scores: Scores) -> NDArray[np.float64]:
    """Attribution patching of whole nodes (sources,): the sum of the scores of all edges out of a source.

    A write reaches every later receiver unchanged, so the gradient at the write is the sum of the receivers' gradients.
    """
    return scores.sum(0)


def _hybrid(exact: Scores, gradients: Scores) -> Scores:
    """For each edge, the score of larger absolute value, with the sign of its exact effect if that is certain."""
    size = np.maximum(np.abs(exact), np.abs(gradients))
    heard = np.abs(exact) > _SILENT * np.abs(exact).max()
    return size * np.sign(np.where(heard, exact, gradients))


def source_differences(graph: Graph, runs: PairRuns, ablated: AblatedRun) -> Array:
    """Each source's write in the clean run minus that in the ablated run: (sources, rows · positions · d_model)."""
    engine, clean = runs.engine, runs.clean
    ops = engine.ops
    parts = [_flat(ops.wide(clean.streams[0]) - ops.wide(ablated.embedding))[None]]
    for layer in range(graph.layers):
        heads = engine.head_writes(layer, clean.heads[layer]) - ablated.heads[layer]
        parts += [_flat(heads[:, :, head])[None] for head in range(graph.heads)]
        parts.append(_flat(ops.wide(clean.mlps[layer]) - ops.wide(ablated.mlps[layer]))[None])
    return ops.concatenate(parts, 0)


def _on_inputs(graph: Graph, runs: PairRuns, ablated: AblatedRun, at: Sequence[float]) -> Scores:
    ops, low, high, steps = runs.engine.ops, ablated.embedding, runs.clean.streams[0], len(at)
    inputs = ops.concatenate([low + (high - low) * alpha for alpha in at], 0)
    reads = list(_reads(graph, 0))
    found = runs.gradients(steps, residual=inputs, sites=_sites(graph, reads))
    return _contracted(graph, runs.engine, found, reads, source_differences(graph, runs, ablated), 0, steps)


def _on_activations(graph: Graph, runs: PairRuns, ablated: AblatedRun, at: Sequence[float]) -> Scores:
    """One batch of K runs for the embedding, and for each layer's heads (together) and MLP, from that layer on."""
    ops, clean, steps = runs.engine.ops, runs.clean, len(at)
    differences = source_differences(graph, runs, ablated)
    shape = (runs.rows, runs.positions, runs.engine.anatomy.d_model)

    def shifts(difference: Array) -> Array:
        """Subtract 1 − α of the difference, so that α of it is left."""
        return ops.concatenate([difference * (alpha - 1) for alpha in at], 0)

    def run(layer: int, first: int, count: int, residual: Array, edits: Sequence[Edit], reads: list[_Read]) -> None:
        found = runs.gradients(steps, residual=residual, start=layer, edits=edits, sites=_sites(graph, reads))
        scores[:] += _contracted(graph, runs.engine, found, reads, differences[first : first + count], first, steps)

    scores = np.zeros((graph.receivers, graph.sources))
    entry = ops.repeat(clean.streams[0], steps) + shifts(differences[0].reshape(*shape))
    run(0, 0, 1, entry, [], list(_reads(graph, 0)))
    for layer in range(graph.layers):
        entry = ops.repeat(clean.streams[layer], steps)
        first = graph.head(layer, 0)
        for component, source, count in (
            (Component.ATTENTION, first, graph.heads),
            (Component.MLP_OUTPUT, graph.mlp(layer), 1),
        ):
            change = shifts(differences[source : source + count].sum(0).reshape(*shape))

            def moved(value: Array, _: EditScope, change: Array = change) -> Array:
                return value + change

            reads = [read for read in _reads(graph, layer) if read.readable > source]
            run(layer, source, count, entry, [Edit(Site(layer, component), moved)], reads)
    return scores


class _Read:
    """Receivers of one layer that read the stream at one place: the site of their gradient, and the sources they can read."""

    def __init__(self, layer: int, port: Port | None, receivers: slice, readable: int) -> None:
        self.layer, self.port, self.receivers, self.readable = layer, port, receivers, readable


def _reads(graph: Graph, first_layer: int) -> Iterator[_Read]:
    """All reads from `first_layer` on, in causal order; that of the logits has no port."""
    for layer in range(first_layer, graph.layers):
        first = graph.receiver(layer, Component.QUERY)
        count = graph.heads + 2 * graph.key_value_heads
        yield _Read(layer, Port.ATTENTION, slice(first, first + count), graph.readable(layer, Component.QUERY))
        yield _Read(layer, Port.MLP, graph.rows(layer, Component.MLP_INPUT), graph.readable(layer, Component.MLP_INPUT))
    yield _Read(graph.layers - 1, None, slice(graph.logits, graph.logits + 1), graph.sources)


def _sites(graph: Graph, reads: Sequence[_Read]) -> list[Site]:
    found: list[Site] = []
    for read in reads:
        kinds: tuple[Component, ...] = (Component.RESIDUAL,)
        if read.port is Port.ATTENTION:
            kinds = (*_PROJECTED, Component.RESIDUAL_PRE)
        elif read.port is Port.MLP:
            kinds = (Component.MLP_READ,)
        found += [Site(read.layer, kind) for kind in kinds]
    return found


def _contracted(
    graph: Graph, engine: Engine, found: Gradients, reads: Sequence[_Read], differences: Array, first: int, steps: int
) -> Scores:
    """Scores of the edges from sources `first` … (as many as in `differences`) into the receivers of `reads`."""
    scores = np.zeros((graph.receivers, graph.sources))
    count = int(differences.shape[0])
    for read in reads:
        usable = min(count, read.readable - first)
        if usable > 0:
            gradient = _mean_at_stream(engine, found, read, steps)
            by_receiver = engine.ops.transpose(gradient, (2, 0, 1, 3)).reshape(int(gradient.shape[2]), -1)
            scores[read.receivers, first : first + usable] = engine.ops.to_numpy(by_receiver @ differences[:usable].T)
    return scores


def _mean_at_stream(engine: Engine, found: Gradients, read: _Read, steps: int) -> Array:
    """The mean over the inputs of the gradients at the stream (rows, positions, receivers, d_model), wide.

    One input after the other: with all heads' gradients at the width of the stream, this takes the most memory of all.
    """
    rows = int(found.metric.shape[0]) // steps
    total = engine.ops.wide(_at_stream(engine, found, read, slice(0, rows)))
    for step in range(1, steps):
        total = total + engine.ops.wide(_at_stream(engine, found, read, slice(step * rows, (step + 1) * rows)))
    return total / steps


def _at_stream(engine: Engine, found: Gradients, read: _Read, rows: slice) -> Array:
    """Gradients at the residual stream (rows, positions, receivers, d_model) of the receivers of one read."""
    if read.port is None:
        return found.gradients[Site(read.layer, Component.RESIDUAL)][rows, :, None]
    if read.port is Port.MLP:
        return found.gradients[Site(read.layer, Component.MLP_READ)][rows, :, None]
    sites = [Site(read.layer, kind) for kind in _PROJECTED]
    behind = [engine.project_gradient(site, found.gradients[site][rows]) for site in sites]
    stream = found.values[Site(read.layer, Component.RESIDUAL_PRE)][rows]
    return engine.normalise_gradient(read.layer, Port.ATTENTION, stream, engine.ops.concatenate(behind, 2))


def _flat(array: Array) -> Array:
    return array.reshape(-1)
