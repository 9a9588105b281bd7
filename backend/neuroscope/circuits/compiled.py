"""A circuit as an engine: every run uses only the circuit's edges, on any text.

Without prompt pairs there is no corrupt run, so every other edge carries its source's mean (mean ablation; Wang et al. 2022). A
mean is one vector per source, the same at every token, so a compiled circuit runs prompts of any length, in batches, and token
by token with a cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from neuroscope.circuits.ablated import AblatedRun, Means
from neuroscope.circuits.evaluation import BYTES, MEMORY, CircuitRun
from neuroscope.circuits.graph import Graph
from neuroscope.engines import precision
from neuroscope.engines.decoding import Decoding
from neuroscope.engines.protocol import (
    ALL_LOGITS,
    Apply,
    Array,
    BoolArray,
    Edit,
    EditScope,
    Engine,
    GenerationSettings,
    Gradients,
    LogitRequest,
    Metric,
    Prefix,
    Run,
    Step,
    TokenBatch,
)
from neuroscope.engines.sites import Component, Site
from neuroscope.errors import CircuitError


class CircuitEngine:
    """`Engine` that runs another engine's model through a circuit. Everything except runs is delegated to that engine.

    mask: (receivers, sources). means: (sources, d_model). Raises `CircuitError` for an architecture whose streams are not sums
    of sources' writes and constants.
    """

    def __init__(self, engine: Engine, mask: BoolArray, means: Means, probe: TokenBatch) -> None:
        self._engine = engine
        self._weights = engine.changed_weights()
        self._baseline = mean_ablated(engine, means, probe)
        self._mask = mask

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def forward(
        self,
        batch: TokenBatch,
        *,
        capture: Sequence[Site] = (),
        edits: Sequence[Edit] = (),
        start: int = 0,
        residual: Array | None = None,
        stop: int | None = None,
        logits: LogitRequest | None = ALL_LOGITS,
        prefix: Prefix | None = None,
    ) -> Run:
        """See `Engine.forward`; a run starts at the embedding."""
        self._check_start(start, residual)
        return self._engine.forward(
            batch, capture=capture, edits=[*self._edits(watched=bool(capture or edits)), *edits], stop=stop, logits=logits
        )

    def gradients(
        self,
        batch: TokenBatch,
        metric: Metric,
        sites: Sequence[Site],
        *,
        edits: Sequence[Edit] = (),
        start: int = 0,
        residual: Array | None = None,
        logits: LogitRequest = ALL_LOGITS,
        prefix: Prefix | None = None,
    ) -> Gradients:
        """Raises `CircuitError`: a compiled circuit has no gradients."""
        raise CircuitError("A compiled circuit has no gradients.", remedy="Attribute on the model it was found on.")

    def differentiable(self, on: bool = True) -> AbstractContextManager[None]:
        """Raises `CircuitError`: a compiled circuit is not trained."""
        raise CircuitError("A compiled circuit is not trained.", remedy="Train the model that it was found on.")

    def generate(
        self, batch: TokenBatch, settings: GenerationSettings, *, capture: Sequence[Site] = (), edits: Sequence[Edit] = ()
    ) -> Iterator[Step]:
        """See `Engine.generate`."""
        return self._engine.generate(batch, settings, capture=capture, edits=[*self._edits(watched=True), *edits])

    def decoding(
        self, batch: TokenBatch, settings: GenerationSettings, *, capture: Sequence[Site] = (), edits: Sequence[Edit] = ()
    ) -> Decoding:
        """See `Engine.decoding`; the model's own engine advances it, with other generations of the model."""
        return self._engine.decoding(batch, settings, capture=capture, edits=[*self._edits(watched=True), *edits])

    def prefix(self, batch: TokenBatch, columns: int) -> Prefix | None:
        """None: the circuit runs every token itself."""
        return None

    def rows_that_fit(self, positions: int) -> int:
        """No more than the model's own, and so many that what every source writes, which a run keeps, takes no more than `MEMORY`."""
        row = Graph.of(self._engine.anatomy).sources * positions * self._engine.anatomy.d_model * BYTES
        return max(1, min(self._engine.rows_that_fit(positions), MEMORY // row))

    def _check_start(self, start: int, residual: Array | None) -> None:
        if start != 0 or residual is not None:
            raise CircuitError(
                "A run of a compiled circuit must start at the embedding.", remedy="Patch the model it was found on."
            )

    def _edits(self, *, watched: bool) -> list[Edit]:
        if self._engine.changed_weights() != self._weights:
            raise CircuitError("The model's weights have changed since the circuit was compiled.", remedy="Compile it again.")
        graph = Graph.of(self._engine.anatomy)
        run = CircuitRun(self._engine, self._baseline, [self._mask], watched=watched)
        begin = Edit(Site(0, Component.RESIDUAL_PRE), _begin(run))
        return [begin, *(edit for layer in range(graph.layers) for edit in run.edits(layer))]


def _begin(run: CircuitRun) -> Apply:
    """Every chunk of tokens (a prompt, then each new token) needs new arrays of its shape."""

    def apply(value: Array, _: EditScope) -> Array:
        run.begin(value)
        return value

    return apply


def mean_ablated(engine: Engine, means: Means, probe: TokenBatch) -> AblatedRun:
    """The ablated run of constant writes, broadcast over rows and tokens. `probe`: any tokens, to read the model's constants."""
    ops, graph = engine.ops, Graph.of(engine.anatomy)
    kinds = (Component.RESIDUAL_PRE, Component.MLP_READ, Component.HEAD_OUTPUT, Component.MLP_OUTPUT)
    run = engine.forward(probe, capture=[Site(layer, kind) for layer in range(graph.layers) for kind in kinds], logits=None)
    real = probe.real

    def constant(stream: Array, written: Array) -> np.ndarray[Any, Any]:
        remainder = ops.to_numpy(ops.wide(stream) - written)[real]
        spread = float(np.abs(remainder - remainder.mean(0)).max())
        if spread > max(1e-3, 8 * precision.epsilon(engine.precision)) * max(
            1.0, float(np.abs(ops.to_numpy(stream)[real]).max())
        ):
            raise CircuitError(
                f"The streams of a {engine.anatomy.architecture} model are not the sum of its heads' and MLPs' writes.",
                remedy="Circuits of this architecture can be found and tested, but not compiled.",
            )
        return remainder.mean(0)

    def vector(value: np.ndarray[Any, Any]) -> Array:
        return ops.asarray(value[None, None])

    written = run[Site(0, Component.RESIDUAL_PRE)]
    total = means[0]
    heads, mlps, streams, mids = [], [], [vector(total)], []
    for layer in range(graph.layers):
        first = graph.head(layer, 0)
        writes = means[first : first + graph.heads]
        attended = written + engine.head_writes(layer, run[Site(layer, Component.HEAD_OUTPUT)]).sum(2)
        before_mlp = written if graph.parallel else attended
        read = constant(run[Site(layer, Component.MLP_READ)], before_mlp)
        mids.append(vector(read + total + (0 if graph.parallel else writes.sum(0))))
        written = attended + run[Site(layer, Component.MLP_OUTPUT)]
        total = total + writes.sum(0) + means[graph.mlp(layer)]
        after = run[Site(layer + 1, Component.RESIDUAL_PRE)] if layer + 1 < graph.layers else run.residual
        streams.append(vector(constant(after, written) + total))
        heads.append(ops.asarray(writes[None, None]))
        mlps.append(vector(means[graph.mlp(layer)]))
    return AblatedRun(vector(means[0]), heads, mlps, streams, mids)
