"""Whether there is a gap to explain: the exchange test against scipy's, its error rate, and what is said."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.truth import nothing
from scipy import stats

from neuroscope.circuits.effect import FEWEST_PAIRS, confirmed, exchange_test, paired_effect
from neuroscope.circuits.finder import CircuitFinder
from tests import tiny


@pytest.mark.parametrize("rows", [3, 7, 10, 13])
def test_all_exchanges_are_those_of_an_independent_permutation_test(rows: int) -> None:
    random = np.random.default_rng(rows)
    clean, corrupt = random.normal(0.4, 1, rows), random.normal(0, 1, rows)
    theirs = stats.permutation_test(
        (clean, corrupt),
        lambda a, b: np.abs((a - b).mean()),
        permutation_type="samples",
        alternative="greater",
        n_resamples=np.inf,
    )
    assert exchange_test(clean - corrupt) == pytest.approx(theirs.pvalue, abs=1e-12)


def test_many_rows_are_exchanged_at_random() -> None:
    random = np.random.default_rng(0)
    differences = random.normal(0.5, 1, 30)
    assert exchange_test(differences) == pytest.approx(stats.ttest_1samp(differences, 0).pvalue, abs=0.01)
    assert exchange_test(np.full(30, 0.7)) == pytest.approx(1 / 20_001)


def test_gaps_of_one_sign_are_an_effect_from_seven_pairs_on() -> None:
    for rows in (FEWEST_PAIRS - 1, FEWEST_PAIRS):
        found = paired_effect(np.linspace(1, 2, rows), np.zeros(rows))
        assert found.exists == (rows == FEWEST_PAIRS)
    assert "6 pairs are too few" in str(paired_effect(np.ones(6), np.zeros(6)).reason)


def test_a_gap_below_zero_is_none_to_explain() -> None:
    found = paired_effect(np.zeros(12), np.linspace(1, 2, 12))
    assert not found.exists
    assert "higher on corrupt prompts" in str(found.reason)


def test_without_a_gap_one_in_a_hundred_passes() -> None:
    random = np.random.default_rng(1)
    zeros = np.zeros(12)
    for draw in (random.standard_normal, lambda size: random.standard_t(2, size)):
        passed = sum(paired_effect(draw(12), zeros).exists for _ in range(600))
        assert passed <= 14  # 0.99 quantile of the binomial with the nominal rate, 0.01


def test_an_effect_must_show_again_on_other_pairs() -> None:
    first = paired_effect(np.linspace(1, 2, 12), np.zeros(12))
    assert confirmed(first, np.linspace(1, 2, 20), np.zeros(20)) is first
    for clean in (np.linspace(-1, 1, 20), np.linspace(-2, -1, 20)):
        found = confirmed(first, clean, np.zeros(20))
        assert not found.exists
        assert "does not replicate" in str(found.reason)
    few = FEWEST_PAIRS - 1
    assert confirmed(first, -np.ones(few), np.zeros(few)) is first


@pytest.mark.parametrize(("architecture", "seed"), [("qwen3", 0), ("gpt_oss", 2), ("qwen3", 5)])
def test_null_models_that_pass_one_test_have_no_circuit(architecture: str, seed: int) -> None:
    number = 4 * seed + nothing.ARCHITECTURES.index(architecture)
    model, examples = tiny.model(architecture, seed=seed, scale=0.15), nothing.repeats(60, seed=number)
    circuit = CircuitFinder(model, seed=number).find_circuit("induction", examples)
    assert not circuit.exists
    assert "does not replicate" in str(circuit.reason)
