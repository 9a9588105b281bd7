"""How well scores tell two kinds of texts apart, and what the words alone would tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from neuroscope.features.ranks import aurocs
from neuroscope.results import Result
from neuroscope.safety.readings import Numbers
from neuroscope.tasks.statistics import Estimate, wilson
from neuroscope.vocabulary import public


@public
@dataclass(frozen=True)
class Detection(Result):
    """A detector on texts that did not make it.

    auroc: positive against negative texts. detected, false_positives: shares above the threshold, None without one.
    held_out: what these texts share nothing of with those that trained it. words: the AUROC of a bag of words trained on the same texts.
    """

    auroc: Estimate
    detected: Estimate | None
    false_positives: Estimate | None
    held_out: str
    words: Estimate | None = None
    positive: list[float] = field(default_factory=list)
    negative: list[float] = field(default_factory=list)

    def print_string(self) -> str:
        return f"a Detection(AUROC {self.auroc}, held out: {self.held_out})"

    def summary(self) -> str:
        lines = [f"AUROC {self.auroc}, held out: {self.held_out}"]
        if self.words is not None:
            lines.append(f"  a bag of words: {self.words}")
        if self.detected is not None:
            lines.append(
                f"  detected {self.detected}, n {self.detected.n}; false positives {self.false_positives}, n {len(self.negative)}"
            )
        return "\n".join(lines)


def detection(
    positive: ArrayLike, negative: ArrayLike, threshold: float | None, held_out: str, words: Estimate | None = None
) -> Detection:
    """From the scores of both kinds of texts."""
    high, low = (np.asarray(scores, dtype=np.float64) for scores in (positive, negative))
    above = [None if threshold is None else wilson(int((side > threshold).sum()), len(side)) for side in (high, low)]
    return Detection(auroc(high, low), above[0], above[1], held_out, words, high.tolist(), low.tolist())


def auroc(positive: Numbers, negative: Numbers) -> Estimate:
    """With Wilson's interval for as many comparisons as the smaller kind has texts: wider than needed, and never of width 0."""
    labels = np.arange(len(positive) + len(negative)) < len(positive)
    value = float(aurocs(np.concatenate([positive, negative])[:, None], labels)[0])
    n, z = min(len(positive), len(negative)), 1.959963984540054
    middle = (value + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * float(np.sqrt(value * (1 - value) / n + z * z / (4 * n * n)))
    return Estimate(value, max(0.0, middle - half), min(1.0, middle + half), len(labels))


def calibrated(negative: ArrayLike, rate: float) -> float | None:
    """The smallest threshold that a new negative text passes with at most this probability, if it is drawn as these were.

    Split conformal (Vovk et al. 2005): with n scores the k-th largest, k = ⌊rate (n + 1)⌋. None where n is too small for the rate.
    """
    scores = np.sort(np.asarray(negative, dtype=np.float64))[::-1]
    k = int(rate * (len(scores) + 1) + 1e-9)
    return None if k < 1 else float(scores[k - 1])


def bag_of_words(
    positive: Sequence[str], negative: Sequence[str], test_positive: Sequence[str], test_negative: Sequence[str]
) -> Estimate:
    """The AUROC of a logistic regression on word counts: what no model is needed for."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression

    counts = CountVectorizer(ngram_range=(1, 2))
    labels = np.arange(len(positive) + len(negative)) < len(positive)
    found = LogisticRegression(max_iter=1000).fit(counts.fit_transform([*positive, *negative]), labels)
    high, low = (found.decision_function(counts.transform(list(texts))) for texts in (test_positive, test_negative))
    return auroc(np.asarray(high), np.asarray(low))
