"""Paired differences: against closed forms and independent solvers, and against the share of truths that they cover and find."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from neuroscope.errors import ArgumentError
from neuroscope.tasks.statistics import Estimate
from neuroscope.validation.differences import (
    Difference,
    bootstrapped,
    detectable_loss,
    holm,
    judged,
    mcnemar,
    paired_means,
    paired_rates,
    pooled,
    power_to_find,
    tango,
    worst,
)

SOME = Estimate(0.9, 0.85, 0.95, 200)


def compared(
    new: np.ndarray, old: np.ndarray, units: list[frozenset[str]] | None = None, tasks: list[str] | None = None
) -> Difference:
    return paired_rates(new, old, tasks or ["task"] * len(new), units, margin=0.05, baseline=SOME)


def outcomes(random: np.random.Generator, n: int, loss: float, flips: float) -> tuple[np.ndarray, np.ndarray]:
    """Outcomes of two models: the new one loses `flips / 2 + loss` of the items and gains `flips / 2`."""
    where = random.random(n)
    lost = where < flips / 2 + loss
    gained = ~lost & (where < flips + loss)
    right = random.random(n) < 0.7
    return np.where(lost, 0, np.where(gained, 1, right)), np.where(lost, 1, np.where(gained, 0, right))


# --- pieces ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("gains", "losses"), [(0, 0), (0, 5), (3, 12), (12, 3), (7, 7), (1, 30)])
def test_mcnemar_is_the_sum_over_all_that_is_as_unlikely(gains: int, losses: int) -> None:
    n = gains + losses
    ways = [math.comb(n, k) for k in range(n + 1)]
    expected = sum(way for way in ways if way <= ways[gains]) / 2**n
    assert mcnemar(gains, losses) == pytest.approx(expected)


@pytest.mark.parametrize(("gains", "losses", "n"), [(0, 0, 50), (0, 9, 100), (4, 15, 120), (30, 12, 90), (0, 100, 100)])
def test_tangos_bounds_are_where_the_constrained_likelihood_puts_them(gains: int, losses: int, n: int) -> None:
    """The nuisance parameter by a search over the likelihood, instead of its closed form."""
    quantile = stats.norm.ppf(0.975)

    def log_likelihood(rare: np.ndarray, difference: float) -> np.ndarray:
        """rare: P(lost); P(gained) is that and the difference."""
        lost, gained = rare, rare + difference
        rest = 1 - lost - gained
        with np.errstate(divide="ignore", invalid="ignore"):
            terms = [
                count * np.log(p) if count else 0 * p
                for count, p in ((gains, gained), (losses, lost), (n - gains - losses, rest))
            ]
        return np.where((lost < 0) | (gained < 0) | (rest < 0), -np.inf, sum(terms))

    for bound, side in zip(tango(gains, losses, n), (1, -1), strict=True):
        if abs(bound) == 1:
            assert losses == n
            continue
        grid = np.linspace(max(0.0, -bound), (1 - bound) / 2, 400_001)
        lost = float(grid[np.argmax(log_likelihood(grid, bound))])
        variance = (2 * lost + bound - bound**2) / n
        assert side * ((gains - losses) / n - bound) / math.sqrt(variance) == pytest.approx(quantile, abs=2e-3)


def test_holm_is_what_its_steps_say() -> None:
    random = np.random.default_rng(0)
    for _ in range(20):
        p_values = dict(enumerate(random.random(6) ** 3))
        adjusted = holm(p_values)
        order = sorted(p_values, key=p_values.__getitem__)
        stopped = False
        for place, name in enumerate(order):  # reject step by step until one is not small enough
            stopped = stopped or p_values[name] > 0.05 / (len(order) - place)
            assert (adjusted[name] <= 0.05) is not stopped


def test_strata_are_weighted_by_their_items() -> None:
    found = pooled([Estimate(1.0, 0.9, 1.0, 30), Estimate(0.5, 0.2, 0.8, 10)])
    assert found.value == pytest.approx(0.875)
    assert found.low == pytest.approx(0.875 - math.hypot(0.75 * 0.1, 0.25 * 0.3))
    assert found.high == pytest.approx(0.875 + 0.25 * 0.3)
    assert found.n == 40


def test_verdicts() -> None:
    assert judged(Estimate(0.95, 0.91, 0.99, 9), 0.9) == "pass"
    assert judged(Estimate(0.95, 0.89, 0.99, 9), 0.9) == "inconclusive"
    assert judged(Estimate(0.8, 0.7, 0.89, 9), 0.9) == "fail"
    assert worst(["pass", "inconclusive", "pass"]) == "inconclusive"
    assert worst(["fail", "inconclusive"]) == "fail"
    assert worst([]) is None


def test_few_items_that_are_all_alike_exclude_nothing() -> None:
    """Tango's bound where no item differs is z² / (n + z²): below five points from 73 items on."""
    assert compared(np.ones(72), np.ones(72)).verdict == "inconclusive"
    assert compared(np.ones(73), np.ones(73)).verdict == "pass"


def test_a_certain_loss_below_the_margin_passes() -> None:
    old = np.ones(3000)
    new = old.copy()
    new[:60] = 0
    found = compared(new, old)
    assert found.p_value < 1e-6
    assert found.estimate.high < 0
    assert found.verdict == "pass"


def test_a_loss_that_is_no_longer_significant_after_holm_is_inconclusive() -> None:
    old = np.ones(80)
    new = old.copy()
    new[:6] = 0
    found = compared(new, old)
    assert found.p_value == pytest.approx(0.03125)
    assert found.verdict == "fail"
    adjusted = Difference(**{**vars(found), "adjusted_p_value": 0.09})
    assert adjusted.verdict == "inconclusive"


def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(ArgumentError, match="same items"):
        compared(np.ones(4), np.ones(5))
    with pytest.raises(ArgumentError, match="margin"):
        paired_rates([1], [1], ["a"], None, margin=0, baseline=SOME)
    with pytest.raises(ArgumentError, match="margin"):
        paired_rates([1], [1], ["a"], None, margin=5, baseline=SOME)
    with pytest.raises(ArgumentError, match="weights"):
        paired_means([1.0, 2.0], [1.0, 2.0], [1.0, 0.0], ["a", "b"], None, margin=0.05, baseline=SOME)


# --- truth ----------------------------------------------------------------------------------------------------------------


def test_identical_models_differ_nowhere_and_pass() -> None:
    for seed in range(100):
        random = np.random.default_rng(seed)
        right = (random.random(100) < random.random()).astype(float)
        units = [frozenset({f"template:{random.integers(6)}", f"name:{random.integers(40)}"}) for _ in right]
        found = compared(right, right, units, [f"task {n % 3}" for n in range(100)])
        assert (found.estimate.value, found.improved, found.worsened, found.p_value) == (0, 0, 0, 1)
        assert found.verdict == "pass"
        losses = random.gamma(3, 2, 60)
        same = paired_means(losses, losses, np.full(60, 9.0), list(range(60)), None, margin=0.05, baseline=SOME, seed=seed)
        assert (same.estimate.value, same.estimate.low, same.estimate.high, same.p_value) == (0, 0, 0, 1)
        assert same.verdict == "pass"


@pytest.mark.parametrize("clustered", [False, True])
def test_models_that_differ_by_noise_alone_fail_at_most_one_time_in_twenty(clustered: bool) -> None:
    """Of four per cent of items that flip, either way alike; item by item, or all items of a template."""
    failed, covered, naive = 0, 0, 0
    times = 400
    for seed in range(times):
        random = np.random.default_rng(seed)
        if clustered:
            groups = np.repeat(np.arange(20), 10)
            moved = random.choice([-1, 0, 1], 20, p=[0.1, 0.8, 0.1])[groups]
            old = np.where(moved == 0, random.random(200) < 0.7, moved < 0).astype(float)
            new = np.where(moved == 0, old, moved > 0).astype(float)
            found = compared(new, old, [frozenset({f"template:{group}"}) for group in groups])
            naive += mcnemar(found.improved, found.worsened) <= 0.05
        else:
            found = compared(*outcomes(random, 200, 0.0, 0.08))
        failed += found.verdict == "fail"
        covered += found.estimate.low <= 0 <= found.estimate.high
    assert failed / times <= 0.05
    assert covered / times >= 0.94
    if clustered:
        assert naive / times > 0.3  # what items taken for independent would have claimed


@pytest.mark.parametrize(("n", "flips"), [(100, 0.0), (200, 0.04), (200, 0.08), (640, 0.1)])
def test_a_loss_of_ten_points_is_found_with_a_power_of_nine_tenths(n: int, flips: float) -> None:
    """And the interval covers the ten points."""
    times = 300
    random = np.random.default_rng(n)
    found = [compared(*outcomes(random, n, 0.1, flips)) for _ in range(times)]
    assert sum(each.verdict == "fail" for each in found) / times >= 0.9
    assert sum(each.estimate.low <= -0.1 <= each.estimate.high for each in found) / times >= 0.93


@pytest.mark.parametrize(("n", "flips"), [(100, 0.0), (100, 0.08), (200, 0.04), (400, 0.1)])
def test_the_detectable_loss_is_found_with_the_power_that_it_claims(n: int, flips: float) -> None:
    loss = detectable_loss(n, flips)
    assert loss is not None
    assert power_to_find(loss, n, flips) == pytest.approx(0.8, abs=1e-3)
    random = np.random.default_rng(n)
    found = [compared(*outcomes(random, n, loss, flips)) for _ in range(400)]
    assert sum(each.p_value <= 0.05 and each.estimate.value < 0 for each in found) / 400 == pytest.approx(0.8, abs=0.06)


def test_the_detectable_loss_is_told_of_the_items_that_were_asked() -> None:
    """From the flips that were seen; from fewer items where items are alike."""
    random = np.random.default_rng(3)
    told = [compared(*outcomes(random, 200, 0.0, 0.08)).detectable for _ in range(40)]
    assert np.median([each for each in told if each is not None]) == pytest.approx(detectable_loss(200, 0.08), abs=0.02)
    groups = np.repeat(np.arange(20), 10)
    old = np.repeat(random.random(20) < 0.7, 10).astype(float)
    new = np.where(groups == 3, 1 - old, old)
    alone, alike = compared(new, old), compared(new, old, [frozenset({f"template:{group}"}) for group in groups])
    assert alone.detectable is not None
    assert alike.detectable is None or alike.detectable > 2 * alone.detectable
    assert detectable_loss(4) is None  # four items lost of four have p = 0.125


def test_the_power_is_that_of_all_outcomes_counted() -> None:
    n, flips, loss = 7, 0.2, 0.5
    lost, gained = flips / 2 + loss, flips / 2
    total = 0.0
    for gains, losses in itertools.product(range(n + 1), repeat=2):
        if gains + losses <= n and losses > gains and mcnemar(gains, losses) <= 0.05:
            ways = math.factorial(n) / math.factorial(gains) / math.factorial(losses) / math.factorial(n - gains - losses)
            total += ways * gained**gains * lost**losses * (1 - gained - lost) ** (n - gains - losses)
    assert power_to_find(loss, n, flips) == pytest.approx(total)


def test_intervals_of_losses_per_token_cover_the_truth_where_texts_share_templates() -> None:
    """Texts of different lengths; what a template adds to the difference is common to its texts."""
    times, covered, found_loss, naive = 300, 0, 0, 0
    for seed in range(times):
        random = np.random.default_rng(seed)
        groups = np.repeat(np.arange(24), 6)
        tokens = random.integers(5, 20, len(groups)).astype(float)
        shift = 0.02 + random.normal(0, 0.03, 24)[groups]
        old = tokens * 3 + random.normal(0, 1, len(groups))
        new = old + tokens * shift + random.normal(0, 0.05, len(groups))
        units = [frozenset({f"template:{group}"}) for group in groups]
        made = paired_means(new, old, tokens, groups.tolist(), units, margin=0.05, baseline=SOME, seed=seed)
        covered += made.estimate.low <= -0.02 <= made.estimate.high
        alone = paired_means(new, old, tokens, list(range(len(groups))), None, margin=0.05, baseline=SOME, seed=seed)
        naive += alone.estimate.low <= -0.02 <= alone.estimate.high
        worse = paired_means(old + tokens * 0.1, old, tokens, groups.tolist(), units, margin=0.05, baseline=SOME, seed=seed)
        found_loss += worse.verdict == "fail"
    assert 0.93 <= covered / times <= 0.99
    assert naive / times < 0.75
    assert found_loss == times


def test_the_bootstrap_draws_what_belongs_together() -> None:
    """Rows of a group are equal: the spread is that of the groups' means, six times the variance of rows drawn alone."""
    random = np.random.default_rng(2)
    means = random.normal(size=50)
    rows, groups = np.repeat(means, 6), np.repeat(np.arange(50), 6).tolist()
    assert bootstrapped(rows, np.ones(300), groups).std() == pytest.approx(means.std() / math.sqrt(50), rel=0.05)
    assert bootstrapped(rows, np.ones(300), list(range(300))).std() == pytest.approx(means.std() / math.sqrt(300), rel=0.05)


def test_the_bootstrap_is_repeatable_and_agrees_with_the_closed_form() -> None:
    random = np.random.default_rng(1)
    rows = random.normal(0.3, 1, 400)
    made = [
        paired_means(np.zeros(400), rows, np.ones(400), list(range(400)), None, margin=0.05, baseline=SOME, seed=7)
        for _ in range(2)
    ]
    assert made[0] == made[1]
    half = 1.96 * rows.std() / 20
    assert made[0].estimate.low == pytest.approx(rows.mean() - half, abs=0.02)
    assert made[0].estimate.high == pytest.approx(rows.mean() + half, abs=0.02)
    assert made[0].detectable == pytest.approx((1.96 + 0.8416) * rows.std() / 20, rel=0.1)
