"""Neurons that respond to a concept.

Half of the texts choose: in every layer, the neurons with the largest AUROC for telling concept texts from others. The
other half judges each of them: AUROC with a permutation p-value (labels shuffled), corrected over all that were chosen
(Benjamini & Hochberg 1995). The concept's layer is the earliest whose neurons judge within a standard error as well as the
best layer's: later ones carry on what an earlier one found. A logistic probe on that layer and the first principal
components are given beside, since a concept may be in a layer without being in single neurons.

Sources: Bau et al. 2018 (selective units); Gurnee et al. 2023, "Finding Neurons in a Haystack" (sparse probing);
Breiman et al. 1984 (the one-standard-error rule).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from neuroscope.errors import ArgumentError
from neuroscope.features.concepts import concept_texts
from neuroscope.features.readings import Readings, read_texts
from neuroscope.instrument import Instrument
from neuroscope.models.model import TransformerModel
from neuroscope.models.sites import Component
from neuroscope.naming import snake_case
from neuroscope.provenance import provenance
from neuroscope.results import Provenance, Result
from neuroscope.tasks.statistics import Estimate, wilson
from neuroscope.vocabulary import public, python_only

_CHOSEN = 20
_PERMUTATIONS = 2000
_AT_ONCE = 4000
_COMPONENTS = 4
_RESAMPLES = 200


@public
@dataclass(frozen=True)
class Neuron(Result):
    """One neuron of the set's layer: AUROC on the judging texts, its permutation p-value and q-value, and top contexts."""

    id: int
    auroc: float
    p_value: float
    q_value: float
    top_contexts: list[str]

    def print_string(self) -> str:
        return f"a Neuron({self.id}, AUROC {self.auroc:.3f})"


@public
@dataclass(frozen=True)
class NeuronSet(Result):
    """The neurons of one layer that respond to a concept: iterating gives their ids, strongest first.

    auroc: the mean of theirs. probe_accuracy: of a logistic probe on the whole layer, on the judging texts.
    pca: share of variance of the layer's first principal components, and each one's AUROC. by_layer: mean AUROC of every
    layer's chosen neurons, those that the correction dismisses counted as chance.
    """

    concept: str
    layer: int
    neurons: list[Neuron]
    auroc: float
    probe_accuracy: Estimate
    pca: list[dict[str, float]]
    by_layer: list[float]
    provenance: Provenance
    _model: TransformerModel = field(repr=False)

    @classmethod
    @python_only
    def from_dictionary(cls, data: Mapping[str, Any], model: TransformerModel) -> NeuronSet:
        """A set from what its `as_dictionary` answered."""
        return cls(
            concept=data["concept"],
            layer=data["layer"],
            neurons=[
                Neuron(each["id"], each["auroc"], each["pValue"], each["qValue"], each["topContexts"])
                for each in data["neurons"]
            ],
            auroc=data["auroc"],
            probe_accuracy=Estimate(**data["probeAccuracy"]),
            pca=data["pca"],
            by_layer=data["byLayer"],
            provenance=Provenance(**{snake_case(name): value for name, value in data["provenance"].items()}),
            _model=model,
        )

    @property
    def model(self) -> TransformerModel:
        return self._model

    @property
    def ids(self) -> list[int]:
        return [neuron.id for neuron in self.neurons]

    @property
    def scores(self) -> dict[int, float]:
        """AUROC by neuron id."""
        return {neuron.id: neuron.auroc for neuron in self.neurons}

    def __iter__(self) -> Iterator[int]:
        return iter(self.ids)

    def __len__(self) -> int:
        return len(self.neurons)

    def print_string(self) -> str:
        return f"a NeuronSet({self.concept}: {len(self)} neurons of layer {self.layer}, AUROC {self.auroc:.3f})"

    def summary(self) -> str:
        lines = [
            f"{self.concept} in {self.provenance.title}: {len(self)} neurons of layer {self.layer}",
            f"  probe accuracy   {self.probe_accuracy}",
            f"  mean AUROC       {self.auroc:.3f} on texts that did not choose them",
            f"  {'neuron':>8}  {'AUROC':>6}  {'q':>8}  strongest context",
        ]
        lines += [
            f"  {neuron.id:>8}  {neuron.auroc:>6.3f}  {neuron.q_value:>8.2g}  {neuron.top_contexts[0][:70]!r}"
            for neuron in self.neurons[:10]
        ]
        return "\n".join(lines)


@public
class NeuronAnalyzer(Instrument):
    """Finds neurons of one model. texts: how many of either kind. level: the false-discovery rate that is allowed."""

    def __init__(self, model: TransformerModel, *, texts: int = 120, level: float = 0.05, seed: int | None = None) -> None:
        super().__init__(model, seed)
        if not 0 < level < 1:
            raise ArgumentError(f"A false-discovery rate is between 0 and 1, not {level}.")
        self.texts: int = texts
        self.level: float = level

    def find_neurons_for(self, concept: str | Sequence[str], against: Sequence[str] | None = None) -> NeuronSet:
        """The neurons of a concept's layer: a name (`features.concepts`), or your own words or texts.

        A set may be empty: then no neuron survives the correction. Raises `ArgumentError` for an unknown concept and
        `DatasetError` for too few texts.
        """
        found = concept_texts(concept, against, n=self.texts, seed=self.seed)
        choosing, judging = found.split(self.seed)
        layers = range(self._model.architecture.layers)
        first, second = (
            read_texts(self._model, part.texts, Component.MLP, layers, at_end=part.at_end, name=name)
            for part, name in ((choosing, "choosing by"), (judging, "judging by"))
        )
        labels = np.array(choosing.labels), np.array(judging.labels)
        chosen = [np.argsort(-aurocs(first[layer], labels[0]), kind="stable")[:_CHOSEN] for layer in layers]
        judging_values = np.stack([second[layer][:, chosen[layer]] for layer in layers])
        judged = np.stack([aurocs(values, labels[1]) for values in judging_values])
        p_values = permutation_p_values(np.concatenate(judging_values, axis=1), labels[1], seed=self.seed)
        q_values = stats.false_discovery_control(p_values, method="bh").reshape(judged.shape)
        survives = (q_values <= self.level) & (judged > 0.5)
        by_layer = np.where(survives, judged, 0.5).mean(1)
        best = int(np.argmax(by_layer))
        error = standard_error(judging_values[best], labels[1], survives[best], seed=self.seed)
        layer = int(np.argmax(by_layer >= by_layer[best] - error))
        neurons = []
        for index in np.argsort(-judged[layer], kind="stable"):
            if survives[layer, index]:
                top = [judging.texts[at] for at in np.argsort(-judging_values[layer][:, index], kind="stable")[:5]]
                p, q = float(p_values.reshape(judged.shape)[layer, index]), float(q_values[layer, index])
                neurons.append(Neuron(int(chosen[layer][index]), float(judged[layer, index]), p, q, top))
        return NeuronSet(
            concept=found.name,
            layer=layer,
            neurons=neurons,
            auroc=float(np.mean([neuron.auroc for neuron in neurons])) if neurons else 0.5,
            probe_accuracy=probe_accuracy(first[layer], labels[0], second[layer], labels[1]),
            pca=principal_components(first[layer], second[layer], labels[1]),
            by_layer=by_layer.tolist(),
            provenance=provenance(self._model, None, self.seed, choosing=len(labels[0]), judging=len(labels[1])),
            _model=self._model,
        )


def aurocs(values: NDArray[Any], labels: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The AUROC (units,) of each column of values (texts, units) for the labels (texts,), ties counted half."""
    ranks = stats.rankdata(values, axis=0)
    positive = int(labels.sum())
    negative = len(labels) - positive
    u = ranks[labels].sum(0) - positive * (positive + 1) / 2
    return np.asarray(u / (positive * negative), dtype=np.float64)


def permutation_p_values(
    values: NDArray[Any], labels: NDArray[np.bool_], *, permutations: int = _PERMUTATIONS, seed: int = 0
) -> NDArray[np.float64]:
    """One-sided p-values (units,): how often shuffled labels give as large an AUROC. The smallest is 1 / (permutations + 1)."""
    ranks = stats.rankdata(values, axis=0)
    random = np.random.default_rng(seed)
    least = ranks[labels].sum(0) - 1e-9
    exceeding = np.zeros(values.shape[1])
    for first in range(0, permutations, _AT_ONCE):
        count = min(_AT_ONCE, permutations - first)
        shuffled = np.stack([random.permutation(labels) for _ in range(count)]).astype(np.float64)
        exceeding += (shuffled @ ranks >= least).sum(0)
    return np.asarray((1 + exceeding) / (permutations + 1))


def standard_error(values: NDArray[Any], labels: NDArray[np.bool_], counted: NDArray[np.bool_], *, seed: int = 0) -> float:
    """The bootstrap standard error of a layer's mean AUROC, texts drawn within their kind; units not counted are chance."""
    random = np.random.default_rng(seed)
    kinds = np.flatnonzero(labels), np.flatnonzero(~labels)
    means = []
    for _ in range(_RESAMPLES):
        drawn = np.concatenate([random.choice(kind, len(kind)) for kind in kinds])
        means.append(np.where(counted, aurocs(values[drawn], labels[drawn]), 0.5).mean())
    return float(np.std(means, ddof=1))


def probe_accuracy(
    train: Readings, train_labels: NDArray[np.bool_], test: Readings, test_labels: NDArray[np.bool_]
) -> Estimate:
    """Held-out accuracy of a logistic probe on standardised activations."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    probe.fit(train, train_labels)
    return wilson(int((probe.predict(test) == test_labels).sum()), len(test_labels))


def principal_components(train: Readings, test: Readings, labels: NDArray[np.bool_]) -> list[dict[str, float]]:
    """The first components' share of variance, and how well each tells the judging texts apart (AUROC, either direction)."""
    from sklearn.decomposition import PCA

    pca = PCA(n_components=min(_COMPONENTS, *train.shape)).fit(train)
    found = aurocs(pca.transform(test), labels)
    return [
        {"variance": float(variance), "auroc": float(max(value, 1 - value))}
        for variance, value in zip(pca.explained_variance_ratio_, found, strict=True)
    ]
