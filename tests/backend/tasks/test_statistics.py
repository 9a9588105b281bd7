"""Intervals and tests, held against scipy, against closed forms, and against the share of truths that they cover."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import stats

from neuroscope.circuits.estimates import mean, normalised
from neuroscope.errors import ArgumentError, CircuitError
from neuroscope.results import plain
from neuroscope.tasks.statistics import Estimate, difference_test, mean_of, mean_over_groups, ratio_of

VALUES = np.random.default_rng(3).normal(0.4, 1.3, 20)


def groups_of(*sizes: int) -> list[frozenset[str]]:
    return [frozenset({f"name:{group}", "template:the one"}) for group, size in enumerate(sizes) for _ in range(size)]


def test_the_interval_of_independent_rows_is_students() -> None:
    found, theirs = mean_of(VALUES), stats.ttest_1samp(VALUES, 0).confidence_interval(0.95)
    assert (found.value, found.low, found.high) == pytest.approx((VALUES.mean(), theirs.low, theirs.high), rel=1e-12)
    assert found.n == 20
    assert mean(VALUES) == found


def test_the_p_value_of_independent_rows_is_students() -> None:
    found = difference_test(VALUES)
    assert found.p_value == pytest.approx(stats.ttest_1samp(VALUES, 0).pvalue, rel=1e-12)
    assert found.estimate == mean_of(VALUES)


def test_rows_of_equal_groups_have_students_interval_over_the_groups_means() -> None:
    groups = groups_of(4, 4, 4, 4, 4)
    means = VALUES.reshape(5, 4).mean(1) + np.arange(5)  # groups further apart than their rows
    values = (VALUES.reshape(5, 4) + np.arange(5)[:, None]).ravel()
    theirs = stats.ttest_1samp(means, 0)
    interval = theirs.confidence_interval(0.95)
    found = difference_test(values, groups)
    assert (found.estimate.low, found.estimate.high) == pytest.approx((interval.low, interval.high), rel=1e-12)
    assert found.p_value == pytest.approx(theirs.pvalue, rel=1e-12)


def test_every_pair_that_shares_a_unit_counts_and_a_unit_of_all_rows_does_not() -> None:
    # Three kinds of units, written out pair by pair.
    random = np.random.default_rng(5)
    kinds = random.integers(0, [9, 12], (40, 2))
    values = random.normal(size=9)[kinds[:, 0]] + random.normal(size=12)[kinds[:, 1]] + random.normal(0, 0.1, 40)
    units = [frozenset({f"name:{a}", f"place:{b}", "template:one"}) for a, b in kinds]
    errors, centre = values - values.mean(), np.eye(40) - 1 / 40
    shared = np.array([[float((a == b).any()) for b in kinds] for a in kinds])
    expected = centre @ shared @ centre
    variance = errors @ shared @ errors / 40 / np.trace(expected)
    degrees = np.trace(expected) ** 2 / np.trace(expected @ expected)
    half = stats.t.ppf(0.975, degrees) * math.sqrt(variance)
    assert half > 1.3 * (mean_of(values).high - values.mean())
    found = mean_of(values, units)
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), rel=1e-9)


def test_an_interval_is_never_narrower_for_what_rows_share() -> None:
    values = np.tile([0.0, 1.0, 2.0, 3.0], 5)  # alike between groups: their means do not vary at all
    assert mean_of(values, groups_of(4, 4, 4, 4, 4)) == mean_of(values)
    assert mean_of(values, groups_of(20)) == mean_of(values)


def test_rows_that_all_depend_on_one_another_set_no_bounds() -> None:
    units = [frozenset(pair) for pair in ({"a", "b"}, {"b", "c"}, {"c", "a"})]
    found = difference_test([1.0, 1.1, 0.9], units)
    assert (found.estimate.low, found.estimate.high, found.p_value) == (-math.inf, math.inf, 1.0)


def test_a_ratio_has_fiellers_interval() -> None:
    below = np.random.default_rng(4).normal(3, 1, 20)
    above = 0.7 * below + VALUES
    found = ratio_of(above, below)
    assert found.value == above.mean() / below.mean()
    assert found.low < found.value < found.high
    for bound in (found.low, found.high):  # at its bounds the difference is just told from 0
        assert stats.ttest_1samp(above - bound * below, 0).pvalue == pytest.approx(0.05, rel=1e-9)


def test_a_ratio_to_a_constant_is_a_mean() -> None:
    found, expected = ratio_of(VALUES, np.full(20, 2.0)), mean_of(VALUES / 2)
    assert (found.value, found.low, found.high) == pytest.approx((expected.value, expected.low, expected.high))


def test_a_ratio_to_what_may_be_nothing_has_no_bounds() -> None:
    below = np.array([-3.0, 2.0, -1.0, 2.5, -2.0, 1.9])
    found = ratio_of(np.ones(6), below)
    assert (found.low, found.high) == (-math.inf, math.inf)
    assert normalised(np.ones(6), np.zeros(6), below) == found
    with pytest.raises(CircuitError, match="no effect"):
        normalised(np.ones(6), np.zeros(6), below - below.mean())
    with pytest.raises(ArgumentError, match="mean 0"):
        ratio_of([1.0, 2.0], [1.0, -1.0])


def test_a_ratio_over_groups_is_held_against_the_groups() -> None:
    below = np.repeat([2.0, 3.0, 4.0, 5.0, 3.5], 4)
    above = below * np.repeat([0.2, 0.9, 0.4, 1.1, 0.6], 4) + 0.01 * VALUES
    found = ratio_of(above, below, groups_of(4, 4, 4, 4, 4))
    expected = ratio_of(above.reshape(5, 4).mean(1), below.reshape(5, 4).mean(1))
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-9)
    assert found.high - found.low > 1.5 * (ratio_of(above, below).high - ratio_of(above, below).low)


def test_bounds_that_are_not_there_print_and_travel() -> None:
    one = mean_of([0.25])
    assert str(one) == "0.250 [-∞, ∞]"
    assert json.loads(json.dumps(one.as_dictionary(), allow_nan=False)) == {"value": 0.25, "low": None, "high": None, "n": 1}
    assert plain(one) == one.as_dictionary()
    assert Estimate.from_dictionary(one.as_dictionary()) == one
    assert Estimate.from_dictionary(mean_of(VALUES).as_dictionary()) == mean_of(VALUES)


def test_means_of_groups_have_students_interval() -> None:
    interval = stats.ttest_1samp([1.5, 5.0, 2.0], 0).confidence_interval(0.95)
    found = mean_over_groups([1.0, 2.0, 5.0, 2.0], ["a", "a", "b", "c"])
    assert (found.low, found.high, found.n) == (pytest.approx(interval.low), pytest.approx(interval.high), 4)


@pytest.mark.parametrize("values", [[], [[1.0, 2.0]], [1.0, math.nan], [math.inf, 1.0]])
def test_what_is_no_rows_of_numbers_is_refused(values: list[object]) -> None:
    for statistic in (mean_of, difference_test):
        with pytest.raises(ArgumentError):
            statistic(values)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError):
        ratio_of(values, values)  # type: ignore[arg-type]


def test_another_number_of_units_or_denominators_is_refused() -> None:
    with pytest.raises(ArgumentError, match="20 rows have 4"):
        mean_of(VALUES, groups_of(4))
    with pytest.raises(ArgumentError, match="20 numerators have 3"):
        ratio_of(VALUES, VALUES[:3])
