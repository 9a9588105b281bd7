"""The clean and the corrupt run of a batch of pairs, kept once for everything that is measured against them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuroscope.circuits.pairs import PairBatch
from neuroscope.errors import NonFiniteActivationError
from neuroscope.models.engines.protocol import Array, Engine, TokenBatch
from neuroscope.models.sites import Component, Site
from neuroscope.tasks.metrics import PromptMetric

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Reference:
    """What is kept of one run, per layer: the streams, the heads' outputs and the MLPs' writes.

    streams[l] is the residual stream before layer l; streams[layers] the one after the last. mids[l] is what the MLP's
    norm reads. All (rows, positions, …).
    """

    batch: TokenBatch
    metric: Numbers
    streams: list[Array]
    mids: list[Array]
    heads: list[Array]
    mlps: list[Array]


def reference(engine: Engine, batch: TokenBatch, metric: PromptMetric) -> Reference:
    """Run a batch once and keep what circuits need. Raises `NonFiniteActivationError` if the metric is not finite."""
    layers = range(engine.anatomy.layers)
    kinds = (Component.RESIDUAL_PRE, Component.RESIDUAL_MID, Component.HEAD_OUTPUT, Component.MLP_OUTPUT)
    run = engine.forward(
        batch, capture=[Site(layer, kind) for layer in layers for kind in kinds], logits=metric.request(batch)
    )
    streams = [run[Site(layer, Component.RESIDUAL_PRE)] for layer in layers]
    assert run.residual is not None
    return Reference(
        batch,
        metric_values(engine, metric, run.logits),
        [*streams, run.residual],
        [run[Site(layer, Component.RESIDUAL_MID)] for layer in layers],
        [run[Site(layer, Component.HEAD_OUTPUT)] for layer in layers],
        [run[Site(layer, Component.MLP_OUTPUT)] for layer in layers],
    )


def metric_values(engine: Engine, metric: PromptMetric, logits: Array) -> Numbers:
    """The metric of each row as float64 (rows,)."""
    values = engine.ops.to_numpy(metric.compute(engine)(logits)).astype(np.float64)
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values))[0])
        raise NonFiniteActivationError(
            f"The metric {metric.name} is {values[row]} for prompt {row}.",
            remedy="`model verify` tells whether the weights are at fault.",
        )
    return values


def with_reference(engine: Engine, pairs: PairBatch) -> PairBatch:
    """Pairs whose metric knows the clean run's distribution, where it needs it."""
    if pairs.metric.name != "kl" or pairs.metric.reference is not None:
        return pairs
    run = engine.forward(pairs.clean, logits=pairs.metric.request(pairs.clean))
    logs = engine.ops.log_softmax(run.logits)
    return PairBatch(pairs.clean, pairs.corrupt, PromptMetric("kl", pairs.metric.answers, pairs.metric.wrongs, logs))
