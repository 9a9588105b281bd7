"""Figures of captured activations: norms by site and token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from neuroscope.engines.sites import ATTENTION_MATRICES
from neuroscope.tensors.cache import ActivationCache
from neuroscope.views.page import figures
from neuroscope.views.theme import AMOUNT, dressed, labels


@figures.register
def _(cache: ActivationCache) -> Sequence[Any]:
    rows = {int(array.shape[0]) for _, array in _by_token(cache)}
    return [norms(cache, row) for row in range(max(rows, default=0))]


def norms(cache: ActivationCache, row: int) -> Any:
    """The Euclidean norm of each site's activations at each token of a row (sites × tokens)."""
    found = [(str(site), np.linalg.norm(array[row].reshape(array.shape[1], -1), axis=-1)) for site, array in _by_token(cache)]
    tokens = cache.tokens[row] if row < len(cache.tokens) else []
    width = max(len(values) for _, values in found)
    names = labels(list(tokens)) if len(tokens) == width else [str(number) for number in range(width)]
    heat = go.Heatmap(z=[values for _, values in found], x=names, y=[name for name, _ in found], colorscale=AMOUNT)
    height = 160 + 18 * len(found)
    return dressed(go.Figure(heat), f"Norms of prompt {row}'s activations", x="token", y="site", height=height)


def _by_token(cache: ActivationCache) -> list[tuple[Any, Any]]:
    """Sites with an array (rows, tokens, …), wide. Attention matrices have tokens on both sides and are left out."""
    found = [(site, tensor.numpy()) for site, tensor in cache.items() if site.component not in ATTENTION_MATRICES]
    return [(site, array.astype(np.float64)) for site, array in found if array.ndim >= 3 and site.position is None]
