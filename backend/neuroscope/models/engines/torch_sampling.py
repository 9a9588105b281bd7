"""Choosing the next token from logits."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from neuroscope.errors import NonFiniteActivationError
from neuroscope.models.engines.protocol import GenerationSettings, IntArray


def choose(logits: Tensor, settings: GenerationSettings, random: torch.Generator) -> IntArray:
    """One token id per row from (rows, vocabulary): the largest at temperature 0, else nucleus sampling.

    Source: Holtzman et al. 2020, "The Curious Case of Neural Text Degeneration" (top-p).
    """
    if not torch.isfinite(logits).all():
        raise NonFiniteActivationError("The logits are NaN or infinite.", remedy="Check the hooks and the weights.")
    if settings.temperature == 0:
        return logits.argmax(-1).cpu().numpy().astype(np.int64)
    weights = (logits.float().cpu() / settings.temperature).softmax(-1)
    if settings.top_p < 1:
        ordered, order = weights.sort(-1, descending=True)
        before = ordered.cumsum(-1) - ordered
        weights = torch.zeros_like(weights).scatter(-1, order, ordered.where(before < settings.top_p, 0.0))
    return torch.multinomial(weights, 1, generator=random)[:, 0].numpy().astype(np.int64)
