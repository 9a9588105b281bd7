"""Neurons selective for a concept: chosen on some groups of texts, judged on others.

Half of the groups (words, templates) choose: in every layer, the neurons with the largest AUROC for concept texts against
others. The other half judges each of them: AUROC over groups with its exact p-value (`features.ranks`), corrected over all
chosen neurons (Benjamini & Hochberg 1995). The concept's layer is the earliest whose neurons are within a standard error of the
best layer's, since later layers carry on what an earlier one computed.

Sources: Bau et al. 2018 (selective units); Gurnee et al. 2023, "Finding Neurons in a Haystack" (sparse probing);
Breiman et al. 1984 (the one-standard-error rule).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from neuroscope.engines.sites import Component
from neuroscope.errors import DatasetError
from neuroscope.features.concepts import ConceptTexts
from neuroscope.features.ranks import Labels, aurocs, grouped, p_values, smallest_p, strongest
from neuroscope.features.readings import read_texts
from neuroscope.models.model import TransformerModel
from neuroscope.tasks.statistics import Estimate, wilson

_CHOSEN = 20
_COMPONENTS = 4
_RESAMPLES = 200


@dataclass(frozen=True)
class Selected:
    """The result of the search. ids, aurocs, p_values, q_values, values: of the layer's surviving neurons, strongest first.

    values: (neurons, texts) on the judging texts.
    """

    layer: int
    ids: list[int]
    aurocs: list[float]
    p_values: list[float]
    q_values: list[float]
    values: NDArray[np.float32]
    by_layer: list[float]
    probe_accuracy: Estimate
    pca: list[dict[str, float]]
    candidates: int


def select(model: TransformerModel, choosing: ConceptTexts, judging: ConceptTexts, *, level: float, seed: int) -> Selected:
    """Search all layers. Raises `DatasetError` if even a perfect neuron could not survive the correction."""
    layers = range(model.architecture.layers)
    count = candidates_per_layer(choosing, judging, len(layers), level)
    before, texts = (
        read_texts(model, part.texts, Component.MLP, layers, at_end=part.at_end, name=name)
        for part, name in ((choosing, "choosing by"), (judging, "judging by"))
    )
    first, second = grouped(before, choosing.groups), grouped(texts, judging.groups)
    labels = choosing.group_labels(), judging.group_labels()
    chosen = np.stack([strongest(first[layer], labels[0], count) for layer in layers])
    values = np.stack([second[layer][:, chosen[layer]] for layer in layers])
    judged = np.stack([aurocs(each, labels[1]) for each in values])
    p = p_values(np.concatenate(values, axis=1), labels[1])
    q = stats.false_discovery_control(p, method="bh").reshape(judged.shape)
    survives = (q <= level) & (judged > 0.5)
    by_layer = np.where(survives, judged, 0.5).mean(1)
    best = int(np.argmax(by_layer))
    error = standard_error(values[best], labels[1], survives[best], seed=seed)
    layer = int(np.argmax(by_layer >= by_layer[best] - error))
    kept = [int(at) for at in np.argsort(-judged[layer], kind="stable") if survives[layer, at]]
    return Selected(
        layer=layer,
        ids=[int(chosen[layer, at]) for at in kept],
        aurocs=[float(judged[layer, at]) for at in kept],
        p_values=[float(p.reshape(judged.shape)[layer, at]) for at in kept],
        q_values=[float(q[layer, at]) for at in kept],
        values=texts[layer][:, chosen[layer, kept]].T,
        by_layer=by_layer.tolist(),
        probe_accuracy=probe_accuracy(first[layer], labels[0], second[layer], labels[1]),
        pca=principal_components(first[layer], second[layer], labels[1]),
        candidates=judged.size,
    )


def candidates_per_layer(choosing: ConceptTexts, judging: ConceptTexts, layers: int, level: float) -> int:
    """Number of judged neurons per layer: as many as let a single perfect neuron survive the correction.

    For m judged neurons the smallest p-value must be at most level / m (Benjamini & Hochberg 1995). With a and b judging groups
    it is 2 / C(a + b, a): 9 of either kind suffice for 480 neurons at 5 %, 13 for a hundred thousand.
    """
    positive, negative = judging.counts()
    least = smallest_p(positive, negative) if positive and negative else 1.0
    if min(*choosing.counts(), positive, negative) < 1 or least > level / layers:
        total = [mine + other for mine, other in zip(choosing.counts(), judging.counts(), strict=True)]
        raise DatasetError(
            f"{_counted(total[0], judging.kind)} for the concept {judging.name} and {_counted(total[1], judging.kind)} against it "
            f"are too few to find neurons and judge them: half of them judge, and a neuron that separates these without error has p = {least:.2g}, but {layers} layers need {level / layers:.2g}.",
            remedy=f"Give at least {2 * _fewest(layers, level)} of either kind.",
        )
    return min(_CHOSEN, int(level / (least * layers)))


def _fewest(layers: int, level: float) -> int:
    """The fewest groups of either kind that can judge one neuron of every layer."""
    count = 1
    while smallest_p(count, count) > level / layers:
        count += 1
    return count


def _counted(count: int, kind: str) -> str:
    if kind == "text":
        kind = "independent text"
    head, _, tail = kind.partition(" of ")
    plural = head if count == 1 else f"{head}s"
    return f"{count} {plural}{' of ' if tail else ''}{tail}"


def standard_error(values: NDArray[Any], labels: Labels, counted: NDArray[np.bool_], *, seed: int = 0) -> float:
    """The bootstrap standard error of a layer's mean AUROC, resampling groups within their kind; units not `counted` are
    chance.
    """
    random = np.random.default_rng(seed)
    kinds = np.flatnonzero(labels), np.flatnonzero(~labels)
    means = []
    for _ in range(_RESAMPLES):
        drawn = np.concatenate([random.choice(kind, len(kind)) for kind in kinds])
        means.append(np.where(counted, aurocs(values[drawn], labels[drawn]), 0.5).mean())
    return float(np.std(means, ddof=1))


def probe_accuracy(train: NDArray[Any], train_labels: Labels, test: NDArray[Any], test_labels: Labels) -> Estimate:
    """Held-out accuracy, in groups, of a logistic probe on standardised activations."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    probe.fit(train, train_labels)
    return wilson(int((probe.predict(test) == test_labels).sum()), len(test_labels))


def principal_components(train: NDArray[Any], test: NDArray[Any], labels: Labels) -> list[dict[str, float]]:
    """The first components' share of variance, and each one's AUROC on the judging groups (in either direction)."""
    from sklearn.decomposition import PCA

    pca = PCA(n_components=min(_COMPONENTS, *train.shape)).fit(train)
    found = aurocs(pca.transform(test), labels)
    return [
        {"variance": float(variance), "auroc": float(max(value, 1 - value))}
        for variance, value in zip(pca.explained_variance_ratio_, found, strict=True)
    ]
