"""Rows of tokens with loss weights, from the corpus; seeded, so that training can be resumed exactly."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroscope.training.corpus import END, LATE_FROM, documents
from neuroscope.training.segments import Document

#: Most rows are short, so that documents are near the beginning, like prompts; every sixth batch uses the whole context.
SHORT, LONG, EVERY = 64, 256, 6


def batch(tokenizer: Any, step: int, tokens: int, seed: int = 0) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Token ids and loss weights (rows, length) of one step: `tokens` in all. A row starts at the beginning of a document."""
    length = LONG if step % EVERY == EVERY - 1 else SHORT
    rows = max(1, tokens // length)
    stream = _encoded(tokenizer, seed * 1_000_003 + step, late=step >= LATE_FROM)
    ids = np.zeros((rows, length), dtype=np.int64)
    weights = np.zeros((rows, length), dtype=np.float32)
    for row in range(rows):
        filled = 0
        while filled < length:
            document, weight = next(stream)
            size = min(len(document), length - filled)
            ids[row, filled : filled + size] = document[:size]
            weights[row, filled : filled + size] = weight[:size]
            filled += size
    return ids, weights


def _encoded(tokenizer: Any, seed: int, *, late: bool) -> Iterator[tuple[list[int], list[float]]]:
    """Documents as ids and weights, each ended by the end token."""
    end = tokenizer.convert_tokens_to_ids(END)
    for _, document in documents(seed, late=late):
        ids, weights = pieces(tokenizer, document)
        yield [*ids, end], [*weights, 1.0]


def pieces(tokenizer: Any, document: Document) -> tuple[list[int], list[float]]:
    """Tokenise text as a whole; a token gets the weight of the segment it starts in. Ids are unchanged."""
    if not any(segment.ids for segment in document):
        text = "".join(segment.text for segment in document)
        starts = np.cumsum([0] + [len(segment.text) for segment in document[:-1]])
        encoded = tokenizer(text, return_offsets_mapping=True)
        owners = np.searchsorted(starts, [first for first, _ in encoded["offset_mapping"]], side="right") - 1
        return list(encoded["input_ids"]), [document[owner].weight for owner in owners]
    ids: list[int] = []
    weights: list[float] = []
    for segment in document:
        mine = list(segment.ids) or list(tokenizer(segment.text)["input_ids"])
        ids += mine
        weights += [segment.weight] * len(mine)
    return ids, weights
