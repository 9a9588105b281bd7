"""Head roles, from where heads look.

On random sequences repeated once (tokens 0 … n−1, then the same again) a head's mean attention tells
    previous-token   from token i to i − 1
    duplicate-token  from token i to i − n, the same token before
    induction        from token i to i − n + 1, the token after the same token before (Olsson et al. 2022)
On the task's own clean prompts, from the last token,
    S-inhibition     to the second mention of the wrong answer
    name mover       to the answer's own mention, writing towards the answer
    negative mover   to the answer's own mention, writing against it (Wang et al. 2022)
where "towards" is the head's direct effect on logit(answer) − logit(wrong). A role is given when the attention is at
least `THRESHOLD`; several roles are listed strongest first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuroscope.circuits.pairs import PairBatch
from neuroscope.models.engines.protocol import Engine, TokenBatch
from neuroscope.models.sites import Component, Site

THRESHOLD = 0.25
_ROWS = 8
_LENGTH = 20


@dataclass(frozen=True)
class Role:
    """A head's role with the attention (0 to 1) that speaks for it."""

    head: Site
    role: str
    attention: float

    def as_dictionary(self) -> dict[str, object]:
        return {"head": str(self.head), "role": self.role, "attention": self.attention}


def head_roles(engine: Engine, pairs: PairBatch, heads: list[Site], *, seed: int = 0) -> list[Role]:
    """Roles of the given heads (sites of headOutput), in the heads' order."""
    layers = sorted({site.layer for site in heads if site.layer is not None})
    scores = {**repeat_scores(engine, layers, seed), **_on_task(engine, pairs, layers)}
    found = []
    for site in heads:
        assert site.layer is not None
        assert site.head is not None
        mine = [(float(values[site.layer][site.head]), name) for name, values in scores.items()]
        found += [Role(site, name, value) for value, name in sorted(mine, reverse=True) if value >= THRESHOLD]
    return found


def repeat_scores(engine: Engine, layers: list[int], seed: int) -> dict[str, dict[int, NDArray[np.float64]]]:
    """Mean attention (heads,) of every layer that speaks for previous-token, duplicate-token and induction heads."""
    random = np.random.default_rng(seed)
    length = _length(engine)
    once = random.integers(0, engine.anatomy.vocabulary, (_ROWS, length))
    batch = TokenBatch.of(np.concatenate([once, once], axis=1).tolist())
    sites = [Site(layer, Component.ATTENTION_PATTERN) for layer in layers]
    run = engine.forward(batch, capture=sites, logits=None, stop=max(layers) + 1)
    offsets = {"previous-token": 1, "duplicate-token": length, "induction": length - 1}
    found: dict[str, dict[int, NDArray[np.float64]]] = {name: {} for name in offsets}
    for layer, site in zip(layers, sites, strict=True):
        pattern = engine.ops.to_numpy(run[site]).astype(np.float64)
        for name, offset in offsets.items():
            # The second half only: there all three offsets exist and name different tokens.
            queries = np.arange(length, 2 * length)
            found[name][layer] = pattern[:, :, queries, queries - offset].mean((0, 2))
    return found


def uniform_score(engine: Engine) -> float:
    """What a head that looks at all tokens alike scores on repeats."""
    length = _length(engine)
    return float((1 / np.arange(length + 1, 2 * length + 1)).mean())


def _length(engine: Engine) -> int:
    return min(_LENGTH, (engine.anatomy.context or 2 * _LENGTH) // 2)


def _on_task(engine: Engine, pairs: PairBatch, layers: list[int]) -> dict[str, dict[int, NDArray[np.float64]]]:
    batch, metric = pairs.clean, pairs.metric
    ends = batch.column(-1)
    movers = [_mentions(batch, row, int(metric.answers[row])) for row in range(batch.rows)]
    inhibited = [_mentions(batch, row, int(metric.wrongs[row])) for row in range(batch.rows)]
    rows_with_answer = [row for row in range(batch.rows) if movers[row]]
    rows_with_repeat = [row for row in range(batch.rows) if len(inhibited[row]) >= 2]
    kinds = (Component.ATTENTION_PATTERN, Component.HEAD_OUTPUT)
    run = engine.forward(batch, capture=[Site(layer, kind) for layer in layers for kind in kinds])
    directions = _directions(engine, pairs)
    found: dict[str, dict[int, NDArray[np.float64]]] = {"name mover": {}, "negative mover": {}, "S-inhibition": {}}
    for layer in layers:
        pattern = engine.ops.to_numpy(run[Site(layer, Component.ATTENTION_PATTERN)]).astype(np.float64)
        at_end = pattern[np.arange(batch.rows), :, ends]  # (rows, heads, keys)
        writes = engine.ops.to_numpy(engine.head_writes(layer, run[Site(layer, Component.HEAD_OUTPUT)]))
        direct = np.einsum("rhd,rd->rh", writes[np.arange(batch.rows), ends], directions).mean(0)
        nothing = np.zeros(engine.anatomy.heads)
        to_answer = np.mean([at_end[r][:, movers[r]].sum(1) for r in rows_with_answer], axis=0) if rows_with_answer else nothing
        to_second = np.mean([at_end[r][:, inhibited[r][1]] for r in rows_with_repeat], axis=0) if rows_with_repeat else nothing
        found["name mover"][layer] = np.where(direct > 0, to_answer, 0.0)
        found["negative mover"][layer] = np.where(direct < 0, to_answer, 0.0)
        found["S-inhibition"][layer] = to_second
    return found


def _mentions(batch: TokenBatch, row: int, token: int) -> list[int]:
    return [int(column) for column in np.flatnonzero((batch.ids[row] == token) & batch.real[row])]


def _directions(engine: Engine, pairs: PairBatch) -> NDArray[np.float64]:
    """(rows, d_model): the direction in the stream that raises the metric at the last token, at the clean run."""
    last = engine.anatomy.layers - 1
    site = Site(last, Component.RESIDUAL)
    batch = pairs.clean
    found = engine.gradients(batch, pairs.metric.compute(engine), [site], logits=pairs.metric.request(batch))
    gradient = engine.ops.to_numpy(found.gradients[site]).astype(np.float64)
    picked: NDArray[np.float64] = gradient[np.arange(batch.rows), batch.column(-1)]
    return picked
