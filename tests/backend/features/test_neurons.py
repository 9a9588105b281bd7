"""Neurons for concepts: a planted one is found where it was planted, and nothing is found where nothing is."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from neuroscope.errors import ArgumentError, DatasetError
from neuroscope.features.concepts import concept_texts, names
from neuroscope.features.neurons import NeuronAnalyzer, aurocs, permutation_p_values, standard_error
from tests import tiny
from tests.backend.features.planted import LAYER, NEURON, planted_model, texts


def test_aurocs_are_those_of_scikit_learn_with_ties() -> None:
    random = np.random.default_rng(0)
    values = random.integers(0, 6, (40, 5)).astype(np.float64)
    labels = random.random(40) < 0.4
    expected = [roc_auc_score(labels, values[:, unit]) for unit in range(5)]
    assert aurocs(values, labels) == pytest.approx(expected)


def test_permutation_p_values_are_uniform_without_an_effect() -> None:
    random = np.random.default_rng(1)
    values, labels = random.normal(size=(60, 400)), np.arange(60) < 30
    p_values = permutation_p_values(values, labels, permutations=500)
    assert 0.02 < (p_values < 0.05).mean() < 0.09
    assert p_values.min() >= 1 / 501


def test_a_planted_neuron_is_found_at_its_layer(framework: str) -> None:
    positive, negative = texts(60)
    found = NeuronAnalyzer(planted_model(on=framework)).find_neurons_for(positive, negative)
    assert found.layer == LAYER
    assert found.ids == [NEURON]
    neuron = found.neurons[0]
    assert neuron.auroc > 0.99
    assert neuron.q_value < 0.05
    assert set(neuron.top_contexts) <= set(positive)
    assert found.probe_accuracy.low > 0.7
    assert list(found) == [NEURON]
    assert found.as_dictionary()["layer"] == LAYER


def test_of_two_layers_that_tell_as_well_the_earlier_one_is_taken(framework: str) -> None:
    model = planted_model(on=framework)
    for name in ("W_in", "b_in"):
        planted = model.weights(f"{LAYER}.mlp.{name}[{NEURON}]").read()
        model.weights(f"{LAYER + 1}.mlp.{name}[{NEURON}]").write(planted)
    found = NeuronAnalyzer(model).find_neurons_for(*texts(60))
    assert found.by_layer[LAYER + 1] > 0.51
    assert found.layer == LAYER


def test_the_standard_error_of_an_auroc_is_hanley_and_mcneils() -> None:
    from scipy import stats

    random = np.random.default_rng(0)
    labels = np.arange(120) < 60
    values = random.normal(size=(120, 1)) + labels[:, None]
    area = float(aurocs(values, labels)[0])
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    formula = np.sqrt((area * (1 - area) + 59 * (q1 - area**2) + 59 * (q2 - area**2)) / 60**2)
    assert area == pytest.approx(stats.norm.cdf(1 / np.sqrt(2)), abs=0.06)
    assert standard_error(values, labels, np.array([True])) == pytest.approx(formula, rel=0.2)
    assert standard_error(values, labels, np.array([False])) == 0


@pytest.mark.slow
def test_nothing_is_found_where_nothing_is_planted() -> None:
    model = planted_model(planted=False)
    words = [f"w{a} w{b} w{c}" for a in range(10, 20) for b in range(20, 30) for c in range(30, 34)]
    false_alarms = 0
    for seed in range(100):
        shuffled = np.random.default_rng(seed).permutation(words).tolist()
        found = NeuronAnalyzer(model, seed=seed).find_neurons_for(shuffled[:60], shuffled[60:120])
        false_alarms += len(found) > 0
    assert false_alarms <= 12  # at a rate of 5 % more than 12 of 100 happen once in a thousand times


def test_a_mixture_of_experts_has_neurons_over_all_experts(framework: str) -> None:
    model = tiny.model("gpt_oss", on=framework)
    positive, negative = texts(30)
    found = NeuronAnalyzer(model, texts=30).find_neurons_for(positive, negative)
    assert all(0 <= neuron < model.architecture.neurons for neuron in found)


@pytest.mark.parametrize("name", names())
def test_every_named_concept_has_matched_texts(name: str) -> None:
    found = concept_texts(name, n=60, seed=4)
    assert sum(found.labels) >= 20
    first, second = found.split(0)
    assert not set(first.texts) & set(second.texts)
    assert abs(sum(first.labels) - sum(second.labels)) <= 1


def test_what_cannot_be_found_is_said() -> None:
    analyzer = NeuronAnalyzer(tiny.model("gpt2"))
    with pytest.raises(ArgumentError) as caught:
        analyzer.find_neurons_for("country_name")
    assert "country_names" in caught.value.remedy
    with pytest.raises(DatasetError, match="too few"):
        analyzer.find_neurons_for(["a b", "c d"], ["e f"] * 30)
    with pytest.raises(DatasetError, match="2 words for the concept and 1 word against it are too few") as few:
        analyzer.find_neurons_for(["France", "Spain"], ["dog"])
    assert few.value.remedy == "Give at least 5 of either kind."
    with pytest.raises(DatasetError, match="compare them with"):
        analyzer.find_neurons_for(["one text", "two texts"])
    with pytest.raises(DatasetError, match="both sides"):
        analyzer.find_neurons_for([f"a {n}" for n in range(30)], [f"a {n}" for n in range(29, 60)])
    with pytest.raises(ArgumentError, match="false-discovery"):
        NeuronAnalyzer(tiny.model("gpt2"), level=2)
