"""Readings of units, without the part that the classes of tokens explain.

A unit that fires at any digit is larger on texts with many digits. So its activation a at a token is fitted by least squares as

    a = β[class of the token] + κ[class of the token before] + γ[group of the text]

over all tokens except the first of each choosing text, and a text's reading is its mean minus the mean of β and κ over its
tokens (analysis of covariance: classes are estimated within groups). A class that occurs in only one group absorbs the group's
effect at its tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuroscope import events
from neuroscope.engines.protocol import TokenBatch
from neuroscope.engines.sites import Component, Site
from neuroscope.features.contexts import KINDS, kind_of
from neuroscope.models.model import TransformerModel

Numbers = NDArray[np.float64]

_BATCH = 16
_WIDTH = 2 * len(KINDS)


@dataclass(frozen=True)
class Texts:
    """means: (layers, texts, width) over a text's tokens except the first; shares: (texts, 2 · classes) of its tokens by their
    class and by that of the token before; normal, moments: DᵀD and Dᵀa of the fit, with the group's columns last.
    """

    means: NDArray[np.float32]
    shares: Numbers
    normal: Numbers
    moments: NDArray[np.float32]

    def effects(self) -> Numbers:
        """β and κ: (layers, 2 · classes, width), with least norm if underdetermined."""
        inverse = np.linalg.pinv(self.normal, rcond=1e-9, hermitian=True)
        return np.asarray(inverse[:_WIDTH] @ self.moments)

    def beyond(self, effects: Numbers) -> Numbers:
        """The means minus the classes' effects: (layers, texts, width)."""
        return np.asarray(self.means - self.shares @ effects)


def read(
    model: TransformerModel, groups: Sequence[Sequence[str]], component: Component, layers: Sequence[int], *, name: str
) -> Texts:
    """Read the texts of all groups, in their order."""
    sites = [Site(layer, component) for layer in layers]
    labelled = [(text, number) for number, group in enumerate(groups) for text in group]
    columns = _WIDTH + len(groups)
    normal = np.zeros((columns, columns))
    moments: NDArray[np.float32] | None = None
    means, shares = [], []
    classes = _classes(model)
    with events.progress(f"{name} {component.value}", total=len(labelled), unit="texts") as job:
        for first in range(0, len(labelled), _BATCH):
            part = labelled[first : first + _BATCH]
            batch = model.encode([text for text, _ in part])
            run = model.engine.forward(batch, capture=sites, logits=None, stop=max(layers) + 1)
            design = _design(batch, [number for _, number in part], columns, classes)
            flat = design.reshape(-1, columns)
            counts = np.maximum(design[..., : len(KINDS)].sum((1, 2)), 1)
            normal += flat.T @ flat
            values = [model.engine.ops.to_numpy(run[site]).reshape(len(flat), -1) for site in sites]
            weights = flat.astype(np.float32).T
            found = np.stack([weights @ value for value in values])
            moments = found if moments is None else moments + found
            counted = (design[..., : len(KINDS)].sum(2) / counts[:, None]).astype(np.float32)
            means.append(np.stack([np.einsum("rp,rpw->rw", counted, v.reshape(*counted.shape, -1)) for v in values]))
            shares.append(design[..., :_WIDTH].sum(1) / counts[:, None])
            job.advance(batch.rows)
    assert moments is not None
    return Texts(np.concatenate(means, axis=1), np.concatenate(shares), normal, moments)


def _classes(model: TransformerModel) -> Callable[[int], int]:
    known: dict[int, int] = {}

    def of(token: int) -> int:
        if token not in known:
            known[token] = KINDS.index(kind_of(model.token_text(token)))
        return known[token]

    return of


def _design(batch: TokenBatch, groups: Sequence[int], columns: int, classes: Callable[[int], int]) -> Numbers:
    """(rows, positions, columns): indicators of the token's class, of the previous token's, and of the group; 0 for excluded
    tokens.

    The first token is excluded, as an attention sink (Xiao et al. 2023), except in a text of one token.
    """
    design = np.zeros((batch.rows, batch.positions, columns))
    for row, group in enumerate(groups):
        real = np.flatnonzero(batch.real[row])
        kinds = [classes(int(token)) for token in batch.ids[row][real]]
        for at in range(min(1, len(real) - 1), len(real)):
            design[row, real[at], kinds[at]] = 1
            design[row, real[at], len(KINDS) + kinds[max(at - 1, 0)]] = 1
            design[row, real[at], _WIDTH + group] = 1
    return design
