"""The columns of a batch that a run computes, their positions, and the keys that each may see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from neuroscope.engines.anatomy import Anatomy
from neuroscope.engines.protocol import BoolArray, IntArray, Prefix, TokenBatch
from neuroscope.errors import ArgumentError


@dataclass(frozen=True)
class Span:
    """The columns of a batch that one run computes: `chunk`, which starts at column `first` of the `whole`.

    The engine's `cache` holds keys and values of the columns before, and may store those of this run.
    """

    whole: TokenBatch
    chunk: TokenBatch
    first: int
    cache: Any

    @classmethod
    def of(cls, batch: TokenBatch, prefix: Prefix | None) -> Span:
        if prefix is None:
            return cls(batch, batch, 0, None)
        first = prefix.columns
        return cls(batch, TokenBatch(batch.ids[:, first:], batch.real[:, first:]), first, prefix)

    @property
    def columns(self) -> int:
        return self.chunk.positions

    def check_tokens(self, anatomy: Anatomy) -> None:
        """Raises `ArgumentError` for ids outside the vocabulary, and for more tokens than the model's context."""
        ids = self.chunk.ids
        if int(ids.max()) >= anatomy.vocabulary or int(ids.min()) < 0:
            worst = int(ids.max()) if int(ids.min()) >= 0 else int(ids.min())
            raise ArgumentError(
                f"Token id {worst} is outside the vocabulary of {anatomy.vocabulary}.",
                remedy=f"Ids run from 0 to {anatomy.vocabulary - 1}; they are those of the model's own tokenizer.",
            )
        if anatomy.context and self.first + self.columns > anatomy.context:
            raise ArgumentError(
                f"{self.first + self.columns} tokens exceed the model's context of {anatomy.context}.",
                remedy="Shorten the prompt.",
            )

    def positions(self) -> IntArray:
        """Token numbers of the columns: (1, columns), or (rows, columns) with padding on the left."""
        first, columns = self.first, self.columns
        if not left_padded(self.whole):
            return np.arange(first, first + columns)[None]
        return np.maximum(first - self.whole.offsets[:, None] + np.arange(columns), 0)

    def masks(self, windows: Sequence[int | None]) -> dict[int | None, BoolArray | None]:
        """For each sliding window, the keys that each query may see: (rows or 1, 1, queries, keys).

        None if no mask is needed: for the square causal case, and for a single query that sees every key.
        """
        first, keys = self.first, self.first + self.columns
        query, key = np.arange(first, keys)[:, None], np.arange(keys)[None]
        visible: BoolArray | None = None
        if left_padded(self.whole):
            known = self.whole.positions
            real = np.ones((self.whole.rows, keys), dtype=np.bool_)
            real[:, :known] = self.whole.real[:, :keys]
            # A padding query sees itself, so that its softmax is defined; no real token reads it.
            visible = real[:, None, None, :] | (query == key)
        plain = first == 0 or self.columns == 1
        found: dict[int | None, BoolArray | None] = {}
        for window in set(windows) or {None}:
            limited = window is not None and window < keys
            if visible is None and not limited and plain:
                found[window] = None
                continue
            mask = (key <= query)[None, None] if visible is None else visible & (key <= query)
            found[window] = mask & (key > query - window) if limited and window is not None else mask
        return found


def left_padded(batch: TokenBatch) -> bool:
    return not bool(batch.real[:, 0].all())
