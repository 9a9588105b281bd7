"""Runs of one dataset with neurons of one layer replaced.

The intact model runs once; every ablation starts from its stream before the layer and takes replacements from its activations.
Neuron sets run as rows of one batch, so k sets cost k times the rows in the layers from the ablated one on, and nothing before
it. Items of one length run together, so that there is no padding.

The first token is excluded from means and resampling, and only `zero` changes it: it is an attention sink (Xiao et al. 2023),
where single neurons are a hundred times larger than elsewhere, for any token (Sun et al. 2024, "Massive Activations"). A mean
that includes it is a value that no other token has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from neuroscope.engines.protocol import Array, Edit, EditScope, IntArray, LogitRequest, TokenBatch
from neuroscope.engines.sites import Component, Site
from neuroscope.events import Job
from neuroscope.models.model import TransformerModel
from neuroscope.parallel.team import Team
from neuroscope.parallel.worker import kept
from neuroscope.tasks.dataset import Example

_BATCH = 32
#: Sets of a chunk, where workers share them.
_SETS = 8

Scores = NDArray[np.float64]
Pool = NDArray[np.float32]


@dataclass(frozen=True)
class _Part:
    """Some of the items: answer and wrong answer (rows, 2), and the stream that enters the layer (rows, positions, d_model)."""

    batch: TokenBatch
    tokens: IntArray
    residual: Array


class AblatedRuns:
    """Ablations of neurons of `layer` on `examples`.

    A run's scores are (…, items, 2) in nats: the answer's log-odds, log P(answer) − log(1 − P(answer)), and its margin over the
    wrong answer, log P(answer) − log P(wrong). whole: the scores of the intact model (items, 2).
    """

    def __init__(self, model: TransformerModel, layer: int, examples: Sequence[Example], *, seed: int = 0) -> None:
        self._model = model
        self._layer = layer
        self._site = Site(layer, Component.MLP)
        self._seed = seed
        self._examples = list(examples)
        entry = Site(layer, Component.RESIDUAL_PRE)
        ops = model.engine.ops
        self._parts: list[_Part] = []
        pool: list[Pool] = []
        whole: list[Scores] = []
        chunks = by_length(model, examples)
        self._order = np.argsort(np.concatenate(chunks))
        for chunk in chunks:
            part = [examples[index] for index in chunk]
            batch = model.encode([example.clean for example in part])
            tokens = answer_tokens(model, part)
            run = model.engine.forward(batch, capture=[entry, self._site], logits=LogitRequest.last(batch))
            self._parts.append(_Part(batch, tokens, run[entry]))
            pool.append(after_first(ops.to_numpy(run[self._site])))
            whole.append(_scores(model, run.logits, tokens))
        self._pool = np.concatenate(pool)
        self.whole: Scores = np.concatenate(whole)[self._order]

    @property
    def activations(self) -> Pool:
        """The layer's activations at all tokens of the items except the first (tokens, neurons)."""
        return self._pool

    def scores(self, mode: str, sets: Sequence[Sequence[int]], job: Job, team: Team | None = None) -> Scores:
        """The scores (sets, items, 2) with each set of neurons replaced; `job` advances by sets · items.

        team: the workers among whom the sets are shared out; None: this thread computes all.
        """
        if team is not None:
            parts = [list(sets[first : first + _SETS]) for first in range(0, len(sets), _SETS)]
            work = [(self._layer, self._examples, self._seed, mode, part) for part in parts]
            sizes = [len(part) * len(self._examples) for part in parts]
            shared = team.map(_ablated, work, name=f"ablating ({mode})", unit="items", sizes=sizes)
            job.advance(sum(sizes))
            return np.concatenate(shared)
        random = np.random.default_rng(self._seed)
        found = []
        for part in self._parts:
            # One draw for all sets, so that they differ only in their neurons.
            drawn = random.integers(0, len(self._pool), (part.batch.rows, part.batch.positions))
            together = max(1, self._model.engine.rows_that_fit(part.batch.positions) // part.batch.rows)
            rows = []
            for first in range(0, len(sets), together):
                chosen = [np.array(ids, dtype=np.int64) for ids in sets[first : first + together]]
                kept = 0 if mode == "zero" else left_alone(part.batch.positions)
                rows.append(self._run(part, [(ids, self._instead(mode, ids, drawn)) for ids in chosen], kept))
                job.advance(len(chosen) * part.batch.rows)
            found.append(np.concatenate(rows))
        return np.concatenate(found, axis=1)[:, self._order]

    def _run(self, part: _Part, replaced: Sequence[tuple[IntArray, Pool]], kept: int) -> Scores:
        """One pass over the layer and what follows it, the part's rows once for each set: scores (sets, rows, 2).

        kept: number of tokens at the beginning that are unchanged.
        """
        engine, rows, times = self._model.engine, part.batch.rows, len(replaced)

        def apply(value: Array, _: EditScope) -> Array:
            value = engine.ops.copy(value)
            for at, (ids, instead) in enumerate(replaced):
                value[at * rows : (at + 1) * rows, kept:, engine.ops.asarray(ids)] = engine.ops.asarray(instead[:, kept:])
            return value

        batch = part.batch.repeat(times)
        run = engine.forward(
            batch,
            edits=[Edit(self._site, apply)],
            start=self._layer,
            residual=engine.ops.repeat(part.residual, times),
            logits=LogitRequest.last(batch),
        )
        return _scores(self._model, run.logits, np.tile(part.tokens, (times, 1))).reshape(times, rows, 2)

    def _instead(self, mode: str, ids: IntArray, drawn: IntArray) -> Pool:
        """Replacements of the neurons (rows, positions, neurons); drawn: a token of the pool for each cell."""
        if mode == "zero":
            return np.zeros((*drawn.shape, len(ids)), dtype=np.float32)
        if mode == "mean":
            return np.broadcast_to(self._pool[:, ids].mean(0), (*drawn.shape, len(ids))).copy()
        return self._pool[drawn][..., ids]


def _ablated(
    model: TransformerModel, layer: int, examples: list[Example], seed: int, mode: str, sets: list[list[int]]
) -> Scores:
    key = layer, [(example.clean, str(example.answer), str(example.wrong)) for example in examples], seed
    runs = kept(model, "ablated runs", key, lambda: AblatedRuns(model, layer, examples, seed=seed))
    found: Scores = runs.scores(mode, sets, Job("ablating", None, "items"))
    return found


def surest(model: TransformerModel, examples: Sequence[Example], n: int) -> list[Example]:
    """The n examples whose answers have the largest log-odds in the model, in their order."""
    found = []
    for first in range(0, len(examples), _BATCH):
        part = examples[first : first + _BATCH]
        batch = model.encode([example.clean for example in part])
        run = model.engine.forward(batch, logits=LogitRequest.last(batch))
        found.append(_scores(model, run.logits, answer_tokens(model, part))[:, 0])
    order = np.argsort(-np.concatenate(found), kind="stable")[:n]
    return [examples[index] for index in sorted(order)]


def after_first(values: Pool) -> Pool:
    """Values after the first token of each row (rows, positions, neurons), or all for rows of one token: (tokens, neurons)."""
    return values[:, left_alone(values.shape[1]) :].reshape(-1, values.shape[2])


def left_alone(positions: int) -> int:
    """Number of unchanged tokens at the beginning: one, unless there is no other token."""
    return min(1, positions - 1)


def by_length(model: TransformerModel, examples: Sequence[Example]) -> list[IntArray]:
    """Indices of items with equally many tokens, in batches."""
    lengths = np.array([model.encode(example.clean).positions for example in examples])
    same = [np.flatnonzero(lengths == length) for length in np.unique(lengths)]
    return [indices[first : first + _BATCH] for indices in same for first in range(0, len(indices), _BATCH)]


def answer_tokens(model: TransformerModel, examples: Sequence[Example]) -> IntArray:
    return np.array([[model.answer_token(each.clean, str(text)) for text in (each.answer, each.wrong)] for each in examples])


def _scores(model: TransformerModel, logits: Array, tokens: IntArray) -> Scores:
    values = model.engine.ops.to_numpy(logits).astype(np.float64)
    answer, wrong = np.take_along_axis(values, tokens, axis=1).T
    np.put_along_axis(values, tokens[:, :1], -np.inf, axis=1)
    return np.stack([answer - logsumexp(values, axis=1), answer - wrong], axis=1)
