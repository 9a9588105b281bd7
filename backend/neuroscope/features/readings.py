"""One number for each neuron and text: the MLP neurons' activations at a concept's tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from neuroscope import events
from neuroscope.engines.protocol import TokenBatch
from neuroscope.engines.sites import Component, Site
from neuroscope.models.model import TransformerModel

Readings = NDArray[np.float32]

_BATCH = 16


def read_texts(
    model: TransformerModel,
    texts: Sequence[str],
    component: Component,
    layers: Sequence[int],
    *,
    at_end: bool,
    name: str = "reading",
) -> Readings:
    """(layers, texts, width): each text's last token, or the mean over its tokens except the first. For a mixture of experts
    neurons are expert · width + neuron, zero where the expert was not routed.
    """
    return read_sites(
        model, texts, [Site(layer, component) for layer in layers], at_end=at_end, name=f"{name} {component.value}"
    )


def read_sites(
    model: TransformerModel, texts: Sequence[str], sites: Sequence[Site], *, at_end: bool, name: str = "reading"
) -> Readings:
    """(sites, texts, …): the same at any sites with arrays of the same shape.

    The first token is excluded as an attention sink (Xiao et al. 2023): its activations are so large that a mean with it would
    mainly reflect the text's length.
    """
    layers = [site.layer for site in sites if site.layer is not None]
    stop = max(layers) + 1 if len(layers) == len(sites) else None
    found: list[Readings] = []
    with events.progress(name, total=len(texts), unit="texts") as job:
        for first in range(0, len(texts), _BATCH):
            batch = model.encode(list(texts[first : first + _BATCH]))
            run = model.engine.forward(batch, capture=sites, logits=None, stop=stop)
            found.append(np.stack([_pooled(model.engine.ops.to_numpy(run[site]), batch, at_end) for site in sites]))
            job.advance(batch.rows)
    return np.concatenate(found, axis=1)


def _pooled(values: NDArray[np.float32], batch: TokenBatch, at_end: bool) -> Readings:
    if at_end:
        return values[np.arange(batch.rows), batch.column(-1)]
    counted = batch.real.copy()
    counted[np.arange(batch.rows), batch.offsets] = batch.lengths == 1
    rest = [1] * (values.ndim - 2)
    return (values * counted.reshape(*counted.shape, *rest)).sum(1) / counted.sum(1, dtype=np.float32).reshape(-1, *rest)
