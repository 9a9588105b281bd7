"""Tokens of one text in two tokenizers, aligned by the characters at which they end.

A token of one model sees the text up to its last character. Tokens of two models are aligned *exactly* where they end at the same
character; `behind` is the last token of the other model that ends no later, so that nothing is read that is still to be written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from neuroscope.engines.protocol import BoolArray, IntArray
from neuroscope.models.model import TransformerModel
from neuroscope.models.text import decoded, prompt_ids


@dataclass(frozen=True)
class Spelled:
    """A text as a model reads it. ends: for each token, the number of the text's characters up to its end, 0 for tokens before it."""

    text: str
    ids: tuple[int, ...]
    ends: IntArray


def spelled(model: TransformerModel, text: str) -> Spelled:
    """A text to be continued, with the special tokens that precede it."""
    ids = tuple(prompt_ids(model.tokenizer, text))
    ends = _offsets(model.tokenizer, text, ids)
    return of_ids(model, ids) if ends is None else _spelled(text, ids, ends)


def of_ids(model: TransformerModel, ids: Sequence[int]) -> Spelled:
    """Tokens that a model reads, whether or not its tokenizer would write the text so."""
    ids = tuple(int(token) for token in ids)
    text = decoded(model.tokenizer, ids)
    ends = _offsets(model.tokenizer, text, ids)
    if ends is None:
        ends = [len(decoded(model.tokenizer, ids[: stop + 1])) for stop in range(len(ids))]
    return _spelled(text, ids, ends)


def _spelled(text: str, ids: tuple[int, ...], ends: list[int]) -> Spelled:
    return Spelled(text, ids, np.minimum(np.maximum.accumulate(np.array(ends, dtype=np.int64)), len(text)))


def _offsets(tokenizer: Any, text: str, ids: tuple[int, ...]) -> list[int] | None:
    """The ends that a fast tokenizer gives, where it writes the text with just these tokens."""
    backend = getattr(tokenizer, "backend_tokenizer", None)  # of transformers' tokenizers and of those read from files alone
    if not text or backend is None:
        return None
    encoded = backend.encode(text, add_special_tokens=False)
    plain = tuple(encoded.ids)
    before = len(ids) - len(plain)
    if before < 0 or ids[before:] != plain:
        return None
    return [0] * before + [int(end) for _, end in encoded.offsets]


def behind(of: Spelled, other: Spelled) -> tuple[IntArray, BoolArray]:
    """For each token of `of`, the last token of `other` that ends no later (-1: none), and whether it ends at the same character.

    The first token of either is left out: it is an attention sink, whose stream has little to do with the text.
    """
    found = np.searchsorted(other.ends, of.ends, side="right") - 1
    found[(found < 1) | (of.ends == 0) | (np.arange(len(of.ends)) < 1)] = -1
    found[(found >= 0) & (other.ends[found] == 0)] = -1
    return found, (found >= 0) & (other.ends[found] == of.ends)
