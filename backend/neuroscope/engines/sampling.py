"""Choosing the next token from logits, in numpy, so that a seed gives the same text on every engine."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroscope.engines.protocol import GenerationSettings, IntArray
from neuroscope.errors import NonFiniteActivationError


def choose(logits: NDArray[Any], settings: GenerationSettings, random: np.random.Generator) -> IntArray:
    """One token id per row from (rows, vocabulary): the largest at temperature 0, else nucleus sampling.

    Source: Holtzman et al. 2020, "The Curious Case of Neural Text Degeneration" (top-p).
    """
    if not np.isfinite(logits).all():
        raise NonFiniteActivationError("The logits are NaN or infinite.", remedy="Check the hooks and the weights.")
    if settings.temperature == 0:
        return logits.argmax(-1).astype(np.int64)
    scaled = (logits - logits.max(-1, keepdims=True)).astype(np.float64) / settings.temperature
    weights = np.exp(scaled)
    weights /= weights.sum(-1, keepdims=True)
    if settings.top_p < 1:
        order = np.argsort(-weights, axis=-1, kind="stable")
        ordered = np.take_along_axis(weights, order, -1)
        before = ordered.cumsum(-1) - ordered
        np.put_along_axis(weights, order, np.where(before < settings.top_p, ordered, 0.0), -1)
    totals = weights.cumsum(-1)
    drawn = random.random((len(weights), 1)) * totals[:, -1:]
    return (totals > drawn).argmax(-1).astype(np.int64)
