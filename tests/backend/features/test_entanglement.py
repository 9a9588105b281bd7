"""Entanglement: planted units are found, others are not, and false discoveries stay at their rate."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from neuroscope.errors import ArgumentError, DatasetError
from neuroscope.features.conditioned import Texts
from neuroscope.features.contexts import KINDS, Context, hypothesis, kind_of
from neuroscope.features.entangled import judge, selectivity
from neuroscope.features.entanglement import DOMAINS, EntangledFeatures, FeatureEntanglementAnalyzer
from neuroscope.views.entanglement import EntanglementVisualizer
from tests import tiny
from tests.backend.features.planted import CONCEPT, LAYER, NEURON, OTHERS, planted_model

ROWS = 30


def planted_domains(count: int = 60, *, seed: int = 0) -> tuple[dict[str, list[str]], list[str]]:
    """Two domains that share nothing but words of the planted concept, and a background without it."""
    random = np.random.default_rng(seed)

    def several(words: range, of: range) -> list[str]:
        found: set[str] = set()
        while len(found) < count:
            drawn = [random.choice(np.array(words)) for _ in range(4)] + [random.choice(np.array(of)) for _ in range(4)]
            found.add(" ".join(f"w{token}" for token in random.permutation(drawn)))
        return sorted(found)

    return {"a": several(OTHERS, CONCEPT[:10]), "b": several(OTHERS, CONCEPT[10:])}, several(OTHERS, OTHERS)


@pytest.fixture(scope="module")
def found() -> EntangledFeatures:
    return FeatureEntanglementAnalyzer(planted_model()).find_entanglement(*planted_domains())


def test_a_planted_unit_is_the_strongest_neuron(found: EntangledFeatures) -> None:
    best = found.neurons[0]
    assert (best.layer, best.unit) == (LAYER, NEURON)
    assert best.site == f"{LAYER}.mlp[{NEURON}]"
    assert best.domains == ["a", "b"]
    assert min(best.auroc.values()) > 0.95
    assert best.q_value < 0.05
    assert best.selectivity < 0.1
    peaks = {int(context.token[1:]) for context in best.top_contexts}
    assert peaks <= set(CONCEPT)
    assert {context.domain for context in best.top_contexts} == {"a", "b"}


def test_a_direction_that_both_domains_share_is_found() -> None:
    model = planted_model()
    embedding = model.engine.model.transformer.wte.weight  # type: ignore[attr-defined]
    with torch.no_grad():
        sign = torch.full((len(embedding),), -30.0)
        sign[list(CONCEPT)] = 30.0
        embedding[:, 0] += sign  # the planted direction, loud enough to be a principal component of the stream
        embedding[:, 1] -= sign
    found = FeatureEntanglementAnalyzer(model).find_entanglement(*planted_domains())
    loud = [unit for unit in found.directions if unit.layer == 0]
    assert loud[0].site.endswith("PC1")
    assert min(loud[0].auroc.values()) > 0.95


def test_the_matrix_counts_the_units_and_the_control_finds_none(found: EntangledFeatures) -> None:
    assert found.matrix == [[len(found)] * 2] * 2
    assert found.shuffled == 0
    assert found.background == ["own texts"]
    data = found.as_dictionary()
    assert data["units"][0]["topContexts"][0]["tokens"]
    assert "shuffled" in found.summary()
    assert found.provenance.sizes["candidates"] == found.candidates


def test_nothing_is_found_where_nothing_is_planted() -> None:
    random = np.random.default_rng(1)
    texts = [" ".join(f"w{token}" for token in random.choice(np.array(OTHERS), 8)) for _ in range(180)]
    model = planted_model(planted=False)
    none = FeatureEntanglementAnalyzer(model).find_entanglement({"a": texts[:60], "b": texts[60:120]}, texts[120:180])
    assert len(none) == 0
    assert none.matrix == [[0, 0], [0, 0]]
    assert "0 neurons" in none.summary()


@pytest.mark.slow
def test_the_false_discovery_rate_is_kept_over_a_hundred_seeds() -> None:
    """Units of one domain only, however strong, are no discoveries; those of two are, and are found."""
    proportions, missed = [], 0
    for seed in range(100):
        random = np.random.default_rng(seed)
        domains = [random.normal(size=(ROWS, 60)) for _ in range(3)]
        background = random.normal(size=(ROWS, 60))
        domains[0][:, :30] += 3  # in one domain: a true null
        for domain in domains[:2]:
            domain[:, 55:] += 3  # in two
        judged = judge(domains, background, level=0.05)
        false = int(judged.found[:55].sum())
        proportions.append(false / max(int(judged.found.sum()), 1))
        missed += int((~judged.found[55:]).sum())
        assert (judged.responds.sum(0)[judged.found] >= 2).all()
    assert np.mean(proportions) <= 0.05 + 2 * np.std(proportions) / 10
    assert missed == 0


def test_what_token_classes_explain_is_taken_away_and_the_rest_stays() -> None:
    """Unit 0 fires at one class wherever it stands, which group 0 has most of; unit 1 besides fires more in group 0."""
    random = np.random.default_rng(0)
    classes, groups, length = 2 * len(KINDS), 2, 30
    columns = classes + groups
    normal, moments = np.zeros((columns, columns)), np.zeros((1, columns, 2), dtype=np.float32)
    means, shares = [], []
    for text in range(200):
        group = text % 2
        design = np.zeros((length, columns))
        kinds = random.choice(3, length, p=[0.6, 0.2, 0.2] if group == 0 else [0.1, 0.4, 0.5])
        design[np.arange(length), kinds] = 1
        design[np.arange(length), len(KINDS) + np.roll(kinds, 1)] = 1
        design[:, classes + group] = 1
        fires = 5.0 * (kinds == 0) + 2.0 * (np.roll(kinds, 1) == 1) + random.normal(size=length) * 0.1
        values = np.stack([fires, fires + (group == 0)], axis=1)
        normal += design.T @ design
        moments[0] += (design.T @ values).astype(np.float32)
        means.append(values.mean(0))
        shares.append(design[:, :classes].mean(0))
    read = Texts(np.array(means, dtype=np.float32)[None], np.array(shares), normal, moments)
    left = read.beyond(read.effects())[0]
    raw = np.array(means)
    assert raw[::2, 0].mean() - raw[1::2, 0].mean() > 1.5
    assert left[::2, 0].mean() - left[1::2, 0].mean() == pytest.approx(0, abs=0.02)
    assert left[::2, 1].mean() - left[1::2, 1].mean() == pytest.approx(1, abs=0.02)


def test_every_class_of_token_stands_in_domains_that_are_not_about_it() -> None:
    """Digits, line breaks, operators and punctuation tell no domain: letters, notices and others have them too."""
    random = np.random.default_rng(0)
    for domain in ("letters", "notices", "geography", "reviews", "conversation", "formal_writing"):
        written = "".join(DOMAINS[domain](random).text for _ in range(100))
        assert sum(character.isdigit() for character in written) > 20
    for marks in ("\n", "=", "(", "-", ":", "%"):
        assert (
            sum("".join(DOMAINS[domain](random).text for _ in range(200)).count(marks) for domain in ("letters", "notices")) > 5
        )


def test_selectivity_is_one_for_one_domain_and_zero_for_all_alike() -> None:
    assert selectivity(np.array([1.0, 0.5, 0.4])) == 1
    assert selectivity(np.array([0.9, 0.9, 0.9])) == pytest.approx(0)
    assert 0 < selectivity(np.array([1.0, 0.9, 0.5])) < 1


def test_a_mixture_of_experts_and_named_domains() -> None:
    model = tiny.model("gpt_oss")
    domains, background = planted_domains()
    found = FeatureEntanglementAnalyzer(model).find_entanglement(domains, background)
    assert found.candidates == tiny.LAYERS * 14
    assert all(0 <= unit.unit < model.architecture.neurons for unit in found.neurons)
    for make in DOMAINS.values():
        random = np.random.default_rng(0)
        assert len({make(random) for _ in range(100)}) > 40


def test_hypotheses_say_what_the_peaks_share_and_how_common_that_is() -> None:
    sums = [Context("math", ["x", " equals", f" {n}"], [0.0, 0.1, 1.0 + n], 2) for n in range(5)]
    lists = [Context("code", ["y", " =", f" {n}"], [0.0, 0.2, 1.0 + n], 2) for n in range(5)]
    told = hypothesis([*sums, *lists], ["math", "code"])
    assert told.startswith(
        "Fires at numbers in math and code: 10 of its 10 strongest tokens there, where 50% of all tokens are"
    )
    other = [Context("code", ["y", " ="], [0.0, 1.0], 1) for _ in range(5)]
    assert "no one kind" in hypothesis([*sums, *other], ["math", "code"])
    kinds = [kind_of(token) for token in ("\n  ", " 42", "):", ",", " The", "x", " Mary", " walked")]
    assert kinds[:4] == ["line breaks and spaces", "numbers", "operators and brackets", "punctuation marks"]
    assert kinds[4:] == ["function words", "single letters", "capitalised words", "other words"]


def test_what_cannot_be_entangled_is_said() -> None:
    analyzer = FeatureEntanglementAnalyzer(tiny.model("gpt2"))
    with pytest.raises(ArgumentError) as caught:
        analyzer.find_entanglement(["mathematics", "litreature"])
    assert "literature" in str(caught.value.remedy)
    with pytest.raises(ArgumentError, match="at least two domains"):
        analyzer.find_entanglement(["math", "mathematics"])
    with pytest.raises(ArgumentError, match="none is left"):
        analyzer.find_entanglement(list(DOMAINS))
    with pytest.raises(DatasetError, match="3 different texts of a"):
        analyzer.find_entanglement({"a": ["w5 w6", "w6 w7", "w7 w8"], "b": ["w9 w5"] * 60})
    with pytest.raises(ArgumentError, match="too few"):
        FeatureEntanglementAnalyzer(tiny.model("gpt2"), texts=10)
    with pytest.raises(ArgumentError, match="shows EntangledFeatures"):
        EntanglementVisualizer("x")  # type: ignore[arg-type]
