"""A probe for a contrast: how much of the quality a text, or a token, shows at a site.

A logistic probe on standardised activations, fitted on two thirds of the contrast's contents; its score is scaled on the
held-out third so that 0 is how the texts without the quality read there on average, and 1 the texts with it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuroscope.errors import DatasetError
from neuroscope.features.neurons import aurocs
from neuroscope.models.model import TransformerModel
from neuroscope.models.sites import Site
from neuroscope.steering.contrast import ContrastPairs
from neuroscope.steering.vectors import Vector, read_site

Scores = NDArray[np.float64]

#: Few texts in many dimensions: a strong ridge keeps the probe from reading the words of its own texts.
_REGULARISATION = 0.01
#: The held-out AUROC below which a probe measures nothing.
_READABLE = 0.7


@dataclass(frozen=True)
class Probe:
    """weights (width,). auroc: on the held-out texts, pooled as it was fitted."""

    site: Site
    weights: Scores
    bias: float
    auroc: float

    def score(self, activations: NDArray[np.float32]) -> Scores:
        """Scores (…) of activations (…, width)."""
        return np.asarray(activations @ self.weights + self.bias)


def fitted(model: TransformerModel, pairs: ContrastPairs, site: Site) -> Probe:
    """The probe of a contrast at a site. Raises `DatasetError` when it does not tell the held-out texts apart."""
    from sklearn.linear_model import LogisticRegression

    fit, judge = pairs.split()
    values, labels = _read(model, fit, site)
    mean, scale = values.mean(0), values.std(0) + 1e-6
    found = LogisticRegression(C=_REGULARISATION, max_iter=1000).fit((values - mean) / scale, labels)
    weights = found.coef_[0].astype(np.float64) / scale
    held_out, held_out_labels = _read(model, judge, site)
    raw = held_out @ weights
    low, high = raw[~held_out_labels].mean(), raw[held_out_labels].mean()
    span, auroc = float(high - low), float(aurocs(raw[:, None], held_out_labels)[0])
    if auroc < _READABLE:
        raise DatasetError(
            f"{pairs.name} cannot be read at {site}: a probe has AUROC {auroc:.2f} on texts that did not fit it.",
            remedy="Take another layer, or pairs that differ in this quality alone.",
        )
    return Probe(site, weights / span, float(-low / span), auroc)


def _read(model: TransformerModel, pairs: ContrastPairs, site: Site) -> tuple[Vector, NDArray[np.bool_]]:
    values = read_site(model, [*pairs.positive, *pairs.negative], site)
    return values, np.arange(len(values)) < len(pairs)
