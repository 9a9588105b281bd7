"""The clean and the corrupt run of a batch of pairs, stored for all measurements.

Clean and corrupt prompts share their first tokens up to the changed one. Both runs are equal there, so those tokens run once
(the prefix) and everything else computes only the tokens after them.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from neuroscope.engines.protocol import Array, Edit, Engine, Gradients, TokenBatch
from neuroscope.engines.sites import Component, Site
from neuroscope.errors import CircuitError, NonFiniteActivationError
from neuroscope.tasks.metrics import PromptMetric
from neuroscope.tasks.pairs import PairBatch

Numbers = NDArray[np.float64]

#: Logits that one pass may hold for a metric that is a function: 256 MiB in single precision.
_MOST_LOGITS = 1 << 26


@dataclass(frozen=True)
class RunOfPairs:
    """Activations of one run after the prefix, per layer: the streams, the heads' outputs and the MLPs' writes.

    streams[l] is the residual stream before layer l; streams[layers] the one after the last. mids[l] is what the MLP's
    norm reads. All (rows, positions, …). metric: (rows,).
    """

    metric: Numbers
    streams: list[Array]
    mids: list[Array]
    heads: list[Array]
    mlps: list[Array]

    def part(self, rows: slice) -> RunOfPairs:
        """Some rows of the run, as views."""
        kept = ([array[rows] for array in arrays] for arrays in (self.streams, self.mids, self.heads, self.mlps))
        return RunOfPairs(self.metric[rows], *kept)


class PairRuns:
    """A batch of pairs with its clean and its corrupt run.

    first: the first column that differs; arrays hold columns `first` … only. positions: how many those are.
    """

    def __init__(self, engine: Engine, pairs: PairBatch, *, share_prefix: bool = True) -> None:
        self.engine = engine
        self._weights = engine.changed_weights()
        self.share_prefix = share_prefix
        self.first = pairs.shared_columns if share_prefix else 0
        self.prefix = engine.prefix(pairs.clean, self.first)
        self.pairs = self._with_distribution(pairs)
        self.rows = pairs.rows
        self.positions = pairs.clean.positions - self.first
        self.clean, self.corrupt = self._both()

    @property
    def cells_at_once(self) -> int:
        """How often these rows run in one pass; a metric that is a function holds the logits of every token."""
        fit = self.engine.rows_that_fit(self.positions)
        if self.pairs.metric.function is not None:
            fit = min(fit, _MOST_LOGITS // (self.positions * self.engine.anatomy.vocabulary))
        return max(1, fit // self.rows)

    def again(self, times: int, *, residual: Array, start: int = 0, edits: Sequence[Edit] = ()) -> NDArray[np.float64]:
        """The metric (times, rows) of runs that start from `residual` (times · rows, positions, d_model) at layer `start`."""
        batch, metric = self._repeated(times)
        run = self.engine.forward(
            batch,
            edits=edits,
            start=start,
            residual=residual,
            logits=metric.request(batch),
            prefix=None if self.prefix is None else self.prefix.repeat(times),
        )
        return metric_values(self.engine, metric, run.logits).reshape(times, self.rows)

    def gradients(
        self, times: int, *, residual: Array, sites: Sequence[Site], start: int = 0, edits: Sequence[Edit] = ()
    ) -> Gradients:
        """Gradients of the metric, summed over rows, for inputs (times · rows, positions, d_model) to layer `start`."""
        batch, metric = self._repeated(times)
        return self.engine.gradients(
            batch,
            metric.compute(self.engine, traced=True),
            sites,
            edits=edits,
            start=start,
            residual=residual,
            logits=metric.request(batch),
            prefix=None if self.prefix is None else self.prefix.repeat(times),
        )

    def part(self, rows: slice) -> PairRuns:
        """Some of the rows, which do not run again. They keep the padding and the prefix of all rows."""
        if rows.indices(self.rows) == (0, self.rows, 1):
            return self
        found = copy.copy(self)
        found.pairs = self.pairs.padded_alike(rows)
        found.rows = found.pairs.rows
        found.prefix = None if self.prefix is None else self.prefix.take(rows)
        found.clean, found.corrupt = self.clean.part(rows), self.corrupt.part(rows)
        return found

    def column(self, position: int) -> NDArray[np.int64]:
        """For each row, the index of token `position` in the runs' arrays; negative for tokens in the prefix."""
        return self.pairs.clean.column(position) - self.first

    def check_weights(self) -> None:
        """Raises `CircuitError` when the model's weights were changed since these pairs ran."""
        if self.engine.changed_weights() != self._weights:
            raise CircuitError("The model's weights were changed since these pairs ran.", remedy="Run the pairs again.")

    def _repeated(self, times: int) -> tuple[TokenBatch, PromptMetric]:
        self.check_weights()
        return self.pairs.clean.repeat(times), self.pairs.metric.repeat(times, self.engine)

    def _both(self) -> tuple[RunOfPairs, RunOfPairs]:
        """The clean and the corrupt run, as rows of one batch where both fit."""
        clean, corrupt = self.pairs.clean, self.pairs.corrupt
        if 2 * self.rows > self.engine.rows_that_fit(self.positions):
            return self._kept(clean, 1)[0], self._kept(corrupt, 1)[0]
        first, second = self._kept(
            TokenBatch(np.concatenate([clean.ids, corrupt.ids]), np.concatenate([clean.real, corrupt.real])), 2
        )
        return first, second

    def _kept(self, batch: TokenBatch, times: int) -> list[RunOfPairs]:
        """What is kept of the runs of a batch that holds the rows `times` over."""
        engine, metric = self.engine, self.pairs.metric.repeat(times, self.engine)
        layers = range(engine.anatomy.layers)
        kinds = (Component.RESIDUAL_PRE, Component.MLP_READ, Component.HEAD_OUTPUT, Component.MLP_OUTPUT)
        run = engine.forward(
            batch,
            capture=[Site(layer, kind) for layer in layers for kind in kinds],
            logits=metric.request(batch),
            prefix=None if self.prefix is None else self.prefix.repeat(times),
        )
        values = metric_values(engine, metric, run.logits)

        assert run.residual is not None
        streams, mids, heads, mlps = ([run[Site(layer, kind)] for layer in layers] for kind in kinds)
        whole = RunOfPairs(values, [*streams, run.residual], mids, heads, mlps)
        return [whole.part(slice(first, first + self.rows)) for first in range(0, times * self.rows, self.rows)]

    def _with_distribution(self, pairs: PairBatch) -> PairBatch:
        """The pairs, with the clean run's distribution in the metric if it needs it."""
        if pairs.metric.function is not None or pairs.metric.name != "kl" or pairs.metric.reference is not None:
            return pairs
        run = self.engine.forward(pairs.clean, logits=pairs.metric.request(pairs.clean), prefix=self.prefix)
        logs = self.engine.ops.log_softmax(run.logits)
        return replace(pairs, metric=replace(pairs.metric, reference=logs))


def metric_values(engine: Engine, metric: PromptMetric, logits: Array) -> Numbers:
    """The metric of each row as float64 (rows,). Raises `NonFiniteActivationError` if one is not finite."""
    values = engine.ops.to_numpy(metric.compute(engine)(logits)).astype(np.float64)
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values))[0])
        raise NonFiniteActivationError(
            f"The metric {metric.name} is {values[row]} for prompt {row}.",
            remedy="`model verify` checks the weights.",
        )
    return values
