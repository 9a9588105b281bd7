"""Attention patterns on a text, and the kind of each head by its attention.

The kinds are measured on random sequences repeated once, not on the text (`lenses.repeats`): a head that attends there as
previous-token, duplicate-token or induction heads do (Olsson et al. 2022). They describe only attention; `circuits.roles`
measures what heads do with it. On the text: attention to the first token (Xiao et al. 2023, "attention sinks"), the entropy of
a head's rows in bits, and the mean distance of its attention. A head is a sink only if it also attends to the first token of
random sequences. The control is the score of uniform attention.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroscope import settings
from neuroscope.engines.protocol import Engine, TokenBatch
from neuroscope.engines.sites import Component, Site
from neuroscope.lenses.repeats import REPEAT_THRESHOLD, repeat_scores, uniform_score
from neuroscope.models.model import TransformerModel
from neuroscope.provenance import provenance
from neuroscope.results import Provenance, Result
from neuroscope.vocabulary import public, python_only

#: The longest text whose patterns are stored: their size grows with its square, for every head.
MOST_TOKENS = 64
_SINK = "first-token"
#: A head is an attention sink if this share of its attention goes to the first token.
_SINK_SHARE = 0.5
#: Number of random sequences on which this must also hold.
_ROWS, _LENGTH = 8, 24


@public
@dataclass(frozen=True)
class HeadPattern(Result):
    """One head: its kinds by attention, strongest first; its score for each; its mean entropy (bits) and distance (tokens) on
    the text.
    """

    layer: int
    head: int
    roles: list[str]
    scores: dict[str, float]
    entropy: float
    distance: float

    @property
    def site(self) -> str:
        return str(Site(self.layer, Component.HEAD_OUTPUT, head=self.head))

    def print_string(self) -> str:
        return f"a HeadPattern({self.layer}.{self.head}: {self._attends()})"

    def _attends(self) -> str:
        return f"attends as {', '.join(self.roles)}" if self.roles else "attends as no known kind of head"


@public
@dataclass(frozen=True)
class AttentionPatterns(Result):
    """The attention of every head on a text. uniform_score: the score of uniform attention on repeats."""

    text: str
    tokens: list[str]
    heads: list[HeadPattern]
    uniform_score: float
    provenance: Provenance
    _patterns: NDArray[np.float32] = field(repr=False)

    @property
    @python_only
    def patterns(self) -> NDArray[np.float32]:
        """(layers, heads, queries, keys): each row sums to one, or to less if the model has attention sinks."""
        return self._patterns

    def pattern(self, layer: int, head: int) -> list[list[float]]:
        """One head's attention, one row per query."""
        found: list[list[float]] = self._patterns[layer, head].tolist()
        return found

    def with_role(self, role: str) -> list[HeadPattern]:
        """The heads of this kind by attention, strongest first."""
        return sorted((head for head in self.heads if role in head.roles), key=lambda head: -head.scores[role])

    def print_string(self) -> str:
        named = sum(bool(head.roles) for head in self.heads)
        return f"an AttentionPatterns({len(self.tokens)} tokens, {len(self.heads)} heads, {named} of a known kind)"

    def summary(self) -> str:
        lines = [
            f"Attention of {self.provenance.title} on {self.text!r}",
            "  heads by attention on repeated random tokens",
        ]
        for role in ("previous-token", "duplicate-token", "induction", _SINK):
            found = self.with_role(role)
            named = ", ".join(f"{head.layer}.{head.head} ({head.scores[role]:.2f})" for head in found[:8])
            lines.append(f"  {role:<16} {len(found):>3} heads  {named}{', …' if len(found) > 8 else ''}")
        alike = f"uniform attention scores {self.uniform_score:.3f}"
        lines.append(f"  {alike}, the threshold is {REPEAT_THRESHOLD}; what heads do with their attention is not measured here")
        return "\n".join(lines)

    def as_dictionary(self) -> dict[str, Any]:
        """The fields, and every pattern to four digits."""
        return {**super().as_dictionary(), "patterns": np.round(self._patterns.astype(np.float64), 4).tolist()}


def attention_patterns(model: TransformerModel, text: str, *, seed: int | None = None) -> AttentionPatterns:
    """Capture every head's attention on a text and classify it; hooks are not included."""
    engine, batch, seed = model.engine, model.encode(text), settings.seed(seed)
    layers = list(range(engine.anatomy.layers))
    sites = [Site(layer, Component.ATTENTION_PATTERN) for layer in layers]
    run = engine.forward(batch, capture=sites, logits=None)
    patterns = np.stack([engine.ops.to_numpy(run[site])[0] for site in sites]).astype(np.float32)
    scores, sinks = repeat_scores(engine, layers, seed), _sinks(engine, sites, seed)
    # The first query can attend only to the first token.
    first_share = patterns[:, :, 1:, 0].mean(2)
    with np.errstate(divide="ignore", invalid="ignore"):
        bits = np.where(patterns > 0, -patterns * np.log2(patterns), 0.0).sum(-1)
    back = np.maximum(np.subtract.outer(np.arange(batch.positions), np.arange(batch.positions)), 0)
    distance = (patterns * back).sum(-1)
    heads = []
    for layer, head in itertools.product(layers, range(engine.anatomy.heads)):
        mine = {name: float(found[layer][head]) for name, found in scores.items()}
        roles = sorted((name for name, score in mine.items() if score >= REPEAT_THRESHOLD), key=lambda name: -mine[name])
        mine[_SINK] = float(first_share[layer, head])
        if min(mine[_SINK], sinks[layer, head]) >= _SINK_SHARE:
            roles.append(_SINK)
        heads.append(
            HeadPattern(layer, head, roles, mine, float(bits[layer, head, 1:].mean()), float(distance[layer, head, 1:].mean()))
        )
    return AttentionPatterns(
        text=text,
        tokens=model.tokens(text),
        heads=heads,
        uniform_score=uniform_score(engine),
        provenance=provenance(model, None, seed, tokens=batch.positions),
        _patterns=patterns,
    )


def _sinks(engine: Engine, sites: list[Site], seed: int) -> NDArray[np.float64]:
    """Mean attention (layers, heads) to the first token of random sequences, from tokens in their second half."""
    random = np.random.default_rng(seed)
    length = min(_LENGTH, engine.anatomy.context or _LENGTH)
    batch = TokenBatch.of(random.integers(0, engine.anatomy.vocabulary, (_ROWS, length)).tolist())
    run = engine.forward(batch, capture=sites, logits=None)
    return np.stack([engine.ops.to_numpy(run[site])[:, :, length // 2 :, 0].mean((0, 2)) for site in sites]).astype(np.float64)
