"""Runs of a steered model: continuations of openings, losses of wordings, and probe scores.

A batch consists of blocks of rows: each block adds its own strength times direction at one site, so strengths and random
directions share a batch. Losses of wordings are computed from the steered layer on: nothing changes below it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from neuroscope import events
from neuroscope.engines.protocol import Array, Edit, EditScope, IntArray, Phase, TokenBatch
from neuroscope.engines.sites import Component, Site
from neuroscope.models.generation import continued
from neuroscope.models.model import TransformerModel
from neuroscope.steering.doses import Numbers
from neuroscope.steering.probe import Probe
from neuroscope.steering.vectors import Vector

_READ_AT_ONCE = 8
#: Rows of wordings in one batch; each takes positions × vocabulary of logits.
_ASKED_AT_ONCE = 32

#: The weight of the addition at each column of a pass (rows or 1, columns).
_Weights = Callable[[int, EditScope], Numbers]


@dataclass(frozen=True)
class Sweep:
    """The additions of each block: strengths (blocks,) times directions (blocks, width).

    mode: at the last token of the opening (one_token), at all tokens (all_tokens), or increasingly over the continuation
    (growing).
    """

    mode: str
    strengths: Numbers
    directions: Vector

    def __len__(self) -> int:
        return len(self.strengths)

    def take(self, blocks: slice) -> Sweep:
        return Sweep(self.mode, self.strengths[blocks], self.directions[blocks])


@dataclass(frozen=True)
class Written:
    """Token ids of each row, up to an end token or a stop string; and the logits of every step, if requested."""

    rows: list[list[int]]
    logits: list[Array] = field(repr=False)


class SteeredRuns:
    """Runs of one model, steered at one site, with at most `max_tokens` new tokens."""

    def __init__(self, model: TransformerModel, site: Site, max_tokens: int) -> None:
        self._model, self._site, self._max_tokens = model, site, max_tokens

    def openings(self, texts: Sequence[str]) -> TokenBatch:
        return self._model.encode(list(texts), side="left")

    def steered(self, batch: TokenBatch, sweep: Sweep) -> Written:
        """The continuations of every block, in order."""
        edit = self._edit(sweep, batch.rows, self._generation_weights(sweep.mode))
        return self.written(batch.repeat(len(sweep)), [edit])

    def written(self, batch: TokenBatch, edits: Sequence[Edit], *, keep_logits: bool = False) -> Written:
        """Greedy continuations under edits."""
        options = self._model.generation_settings(max_tokens=self._max_tokens)
        logits: list[Array] = []
        kept = logits if keep_logits else None
        rows = continued(self._model.engine, self._model.tokenizer, batch, options, edits, kept)
        return Written([row.ids for row in rows], logits)

    def read(self, batch: TokenBatch, written: Sequence[Sequence[int]], probe: Probe) -> tuple[Numbers, Numbers]:
        """Mean probe score and mean loss in nats of the continuation of each opening, both (rows,), by the bare model.

        NaN for a row that ended at once.
        """
        engine = self._model.engine
        openings = [ids[real].tolist() for ids, real in zip(batch.ids, batch.real, strict=True)]
        scores, losses = np.full(batch.rows, np.nan), np.full(batch.rows, np.nan)
        # Equal texts after the same opening are read once: greedy steering often changes nothing.
        rows: dict[tuple[int, ...], list[int]] = {}
        for row in range(batch.rows):
            if written[row]:
                rows.setdefault((len(openings[row]), *openings[row], *written[row]), []).append(row)
        different = list(rows.items())
        for first in range(0, len(different), _READ_AT_ONCE):
            part = different[first : first + _READ_AT_ONCE]
            run = engine.forward(TokenBatch.of([text for (_, *text), _ in part]), capture=[self._site])
            activations = engine.ops.to_numpy(run[self._site])
            logs = engine.ops.to_numpy(engine.ops.log_softmax(run.logits))
            for index, ((start, *text), same) in enumerate(part):
                stop = len(text)
                scores[same] = probe.score(activations[index, start:stop]).mean()
                losses[same] = -logs[index, np.arange(start - 1, stop - 1), text[start:]].mean()
        return scores, losses

    def losses(self, openings: Sequence[str], wordings: Sequence[str], sweep: Sweep) -> Numbers:
        """(blocks, rows): mean loss in nats of each wording after its opening, in the steered model."""
        engine, layer = self._model.engine, self._site.layer
        assert layer is not None
        batch, first = self._asked(openings, wordings)
        columns, last = np.arange(batch.positions)[None], batch.lengths[:, None] - 1
        weights = np.ones((batch.rows, batch.positions))
        if sweep.mode == "one_token":
            weights = (columns == first - 1).astype(np.float64)
        elif sweep.mode == "growing":
            weights = np.clip((columns - first + 1) / np.maximum(last - first + 1, 1), 0, 1)
        below = Site(layer, Component.RESIDUAL_PRE)
        stream = engine.forward(batch, capture=[below], logits=None, stop=layer + 1)[below]
        found = []
        at_once = max(1, _ASKED_AT_ONCE // batch.rows)
        for start in range(0, len(sweep), at_once):
            events.check_cancelled()
            part = sweep.take(slice(start, start + at_once))
            tiled = np.tile(weights, (len(part), 1))
            edit = self._edit(part, batch.rows, lambda columns, scope, tiled=tiled: tiled)  # type: ignore[misc]
            repeated = batch.repeat(len(part))
            run = engine.forward(repeated, start=layer, residual=engine.ops.repeat(stream, len(part)), edits=[edit])
            found.append(self._read_losses(run.logits, repeated, np.tile(first, (len(part), 1))).reshape(len(part), batch.rows))
        return np.concatenate(found)

    def losses_under(self, openings: Sequence[str], wordings: Sequence[str], edits: Sequence[Edit]) -> Numbers:
        """(rows,): mean loss in nats of each wording after its opening, under edits."""
        batch, first = self._asked(openings, wordings)
        found = []
        for start in range(0, batch.rows, _ASKED_AT_ONCE):
            part = slice(start, start + _ASKED_AT_ONCE)
            run = self._model.engine.forward(batch.take(part), edits=edits)
            found.append(self._read_losses(run.logits, batch.take(part), first[part]))
        return np.concatenate(found)

    def _asked(self, openings: Sequence[str], wordings: Sequence[str]) -> tuple[TokenBatch, IntArray]:
        """Openings with their wordings, and the position (rows, 1) at which each wording begins."""
        first = np.array([self._model.encode(opening).positions for opening in openings])[:, None]
        return self._model.encode([f"{opening} {text}" for opening, text in zip(openings, wordings, strict=True)]), first

    def _read_losses(self, logits: Array, batch: TokenBatch, first: IntArray) -> Numbers:
        ops = self._model.engine.ops
        logs = ops.to_numpy(ops.log_softmax(logits))
        each = -np.take_along_axis(logs[:, :-1], batch.ids[:, 1:, None], axis=2)[..., 0]
        columns = np.arange(1, batch.positions)[None]
        counted = (columns >= first) & (columns < batch.lengths[:, None])
        return ((each * counted).sum(1) / counted.sum(1)).astype(np.float64)

    def token_scores(self, texts: Sequence[str], probe: Probe) -> list[Numbers]:
        """The probe's score at every token of each text."""
        engine, layer = self._model.engine, self._site.layer
        assert layer is not None
        found: list[Numbers] = []
        for first in range(0, len(texts), 2 * _READ_AT_ONCE):
            batch = self._model.encode(list(texts[first : first + 2 * _READ_AT_ONCE]))
            run = engine.forward(batch, capture=[self._site], logits=None, stop=layer + 1)
            scores = probe.score(engine.ops.to_numpy(run[self._site]))
            found += [row[real] for row, real in zip(scores, batch.real, strict=True)]
        return found

    def _generation_weights(self, mode: str) -> _Weights:
        def weights(columns: int, scope: EditScope) -> Numbers:
            found = np.ones((1, columns))
            if mode == "one_token":
                found[:] = 0
                found[:, -1] = scope.phase is Phase.PREFILL
            elif mode == "growing":
                step = scope.first_position - scope.batch.positions + 1
                found[:] = 0 if scope.phase is Phase.PREFILL else step / max(self._max_tokens - 1, 1)
            return found

        return weights

    def _edit(self, sweep: Sweep, rows: int, weights: _Weights) -> Edit:
        """The edit that adds each block's strength times direction to its `rows` rows, weighted by column."""
        ops = self._model.engine.ops
        doses = np.repeat(sweep.strengths[:, None] * sweep.directions, rows, axis=0)[:, None]

        def apply(value: Array, scope: EditScope) -> Array:
            return value + ops.asarray((weights(value.shape[1], scope)[..., None] * doses).astype(np.float32))

        return Edit(self._site, apply)
