"""A probe for a contrast: how much of the quality a text, or a token, shows at a site.

A logistic probe on standardised activations, fitted on the pairs that the vector is computed from and judged on the held-out
ones, which share neither content nor slot word with them; its score is scaled there so that 0 is how the texts without the
quality read on average, and 1 the texts with it. A probe reads nothing unless held-out pairs differ in its score (paired,
two-sided). Chance is what probes fitted on the same texts with shuffled labels reach (Hewitt & Liang 2019, control tasks).
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

#: Few texts in many dimensions: a strong ridge keeps the probe from reading the words of its own texts.
_REGULARISATION = 0.01
#: The held-out AUROC below which a probe measures nothing.
_READABLE = 0.7
_SHUFFLES = 20
_LEVEL = 0.05


@dataclass(frozen=True)
class Probe:
    """weights (width,). auroc: on the held-out texts, pooled as it was fitted.

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
        """Why it reads nothing, or None when it does."""
        if self.auroc >= _READABLE and self.p_value < _LEVEL:
            return None
        return (
            f"{self.name} cannot be read at {self.site}: a probe has AUROC {self.auroc:.2f} on texts that did not fit it "
            f"(pairs differ with p = {self.p_value:.3f}), with shuffled labels {self.chance.value:.2f}"
        )

    def checked(self) -> Probe:
        """Itself. Raises `DatasetError` when it does not tell the held-out texts apart."""
        if self.complaint:
            remedy = "Take another layer, or more pairs that differ in this quality alone."
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
    """Of a logistic regression on standardised values, for the values as they are; the intercept is left to the scale."""
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
