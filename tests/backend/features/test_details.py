"""What features are measured with, computed a second way: readings, statistics of units, replacements, and conclusions' boundaries."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from scipy import stats
from scipy.special import logsumexp

from neuroscope.engines.protocol import Edit
from neuroscope.engines.sites import Component, Site
from neuroscope.events import Job
from neuroscope.features import ablation, effects
from neuroscope.features.ablated import AblatedRuns, after_first, by_length
from neuroscope.features.concepts import concept_texts
from neuroscope.features.contexts import Context, hypothesis, strongest
from neuroscope.features.entangled import judge, responses, second_largest, selectivity
from neuroscope.features.entanglement import _Basis, _halves, _Unit
from neuroscope.features.grouping import group_texts
from neuroscope.features.matched import Loudness, matched_sets
from neuroscope.features.ranks import aurocs, p_values, separations, upper_tail
from neuroscope.features.readings import read_sites
from neuroscope.features.texts import DOMAINS, Text, several
from neuroscope.models.model import TransformerModel
from neuroscope.tasks.dataset import Example
from neuroscope.tasks.statistics import Estimate, difference_test
from tests.backend.features.planted import ANSWER, LAYER, WRONG, planted_model, texts


@pytest.fixture(scope="module")
def model() -> TransformerModel:
    return planted_model()


def activations(model: TransformerModel, text: str, site: Site) -> np.ndarray:
    """(tokens, width) of one text alone."""
    return np.asarray(model.engine.ops.to_numpy(model.engine.forward(model.encode(text), capture=[site])[site])[0])


def test_a_reading_is_the_mean_over_a_texts_tokens_but_the_first(model: TransformerModel) -> None:
    random = np.random.default_rng(0)
    some = [" ".join(f"w{word}" for word in random.integers(10, 90, 1 + count % 4)) for count in range(19)]
    sites = [Site(0, Component.MLP), Site(2, Component.MLP)]
    for at_end in (False, True):
        found = read_sites(model, some, sites, at_end=at_end)
        assert found.shape == (2, 19, 128)
        for at, site in enumerate(sites):
            for row, text in enumerate(some):
                alone = activations(model, text, site)
                expected = alone[-1] if at_end or len(alone) == 1 else alone[1:].mean(0)
                assert found[at, row] == pytest.approx(expected, abs=1e-5)
    (heads,) = read_sites(model, some[:5], [Site(1, Component.HEAD_OUTPUT)], at_end=False)
    assert heads.shape == (5, 4, 8)
    assert heads[3] == pytest.approx(activations(model, some[3], Site(1, Component.HEAD_OUTPUT))[1:].mean(0), abs=1e-5)
    (stream,) = read_sites(model, some[:2], [Site(None, Component.EMBEDDING)], at_end=True)
    assert stream[1] == pytest.approx(activations(model, some[1], Site(None, Component.EMBEDDING))[-1], abs=1e-5)


def test_units_are_ordered_by_welchs_t() -> None:
    random = np.random.default_rng(0)
    labels = np.arange(17) < 5
    values = random.normal(size=(17, 6)) * np.arange(1, 7)
    expected = stats.ttest_ind(values[labels], values[~labels], equal_var=False).statistic
    biased = [((len(part) - 1) / len(part)) for part in (values[labels], values[~labels])]
    spread = [values[kind].var(0, ddof=1) * share / kind.sum() for kind, share in zip((labels, ~labels), biased, strict=True)]
    assert separations(values, labels) == pytest.approx(
        (values[labels].mean(0) - values[~labels].mean(0)) / np.sqrt(sum(spread)), rel=1e-6
    )
    assert np.array_equal(np.argsort(separations(values, labels)), np.argsort(expected))
    assert separations(np.ones((4, 1)), np.arange(4) < 2)[0] == 0


def test_the_tail_is_counted_or_gaussian() -> None:
    assert upper_tail(2, 2).tolist() == pytest.approx([1, 5 / 6, 4 / 6, 2 / 6, 1 / 6])
    assert upper_tail(1, 3).tolist() == pytest.approx([1, 3 / 4, 2 / 4, 1 / 4])
    assert upper_tail(4, 1).tolist() == pytest.approx([1, 4 / 5, 3 / 5, 2 / 5, 1 / 5])
    assert len(upper_tail(141, 142)) == 141 * 142 + 1
    assert upper_tail(141, 142)[141 * 71] == pytest.approx(0.5, abs=1e-3)
    above = 141 * 71 + round(2 * np.sqrt(141 * 142 * 284 / 12))
    assert upper_tail(141, 142)[above] == pytest.approx(stats.norm.sf(2), rel=0.01)


def test_selectivity_compares_the_best_domain_with_the_mean_of_the_others() -> None:
    assert selectivity(np.array([0.8, 0.9, 0.6])) == pytest.approx((0.8 - 0.4) / (0.8 + 0.4))
    assert selectivity(np.array([0.2, 0.9])) == 1  # below chance counts as no response
    assert selectivity(np.array([0.2, 0.3])) == 0


def test_two_domains_of_three_are_judged_by_the_second_smallest_p() -> None:
    random = np.random.default_rng(2)
    domains = [random.normal(size=(9, 8)) + shift for shift in (np.repeat([3.0, 0], [4, 4]), np.repeat([3.0, 0], [2, 6]), 0)]
    background = random.normal(size=(11, 8))
    judged = judge(domains, background, level=0.05)
    labels = np.arange(20) < 9
    p = np.stack([p_values(np.concatenate([each, background]), labels) for each in domains])
    both = np.minimum(2 * np.sort(p, axis=0)[1], 1)
    assert judged.q_values == pytest.approx(stats.false_discovery_control(both, method="bh"))
    assert judged.p_values == pytest.approx(p)
    assert judged.found.tolist() == (judged.q_values <= 0.05).tolist()
    assert judged.found[:2].all()
    bar = both[judged.found].max()
    assert judged.responds.tolist() == ((2 * p <= bar) & judged.found).tolist()
    assert judged.aurocs == pytest.approx(responses(domains, background))
    assert judged.aurocs[1] == pytest.approx(aurocs(np.concatenate([domains[1], background]), labels))
    assert second_largest(np.array([[1, 9], [3, 5], [2, 7]])).tolist() == [2, 7]
    none = judge([each * 0 for each in domains], background * 0, level=0.05)
    assert not none.found.any()
    assert not none.responds.any()


def test_directions_are_components_and_their_opposites() -> None:
    basis = _Basis(np.array([1.0, 0, 0]), np.array([[0.0, 1, 0], [0, 0, 1]]))
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert basis.read(values).tolist() == [[1, -1, 2, -2], [4, -4, 5, -5]]
    assert basis.read(values[None]).shape == (1, 2, 4)
    units = [_Unit(1, index, basis) for index in range(4)]
    assert [unit.read(values).tolist() for unit in units] == basis.read(values).T.tolist()
    assert [unit.site for unit in units] == ["1.residual +PC1", "1.residual −PC1", "1.residual +PC2", "1.residual −PC2"]
    neuron = _Unit(2, 1, None)
    assert (neuron.site, neuron.component, neuron.read(values).tolist()) == ("2.mlp[1]", Component.MLP, [1, 4])


def test_halves_share_no_group() -> None:
    some = [Text(f"t{at}", f"g{at // 2}") for at in range(10)]
    first, second = _halves(some, 3)
    assert (len(first), len(second)) == (4, 6)
    assert not {text.group for text in first} & {text.group for text in second}
    assert sorted([*first, *second], key=lambda text: text.text) == some
    assert len({tuple(_halves(some, seed)[0]) for seed in range(9)}) > 3


def context(domain: str, token: str, value: float) -> Context:
    return Context(domain, ["w5", token], [99.0, value], 1)


def test_a_hypothesis_needs_half_of_the_peaks_of_one_kind_or_seven_tenths_of_two() -> None:
    def peaks(domain: str, **kinds: int) -> list[Context]:
        named = {"numbers": "7", "marks": ",", "words": "walked", "capital": "Mary"}
        return [context(domain, named[kind], 1.0) for kind, count in kinds.items() for _ in range(count)]

    half = [*peaks("a", numbers=5, marks=2, words=2, capital=1), *peaks("b", numbers=6, capital=4)]
    assert hypothesis(half, ["a", "b"]).startswith(
        "Fires at numbers in a and b: 11 of its 20 strongest tokens there, where 55%"
    )
    two = [*peaks("a", numbers=4, marks=3, words=3), *peaks("b", marks=4, numbers=4, capital=2)]
    assert hypothesis(two, ["a", "b"]).startswith("Fires at numbers and punctuation marks in a and b: 15 of its 20")
    none = [*peaks("a", numbers=4, marks=2, words=4), *peaks("b", numbers=4, marks=4, capital=2)]
    assert hypothesis(none, ["a", "b"]).startswith("Its strongest tokens are of no one kind: in a at '7', 'walked', ','; in b")
    # Only the ten strongest tokens of a domain are its peaks.
    weak = [context("a", "walked", -value) for value in range(1, 30)]
    assert "10 of its 10 strongest" in hypothesis([*weak, *peaks("a", numbers=10)], ["a"])
    ranked = strongest([context("a", f"w{value}", value) for value in (1, 5, 3, 4, 2)] + [context("b", "w", 9)], ["b", "a"])
    assert [each.value for each in ranked] == [9, 5, 4, 3]
    assert context("a", "x", 0.123456).as_dictionary() == {
        "domain": "a",
        "text": "w5x",
        "token": "x",
        "activation": 0.123456,
        "tokens": ["w5", "x"],
        "activations": [99.0, 0.1235],
    }


def items() -> list[Example]:
    """Of two lengths, in turn."""
    found = []
    for number, text in enumerate(texts(10, seed=3)[0]):
        clean = text if number % 2 else " ".join(text.split()[1:])
        found.append(Example(clean, "w5 " + clean.split(" ", 1)[1], f"w{ANSWER}", f"w{WRONG}"))
    return found


def scored(model: TransformerModel, example: Example, edit: Edit | None) -> list[float]:
    """Log-odds of the answer and margin over the wrong one."""
    run = model.engine.forward(model.encode(example.clean), edits=[edit] if edit else [])
    logits = model.engine.ops.to_numpy(run.logits)[0, -1].astype(np.float64)
    return [logits[ANSWER] - logsumexp(np.delete(logits, ANSWER)), logits[ANSWER] - logits[WRONG]]


def test_replaced_neurons_are_what_the_mode_says(model: TransformerModel) -> None:
    some, site, ids = items(), Site(LAYER, Component.MLP), [7, 20]
    runs = AblatedRuns(model, LAYER, some, seed=4)
    assert runs.whole == pytest.approx(np.array([scored(model, each, None) for each in some]), abs=1e-4)
    pool = np.concatenate([activations(model, some[at].clean, site)[1:] for chunk in by_length(model, some) for at in chunk])
    assert runs.activations == pytest.approx(pool, abs=1e-5)
    for mode, first, value in (("zero", 0, np.zeros(2)), ("mean", 1, pool[:, ids].mean(0))):

        def apply(activation: object, _: object, first: int = first, value: np.ndarray = value) -> object:
            changed = model.engine.ops.copy(activation)  # type: ignore[arg-type]
            changed[:, first:, ids] = model.engine.ops.asarray(value)
            return changed

        expected = [scored(model, each, Edit(site, apply)) for each in some]
        assert runs.scores(mode, [ids], Job("", None, ""))[0] == pytest.approx(np.array(expected), abs=1e-4)
    drawn = np.array([[0, 3], [2, 1]])
    assert np.array_equal(runs._instead("resample", np.array(ids), drawn), runs.activations[drawn][..., ids])
    job = Job("", None, "")
    assert runs.scores("resample", [ids, [3]], job).shape == (2, 10, 2)
    assert not np.allclose(
        runs.scores("resample", [ids], job), AblatedRuns(model, LAYER, some, seed=5).scores("resample", [ids], job)
    )
    assert after_first(np.arange(6.0, dtype=np.float32).reshape(2, 3, 1)).ravel().tolist() == [1, 2, 4, 5]
    assert after_first(np.arange(2.0, dtype=np.float32).reshape(2, 1, 1)).ravel().tolist() == [0, 1]


def test_margins_and_the_damage_of_silence_are_of_each_item(model: TransformerModel) -> None:
    some = [*items(), Example("w5 w6", None, f"w{ANSWER}", f"w{WRONG}")]
    clean, corrupt = effects._margins(model, some)
    assert clean == pytest.approx([scored(model, each, None)[1] for each in some], abs=1e-4)
    swapped = [scored(model, Example(str(each.corrupt)), None)[1] for each in some[:-1]]
    assert corrupt == pytest.approx([*swapped, 0], abs=1e-4)
    runs = AblatedRuns(model, LAYER, some[:-1])
    fallen = (runs.whole - runs.scores("mean", [[7]], Job("", None, ""))[0])[:, 0]
    test = effects._silenced(model, LAYER, [7], some[:-1], 0)
    assert test.estimate.value == pytest.approx(fallen.mean(), abs=1e-6)
    assert test.p_value == pytest.approx(difference_test(fallen, [each.independent_units for each in some[:-1]]).p_value)


def test_candidates_are_the_largest_of_each_layer_and_of_all() -> None:
    means = np.random.default_rng(0).normal(size=(9, 60)).astype(np.float32)
    found = effects.candidates(means)
    largest = {(layer, int(neuron)) for layer in range(9) for neuron in np.argsort(-means[layer])[:20]}
    assert len(found) == 100
    assert found == sorted(largest, key=lambda at: -means[at])[:100]
    assert Counter(layer for layer, _ in effects.candidates(means[:2])) == {0: 20, 1: 20}


def result(low: float, p_value: float) -> ablation.ModeResult:
    some = Estimate(0.5, low, 1.0, 9)
    return ablation.ModeResult("zero", some, some, some, [0.0], p_value, some)


def test_an_ablation_shows_an_effect_in_one_mode_that_is_enough_for_all() -> None:
    sure, unsure = Estimate(0.9, 0.51, 1, 9), Estimate(0.6, 0.5, 1, 9)
    assert ablation._no_effect([result(0.01, 0.016), result(-1, 1), result(-1, 1)], sure) is None
    assert "no more damage" in str(ablation._no_effect([result(0.01, 0.017), result(-1, 0.001), result(-1, 1)], sure))
    assert ablation._no_effect([result(0.01, 0.05)], unsure) is None
    assert "does not distinguish" in str(ablation._no_effect([result(0.0, 0.01)], unsure))
    assert "does no damage" in str(ablation._no_effect([result(0.0, 0.01), result(-1, 0.01)], sure))


def test_matched_sets_are_drawn_from_the_nearest() -> None:
    random = np.random.default_rng(0)
    loudness = Loudness(random.random(200), random.random(200))
    ranks = loudness.ranks()
    assert ranks[:, 0] == pytest.approx(stats.rankdata(loudness.rate) / 200)
    assert ranks[:, 1] == pytest.approx(stats.rankdata(loudness.norm) / 200)
    others = np.arange(1, 200)
    near = others[np.argsort(np.linalg.norm(ranks[others] - ranks[0], axis=1))]
    found = matched_sets(loudness, [0], 5, np.random.default_rng(1))
    assert {each for (each,) in found} <= set(near[:10].tolist())
    many = matched_sets(loudness, [0], 30, np.random.default_rng(1))
    assert {each for (each,) in many} == set(near[:30].tolist())
    assert sorted(matched_sets(Loudness(random.random(4), random.random(4)), [1, 2], 9, np.random.default_rng(1))) == [[0, 3]]


def test_texts_that_differ_in_a_word_are_one_group_by_that_word() -> None:
    first = ["a letter about Spain", "a photo of Spain", "a letter about Peru", "nothing else here"]
    second = ["a letter about dogs", "a photo of dogs"]
    positive, negative = group_texts(first, second)
    groups = [text.group for text in positive]
    assert groups[0] == groups[1] != groups[2]
    assert groups[3] == "nothing else here"
    assert len({text.group for text in negative}) == 1
    assert [text.text for text in [*positive, *negative]] == [*first, *second]
    long = [" ".join([*["x"] * 40, word]) for word in ("one", "two")]
    assert len({text.group for text in group_texts(long, ["y"])[0]}) == 2


def test_a_concepts_halves_take_half_of_the_words_and_carriers() -> None:
    found = concept_texts("country_names", n=20, seed=1)
    assert found.counts() == (10, 10)
    assert len(found.texts) == 80
    choosing, judging = found.split(0)
    assert choosing.counts() == judging.counts() == (5, 5)
    assert len(set(choosing.carriers)) == len(set(judging.carriers)) == 2
    assert len(choosing.texts) == len(judging.texts) == 20
    assert all(group in text for text, group in zip(found.texts, found.groups, strict=True))
    labels = dict(zip(choosing.groups, choosing.labels, strict=True))
    assert choosing.group_labels().tolist() == [labels[group] for group in dict.fromkeys(choosing.groups)]
    assert len(several(DOMAINS["notices"], 30, np.random.default_rng(0))) == 30
    odd = concept_texts(["a b", "c d", "e f"], ["g h", "i j", "k l"])
    assert [half.counts() for half in odd.split(0)] == [(1, 1), (2, 2)]
