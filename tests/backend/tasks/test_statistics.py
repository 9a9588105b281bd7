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
from neuroscope.tasks.statistics import Estimate, difference_test, mean_of, mean_over_groups, rate, ratio_of, wilson
from neuroscope.views.theme import error_bars

VALUES = np.random.default_rng(3).normal(0.4, 1.3, 20)


def groups_of(*sizes: int) -> list[frozenset[str]]:
    return [frozenset({f"name:{group}", "template:the one"}) for group, size in enumerate(sizes) for _ in range(size)]


def test_the_interval_of_independent_rows_is_students() -> None:
    found, theirs = mean_of(VALUES), stats.ttest_1samp(VALUES, 0).confidence_interval(0.95)
    assert (found.value, found.low, found.high) == pytest.approx((VALUES.mean(), theirs.low, theirs.high), rel=1e-12)
    assert found.n == 20
    assert mean(VALUES) == found


def test_the_p_value_of_skewed_rows_is_halls_and_agrees_with_the_interval() -> None:
    values = np.random.default_rng(2).exponential(size=20) - 0.4
    n, ratio = 20, values.mean() / values.std()
    error = math.sqrt(6 * 20 * 19 / (18 * 21 * 23))
    worst = stats.ttest_1samp(values, 0).pvalue
    for skewness in stats.skew(values, bias=False) + error * np.array([-0.5, 0, 0.5]):
        transformed = ratio + skewness * ratio**2 / 3 + skewness**2 * ratio**3 / 27 + skewness / (6 * n)
        worst = max(worst, 2 * stats.t.sf(abs(math.sqrt(n - 1) * transformed), n - 1))
    found = difference_test(values)
    assert found.p_value == pytest.approx(worst, rel=1e-9)
    for bound in (found.estimate.low, found.estimate.high):
        edge = difference_test(values - bound)
        assert edge.p_value == pytest.approx(0.05, rel=1e-6)
    assert found.estimate.high > mean_of(values).high + 0.1


@pytest.mark.parametrize("n", [6, 12, 20, 40])
def test_skewed_differences_of_mean_0_are_rarely_called_different(n: int) -> None:
    random = np.random.default_rng(n)
    samples = {"exponential": random.exponential(size=(600, n)) - 1, "gamma": random.gamma(0.5, size=(600, n)) - 0.5}
    for name, draws in samples.items():
        for sign in (1, -1):
            wrong = np.mean([difference_test(sign * values).p_value < 0.05 for values in draws])
            assert wrong <= 0.065, name  # Student's test is wrong in .07 to .16


def test_a_difference_that_is_there_is_found() -> None:
    random = np.random.default_rng(0)
    for n, least in ((6, 0.5), (12, 0.9), (20, 0.98)):
        assert np.mean([difference_test(random.normal(2, 1, n)).p_value < 0.05 for _ in range(200)]) > least


def test_differences_without_spread_are_certain_or_none() -> None:
    assert difference_test([0.0, 0.0, 0.0]).p_value == 1
    assert difference_test([0.5, 0.5, 0.5]).p_value == 0


def test_rows_of_equal_groups_have_students_interval_over_the_groups_means() -> None:
    groups = groups_of(4, 4, 4, 4, 4)
    means = VALUES.reshape(5, 4).mean(1) + np.arange(5)  # groups further apart than their rows
    values = (VALUES.reshape(5, 4) + np.arange(5)[:, None]).ravel()
    theirs = stats.ttest_1samp(means, 0)
    interval = theirs.confidence_interval(0.95)
    found = mean_of(values, groups)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-9)
    assert difference_test(values, groups).p_value == pytest.approx(theirs.pvalue, rel=1e-9)


def crossed(random: np.random.Generator, rows: int, *levels: int) -> tuple[np.ndarray, list[frozenset[str]]]:
    """Which value of each kind every row has, and that as units, with one that all rows share."""
    kinds = random.integers(0, levels, (rows, len(levels)))
    return kinds, [frozenset({"template:one", *(f"{name}:{value}" for name, value in enumerate(row))}) for row in kinds]


def test_crossed_units_have_the_variance_of_their_components() -> None:
    random = np.random.default_rng(5)
    kinds, units = crossed(random, 40, 9, 12)
    values = random.normal(size=9)[kinds[:, 0]] + random.normal(size=12)[kinds[:, 1]] + random.normal(0, 0.3, 40)
    # Henderson's equations, written out: E[tr(M Z_k Z_kᵀ M v vᵀ)] = Σ_l tr(M Z_k Z_kᵀ M Z_l Z_lᵀ) σ²_l
    centre = np.eye(40) - 1 / 40
    alike = [np.eye(40)] + [(kinds[:, None, kind] == kinds[None, :, kind]).astype(float) for kind in (0, 1)]
    sums = [values @ centre @ one @ centre @ values for one in alike]
    expected = np.array([[np.trace(centre @ one @ centre @ other) for other in alike] for one in alike])
    components = np.linalg.solve(expected, sums)
    assert (components > 0).all()
    variance = sum(c * one.sum() for c, one in zip(components, alike, strict=True)) / 40**2
    weights = np.linalg.solve(expected.T, [one.sum() / 40**2 for one in alike])
    form = centre @ sum(w * one for w, one in zip(weights, alike, strict=True)) @ centre
    assert values @ form @ values == pytest.approx(variance)
    model = sum(c * one for c, one in zip(components, alike, strict=True))
    degrees = variance**2 / np.trace(form @ model @ form @ model)
    half = stats.t.ppf(0.975, degrees) * math.sqrt(variance)
    assert half > 1.3 * (mean_of(values).high - values.mean())
    found = mean_of(values, units)
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), rel=1e-6)
    assert difference_test(values, units).p_value == pytest.approx(
        2 * stats.t.sf(abs(values.mean()) / math.sqrt(variance), degrees), rel=1e-6
    )


@pytest.mark.parametrize(("between", "low", "high"), [(0.0, 0.94, 0.985), (1.0, 0.93, 0.985)])
def test_intervals_of_crossed_rows_cover_the_truth(between: float, low: float, high: float) -> None:
    random = np.random.default_rng(1)
    covered, ignoring = 0, 0
    for _ in range(400):
        kinds, units = crossed(random, 20, 8, 6)
        values = random.normal(size=20) + between * (random.normal(size=8)[kinds[:, 0]] + random.normal(size=6)[kinds[:, 1]])
        found, naive = mean_of(values, units), mean_of(values)
        covered += found.low <= 0 <= found.high
        ignoring += naive.low <= 0 <= naive.high
    assert low <= covered / 400 <= high
    if between:
        assert ignoring / 400 < 0.75


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


def test_bars_of_infinite_bounds_reach_past_every_finite_one() -> None:
    bars = error_bars([Estimate(0.5, 0.2, 0.9, 9), Estimate(0.7, -math.inf, math.inf, 9)])
    assert bars["array"][0] == pytest.approx(0.4)
    assert bars["arrayminus"][0] == pytest.approx(0.3)
    assert 0.7 + bars["array"][1] > 0.9
    assert 0.7 - bars["arrayminus"][1] < 0.2
    assert all(math.isfinite(length) for length in [*bars["array"], *bars["arrayminus"]])


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


def test_a_ratio_has_the_same_interval_in_whatever_unit_its_rows_are() -> None:
    random = np.random.default_rng(4)
    below = 2 + random.normal(size=12)
    above = 0.7 * below + 0.2 * random.normal(size=12)
    found = ratio_of(above, below)
    for scale in (1e-4, 1e4):
        scaled = ratio_of(scale * above, scale * below)
        assert (scaled.low, scaled.high) == pytest.approx((found.low, found.high))


def test_a_ratio_of_rows_of_which_every_two_are_alike_has_no_bounds() -> None:
    """Each two of three rows share a unit, so that nothing tells how their mean varies; the denominators do not vary."""
    units = [frozenset({"k:a", "k:b"}), frozenset({"k:a", "k:c"}), frozenset({"k:b", "k:c"})]
    found = ratio_of([1.0, 2.0, 4.0], [2.0, 2.0, 2.0], units)
    assert (found.value, found.low, found.high) == (pytest.approx(7 / 6), -np.inf, np.inf)


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (3, 2), (-1, 2), (0, -1)])
def test_what_is_no_rate_is_said(successes: int, n: int) -> None:
    with pytest.raises(ArgumentError, match=f"{successes} of {n} is not a rate"):
        wilson(successes, n)


def test_two_rows_bound_a_ratio_with_one_degree_of_freedom() -> None:
    found, mean = ratio_of([1.0, 1.01], [1.0, 1.0]), mean_of([1.0, 1.01])
    assert (found.low, found.high) == pytest.approx((mean.low, mean.high))
    assert mean.high - mean.value == pytest.approx(stats.t.ppf(0.975, 1) * 0.005)


def test_the_skewness_of_three_rows_counts() -> None:
    """Hall's transformation of three rows, written out: the largest p-value of the skewness and half its error either way."""
    rows = np.array([3.0, 2.8, 1.0])
    n, ratio = 3, rows.mean() / rows.std()
    skewness = stats.skew(rows, bias=False)
    error = math.sqrt(6 * n * (n - 1) / ((n - 2) * (n + 1) * (n + 3)))
    expected = [stats.ttest_1samp(rows, 0).pvalue]
    for one in (skewness - error / 2, skewness, skewness + error / 2):
        transformed = ratio + one * ratio**2 / 3 + one**2 * ratio**3 / 27 + one / (6 * n)
        expected.append(2 * stats.t.sf(abs(math.sqrt(n - 1) * transformed), n - 1))
    assert max(expected) > 1.01 * expected[0]
    assert difference_test(rows).p_value == pytest.approx(max(expected))


def test_a_kind_that_few_rows_have_takes_no_bounds_from_another_kind() -> None:
    """Eight pairs that are alike within; five of the rows have units of a second kind, of which two rows share one."""
    random = np.random.default_rng(2)
    values = np.repeat(random.normal(size=8), 2) + 0.05 * random.normal(size=16)
    second = {0: "a:0", 2: "a:0", 4: "a:1", 6: "a:2", 8: "a:3"}
    units = [frozenset({f"b:{row // 2}", *([second[row]] if row in second else [])}) for row in range(16)]
    found, groups = mean_of(values, units), mean_over_groups(values.tolist(), [row // 2 for row in range(16)])
    assert (found.low, found.high) == pytest.approx((groups.low, groups.high), rel=0.05)


def test_a_rate_has_the_wider_of_two_intervals_and_stays_within_its_bounds() -> None:
    alone = [frozenset({f"item:{n}"}) for n in range(40)]
    shared = [frozenset({f"template:{n // 5}"}) for n in range(40)]
    values = np.repeat([1, 1, 1, 0, 1, 1, 0, 1], 5)
    independent, clustered = rate(values, alone), rate(values, shared)
    assert independent.low <= wilson(30, 40).low
    assert clustered.low < independent.low < independent.high < clustered.high <= 1
    assert rate([1] * 40) == wilson(40, 40)
    with pytest.raises(ArgumentError, match="neither right nor wrong"):
        rate([0, 0.5])
