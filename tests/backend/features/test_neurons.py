"""Neurons for concepts: a planted one is found where it was planted, and nothing is found where nothing is."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from neuroscope.errors import ArgumentError, DatasetError
from neuroscope.features.concepts import concept_texts, names
from neuroscope.features.neurons import NeuronAnalyzer
from neuroscope.features.ranks import aurocs, grouped, p_values, smallest_p, strongest, upper_tail
from neuroscope.features.selectivity import standard_error
from neuroscope.models.model import TransformerModel
from neuroscope.tasks.dataset import Dataset, Example
from neuroscope.tasks.lexicon import NAMES
from tests import tiny
from tests.backend.features.planted import CONCEPT, LAYER, NEURON, OTHERS, planted_model, texts


def test_aurocs_are_those_of_scikit_learn_with_ties() -> None:
    random = np.random.default_rng(0)
    values = random.integers(0, 6, (40, 5)).astype(np.float64)
    labels = random.random(40) < 0.4
    expected = [roc_auc_score(labels, values[:, unit]) for unit in range(5)]
    assert aurocs(values, labels) == pytest.approx(expected)


def test_p_values_are_those_of_scipys_exact_test() -> None:
    from scipy import stats

    random = np.random.default_rng(1)
    labels = np.arange(21) < 9
    values = random.normal(size=(21, 40)) + np.linspace(0.5, 4, 40) * labels[:, None]
    exact = [stats.mannwhitneyu(values[labels, unit], values[~labels, unit], method="exact").pvalue for unit in range(40)]
    larger = aurocs(values, labels) > 0.5
    assert larger.sum() > 35
    assert p_values(values, labels)[larger] == pytest.approx(np.array(exact)[larger], rel=1e-9)
    assert (p_values(-values, labels)[20:] == 1).all()


def test_p_values_reach_as_far_as_the_groups_allow() -> None:
    labels = np.arange(60) < 30
    perfect = np.where(labels, 1.0, 0.0)[:, None] + np.arange(60)[:, None] / 100
    assert p_values(perfect, labels)[0] == pytest.approx(smallest_p(30, 30)) == pytest.approx(1.69e-17, rel=0.01)
    assert smallest_p(13, 13) * 100_000 < 0.05 < smallest_p(12, 12) * 100_000
    assert upper_tail(3, 2) == pytest.approx(np.array([10, 9, 8, 6, 4, 2, 1]) / 10)


def test_ties_count_against_a_unit_and_the_gaussian_tail_is_the_heavier_one() -> None:
    labels = np.arange(12) < 6
    silent = np.zeros((12, 1))
    assert p_values(silent, labels)[0] == 1
    half = np.array([1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0.0])[:, None]  # fires at half of the concept's words and at no other
    assert p_values(half, labels)[0] > p_values(half + np.linspace(1e-3, 0, 12)[:, None], labels)[0]
    counted = upper_tail(100, 100)
    deviation = np.sqrt(100 * 100 * 201 / 12)
    from scipy import stats

    gaussian = stats.norm.sf((np.arange(10_001) - 0.5 - 5000) / deviation)
    assert (gaussian[counted < 1e-3] >= counted[counted < 1e-3]).all()
    assert upper_tail(150, 150)[-1] < 1e-45


def test_groups_are_means_of_their_texts_and_ties_are_broken_by_distance() -> None:
    values = np.array([[1.0, 0], [3, 0], [5, 2]])
    assert grouped(values, ["a", "a", "b"]).tolist() == [[2, 0], [5, 2]]
    labels = np.array([True, True, False, False])
    both = np.array([[1.0, 9, 0], [1.1, 10, 0], [0.9, 0, 1], [0, 1, 1]])
    assert strongest(both, labels, 2).tolist() == [1, 0]


def test_a_planted_neuron_is_found_at_its_layer(framework: str) -> None:
    positive, negative = texts(60)
    found = NeuronAnalyzer(planted_model(on=framework)).find_neurons_for(positive, negative)
    assert found.layer == LAYER
    assert found.ids == [NEURON]
    neuron = found.neurons[0]
    assert neuron.auroc > 0.99
    assert neuron.q_value < 1e-8
    assert found.exists
    assert found.reason is None
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


def test_one_neuron_in_thirteen_layers_is_found_by_few_texts() -> None:
    """Thirteen times twenty neurons are judged; nine texts of either kind let one that tells them without error pass."""
    positive, negative = texts(18)
    found = NeuronAnalyzer(planted_model(layers=13)).find_neurons_for(positive, negative)
    assert found.provenance.sizes["judging"] == 18
    assert (found.layer, found.ids) == (LAYER, [NEURON])
    assert found.neurons[0].p_value == pytest.approx(smallest_p(9, 9))


@pytest.mark.slow
def test_random_words_of_one_kind_are_no_concept() -> None:
    """Forty draws of names against other names: at most 5 % of them find a neuron."""
    model = TransformerModel.from_hugging_face("bundled:gpt2-medium")
    draws = []
    for seed in range(40):
        words = np.random.default_rng(seed).permutation(NAMES).tolist()
        draws.append(NeuronAnalyzer(model, seed=seed).find_neurons_for(words[:34], words[34:68]))
    assert sum(draw.exists for draw in draws) <= 2
    none = next(draw for draw in draws if not draw.exists)
    assert none.neurons == []
    assert none.summary().startswith("No neurons for own words in bundled:gpt2-medium: none of 260 judged neurons")
    assert none.as_dictionary()["exists"] is False


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
    """Every token goes to the second expert, so the neurons that tell the planted words are that expert's."""
    model = tiny.model("gpt_oss", on=framework)
    width = model.architecture.d_mlp
    direction = np.zeros(model.architecture.d_model)
    direction[0], direction[1] = 4, -4
    embedding = model.weights("embed.W_E").read()
    embedding[list(CONCEPT)] += direction
    embedding[list(OTHERS)] -= direction
    model.weights("embed.W_E").write(embedding)
    for layer in range(tiny.LAYERS):
        router = model.weights(f"{layer}.mlp.b_router")
        router.write(np.where(np.arange(model.architecture.experts) == 1, 50.0, 0.0))
    found = NeuronAnalyzer(model).find_neurons_for(*texts(60))
    assert any(width <= neuron < 2 * width for neuron in found)
    assert all(0 <= neuron < model.architecture.neurons for neuron in found)


@pytest.mark.parametrize("name", names())
def test_every_named_concept_has_halves_that_share_nothing(name: str) -> None:
    found = concept_texts(name, seed=4)
    first, second = found.split(0)
    assert not set(first.texts) & set(second.texts)
    assert not set(first.groups) & set(second.groups)
    if first.carriers[0]:
        assert not set(first.carriers) & set(second.carriers)
        assert not any(set(one.split()) & set(first.groups) for one in second.texts)
    assert min(*first.counts(), *second.counts()) >= 7
    assert abs(np.subtract(*second.counts())) <= 1


def test_own_texts_are_tied_by_the_words_that_fill_their_slots() -> None:
    carriers = ("There is a story about {}.", "I saw {} on television.", "What do you know about {}?")
    found = concept_texts(
        [one.format(word) for word in NAMES[:10] for one in carriers],
        [one.format(word) for word in NAMES[10:20] for one in carriers],
    )
    assert found.counts() == (10, 10)
    first, second = found.split(1)
    words = [{name for name in NAMES if any(name in text for text in half.texts)} for half in (first, second)]
    assert len(words[0]) == len(words[1]) == 10
    assert not words[0] & words[1]


def test_words_that_both_kinds_share_and_unlike_texts_tie_nothing() -> None:
    reviews = [f"The {work} was {word}." for work in ("film", "play", "book") for word in ("good", "bad")]
    found = concept_texts([f"Oh: {text}" for text in reviews], reviews)
    assert found.counts() == (6, 6)
    assert concept_texts(["a first text", "another one here"], ["no such thing", "and more of it"]).counts() == (2, 2)


def test_a_dataset_is_a_concept_and_its_units_tie_its_prompts() -> None:
    def examples(words: list[str]) -> Dataset:
        return Dataset(
            [Example(f"{template} {word}", meta={"units": f"word:{word}"}) for word in words for template in ("One", "Two")]
        )

    found = concept_texts(examples(["red", "blue"]), examples(["big", "small", "old"]))
    assert found.counts() == (2, 3)
    assert len(found.texts) == 10


def test_what_cannot_be_found_is_said() -> None:
    analyzer = NeuronAnalyzer(tiny.model("gpt2"))
    with pytest.raises(ArgumentError) as caught:
        analyzer.find_neurons_for("country_name")
    assert "country_names" in caught.value.remedy
    with pytest.raises(DatasetError, match="too few"):
        analyzer.find_neurons_for(["a b", "c d"], ["e f"] * 30)
    with pytest.raises(DatasetError, match="2 words for the concept own words and 1 word against it are too few") as few:
        analyzer.find_neurons_for(["France", "Spain"], ["dog"])
    assert few.value.remedy == "Give at least 10 of either kind."
    assert smallest_p(5, 5) <= 0.05 / tiny.LAYERS < smallest_p(4, 4)
    with pytest.raises(ArgumentError, match="only be compared with a dataset"):
        analyzer.find_neurons_for(Dataset([Example("a")]), ["b"])
    with pytest.raises(DatasetError, match="that are not empty"):
        analyzer.find_neurons_for(["a", " "])
    with pytest.raises(DatasetError, match="compare them with"):
        analyzer.find_neurons_for(["one text", "two texts"])
    with pytest.raises(DatasetError, match="both sides"):
        analyzer.find_neurons_for([f"a {n}" for n in range(30)], [f"a {n}" for n in range(29, 60)])
    with pytest.raises(ArgumentError, match="false-discovery"):
        NeuronAnalyzer(tiny.model("gpt2"), level=2)
