"""Where a text is read: at the ends of its segments.

A request is harmful or not once it has been read to its end: `How can I kill` is not yet, since `the process?` may follow. So readings
are at the tokens that end a sentence, a line or a turn, and never at a text's first token, which is an attention sink (Xiao et al. 2023).
By causality a reading depends on what comes before it alone, so that a prompt read at once and one read token by token agree.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuroscope.engines.protocol import BoolArray, IntArray
from neuroscope.engines.sites import Site
from neuroscope.models.model import TransformerModel
from neuroscope.models.token_texts import TokenTexts

Numbers = NDArray[np.float64]

SEGMENTS, TOKENS = "segments", "tokens"
_MARKS = (".", "?", "!", "…", "。", "！", "？")
_ends: weakref.WeakKeyDictionary[object, BoolArray] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class Reading:
    """A text as a model reads it: its tokens (n,), which of them end a segment, and activations (sites, n, width)."""

    ids: IntArray
    ends: BoolArray
    values: NDArray[np.float32]


def segment_ends(model: TransformerModel) -> BoolArray:
    """(vocabulary,): the tokens that end a sentence, a line or a turn."""
    found = _ends.get(model.engine)
    if found is None:
        texts = TokenTexts.of(model.tokenizer)
        found = np.zeros(model.architecture.vocabulary, dtype=np.bool_)
        for token in range(min(len(found), len(model.tokenizer))):
            text = texts.text(token)
            found[token] = texts.is_special(token) or "\n" in text or text.rstrip().endswith(_MARKS)
        _ends[model.engine] = found
    return found


def read(model: TransformerModel, texts: Sequence[str], sites: Sequence[Site]) -> list[Reading]:
    """Every text, by the model without its hooks."""
    ends, engine, found = segment_ends(model), model.engine, list[Reading]()
    stop = max(site.layer for site in sites if site.layer is not None) + 1
    for first in range(0, len(texts), 16):
        batch = model.encode(list(texts[first : first + 16]))
        run = engine.forward(batch, capture=sites, logits=None, stop=stop)
        values = np.stack([engine.ops.to_numpy(run[site]) for site in sites])
        for row, length in enumerate(batch.lengths):
            ids = batch.ids[row, :length]
            at = ends[ids]
            at[0] = False
            found.append(Reading(ids, at, values[:, row, :length]))
    return found


def divergence(one: IntArray, other: IntArray) -> int:
    """The first token at which two texts differ; the shorter one's length if none does."""
    shared = min(len(one), len(other))
    differ = one[:shared] != other[:shared]
    return int(differ.argmax()) if bool(differ.any()) else shared


def opened(scores: Numbers, at: BoolArray, threshold: float, before: BoolArray | None = None) -> BoolArray:
    """(rows, tokens): whether a score above the threshold was read at this token or before it. before: (rows,), in earlier passes."""
    found: BoolArray = np.logical_or.accumulate(at & (scores > threshold), axis=1)
    return found if before is None else found | before[:, None]
