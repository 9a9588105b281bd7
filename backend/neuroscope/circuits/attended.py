"""What heads attend to from the last token of a task's prompts, in terms of places that all prompts have.

A place is a set of tokens in each prompt: the answer's mention, mentions of the wrong answer, the token that the corrupt prompt
changes, the token after one of these, a token that occurs once in every prompt, tokens by distance from the end, the first.
A head attends to a place if its mean attention to it, over prompts that have it, is at least `THRESHOLD` and twice that of
uniform attention. Of several places, it gets the first in this order within a tenth of the largest: the changed token may also
be the wrong answer's second mention.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from neuroscope.engines.protocol import BoolArray, Engine, TokenBatch
from neuroscope.engines.sites import Component, Site
from neuroscope.tasks.pairs import PairBatch

THRESHOLD = 0.25
_NEAR = 0.9
#: Share of the prompts that must have a place.
_COMMON = 0.5
_BACK = 6

ANSWER, FIRST_WRONG, SECOND_WRONG = (
    "the answer's mention",
    "the wrong answer's first mention",
    "the wrong answer's second mention",
)
CHANGED = "the changed token"
#: Names of places in the indirect-object task (Wang et al. 2022).
_INDIRECT_OBJECT = {ANSWER: "the indirect object", FIRST_WRONG: "S1", SECOND_WRONG: "S2"}


def in_indirect_object(place: str) -> str:
    """A place's name in the indirect-object task."""
    for name, known in _INDIRECT_OBJECT.items():
        place = place.replace(name, known)
    return place


def places(pairs: PairBatch, decode: Callable[[int], str] | None = None) -> dict[str, BoolArray]:
    """The places of the clean prompts by name, as masks (rows, positions), most specific first."""
    batch, metric = pairs.clean, pairs.metric
    ids, real = batch.ids, batch.real
    columns = np.arange(batch.positions)[None]
    last, first = batch.column(-1)[:, None], batch.column(0)[:, None]
    wrong = (ids == metric.wrongs[:, None]) & real & (metric.wrongs != metric.answers)[:, None]
    order = wrong.cumsum(1)
    found = {
        ANSWER: (ids == metric.answers[:, None]) & real,
        FIRST_WRONG: wrong & (order == 1),
        SECOND_WRONG: wrong & (order == 2),
        CHANGED: (ids != pairs.corrupt.ids) & real,
    }
    found |= {f"the token after {name}": np.roll(place, 1, axis=1) & (columns > first) for name, place in found.items()}
    for token in _in_every_prompt(batch):
        text = f"token {token}" if decode is None else repr(decode(token))
        found[text] = (ids == token) & real & (columns != last) & (columns != first)
    found["the last token itself"] = columns == last
    for back in range(1, _BACK + 1):
        found["the token before the last" if back == 1 else f"the token {back} before the last"] = columns == last - back
    found["the first token"] = columns == first
    return {name: place & real for name, place in found.items() if (place & real).any(1).mean() >= _COMMON}


def _in_every_prompt(batch: TokenBatch) -> list[int]:
    """Tokens that occur exactly once in each prompt, in the first prompt's order."""
    counted = [np.unique(row[real], return_counts=True) for row, real in zip(batch.ids, batch.real, strict=True)]
    once = [set(tokens[counts == 1].tolist()) for tokens, counts in counted]
    shared = set.intersection(*once)
    return [token for token in batch.ids[0][batch.real[0]].tolist() if token in shared]


class Attended:
    """The attention of all heads of some layers from the last token to the places of a task's clean prompts."""

    def __init__(self, engine: Engine, pairs: PairBatch, layers: list[int], decode: Callable[[int], str] | None = None) -> None:
        batch, rows = pairs.clean, np.arange(pairs.rows)
        sites = [Site(layer, Component.ATTENTION_PATTERN) for layer in layers]
        run = engine.forward(batch, capture=sites, logits=None, stop=max(layers) + 1)
        self._places = places(pairs, decode)
        self._alike = {name: float((place.sum(1) / batch.lengths)[place.any(1)].mean()) for name, place in self._places.items()}
        self._means: dict[int, dict[str, NDArray[np.float64]]] = {}
        for layer, site in zip(layers, sites, strict=True):
            ends = engine.ops.to_numpy(run[site])[rows, :, batch.column(-1)].astype(np.float64)  # (rows, heads, keys)
            self._means[layer] = {
                name: (ends * place[:, None]).sum(2)[place.any(1)].mean(0) for name, place in self._places.items()
            }

    def attention(self, layer: int, head: int, place: str) -> float:
        """A head's mean attention to a place, or 0 if it does not attend to it as defined above."""
        if place not in self._places:
            return 0.0
        value = float(self._means[layer][place][head])
        return value if value >= max(THRESHOLD, 2 * self._alike[place]) else 0.0

    def place(self, layer: int, head: int) -> tuple[str, float] | None:
        """The place that a head attends to, with its attention, or None."""
        found = {name: self.attention(layer, head, name) for name in self._places}
        most = max(found.values(), default=0.0)
        return next(((name, value) for name, value in found.items() if value >= _NEAR * most), None) if most > 0 else None
