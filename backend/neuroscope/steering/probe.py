"""A probe for a contrast: the strength of the quality in a text or token, at a site.

A logistic probe on standardised activations, fitted on the vector's pairs and judged on the held-out ones, which share neither
content nor slot word with them; its score is scaled so that held-out texts without the quality have mean 0, and those with it
mean 1. A probe is invalid unless held-out pairs differ in its score (paired, two-sided). Chance is the result of probes fitted
on the same texts with shuffled labels (Hewitt & Liang 2019, control tasks).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuroscope.engines.sites import Site
from neuroscope.errors import DatasetError
from neuroscope.features.ranks import aurocs
from neuroscope.models.model import TransformerModel
from neuroscope.steering.contrast import ContrastPairs
from neuroscope.steering.vectors import Vector, read_site
from neuroscope.tasks.statistics import Estimate, difference_test, mean_of

Scores = NDArray[np.float64]
Labels = NDArray[np.bool_]

#: Few texts in many dimensions: strong regularisation keeps the probe from fitting the words of its texts.
_REGULARISATION = 0.01
#: Smallest held-out AUROC of a valid probe.
_READABLE = 0.7
_SHUFFLES = 20
_LEVEL = 0.05


@dataclass(frozen=True)
class Probe:
    """weights (width,). auroc: on the held-out texts, pooled as in fitting.

    chance: the mean AUROC of probes with shuffled labels. p_value: that held-out pairs do not differ in score.
    """

    name: str
    site: Site
    weights: Scores
    bias: float
    auroc: float
    chance: Estimate
    p_value: float

    @property
    def complaint(self) -> str | None:
        """Why it is invalid, or None."""
        if self.auroc >= _READABLE and self.p_value < _LEVEL:
            return None
        return f"{self.name} cannot be read at {self.site}: a probe has AUROC {self.auroc:.2f} on held-out texts (pairs differ with p = {self.p_value:.3f}), with shuffled labels {self.chance.value:.2f}"

    def checked(self) -> Probe:
        """Return itself. Raises `DatasetError` if it does not distinguish the held-out texts."""
        if self.complaint:
            remedy = "Use another layer, or more pairs that differ only in this quality."
            raise DatasetError(f"{self.complaint}.", remedy=remedy)
        return self

    def score(self, activations: NDArray[np.float32]) -> Scores:
        """Scores (…) of activations (…, width)."""
        return np.asarray(activations @ self.weights + self.bias)


def fitted(model: TransformerModel, pairs: ContrastPairs, site: Site, *, seed: int = 0) -> Probe:
    """The probe of a contrast at a site."""
    fit, judge = pairs.split()
    values, labels = _read(model, fit, site)
    held_out, held_out_labels = _read(model, judge, site)
    weights = _weights(values, labels)
    raw = held_out @ weights
    low, high = raw[~held_out_labels].mean(), raw[held_out_labels].mean()
    span, auroc = float(high - low), _auroc(raw, held_out_labels)
    random = np.random.default_rng(seed)
    by_chance = [_auroc(held_out @ _weights(values, random.permutation(labels)), held_out_labels) for _ in range(_SHUFFLES)]
    p_value = difference_test(raw[: len(judge)] - raw[len(judge) :], judge.units).p_value
    scale = span if span > 0 else 1.0
    return Probe(pairs.name, site, weights / scale, float(-low / scale), auroc, mean_of(by_chance), p_value)


def _weights(values: Vector, labels: Labels) -> Scores:
    """Weights of a logistic regression on standardised values, for unstandardised ones, without the intercept."""
    from sklearn.linear_model import LogisticRegression

    mean, scale = values.mean(0), values.std(0) + 1e-6
    found = LogisticRegression(C=_REGULARISATION, max_iter=1000).fit((values - mean) / scale, labels)
    weights: Scores = found.coef_[0].astype(np.float64) / scale
    return weights


def _auroc(scores: Scores, labels: Labels) -> float:
    return float(aurocs(scores[:, None], labels)[0])


def _read(model: TransformerModel, pairs: ContrastPairs, site: Site) -> tuple[Vector, Labels]:
    values = read_site(model, [*pairs.positive, *pairs.negative], site)
    return values, np.arange(len(values)) < len(pairs)
