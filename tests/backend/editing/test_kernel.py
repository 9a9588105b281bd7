"""The smallest change, held against general solvers and against the closed forms of the papers."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from neuroscope.editing.kernel import null_space, quiet_space, smallest_change
from neuroscope.errors import ArgumentError, EditError

WIDTH, OUT = 9, 5
Random = np.random.Generator


@pytest.fixture
def random() -> Random:
    return np.random.default_rng(3)


def covariance(random: Random, rank: int = 3 * WIDTH) -> NDArray[np.float64]:
    rows = random.normal(size=(rank, WIDTH))
    return rows.T @ rows / rank


def kkt(
    keys: NDArray[np.float64], targets: NDArray[np.float64], metric: NDArray[np.float64], kept: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The stationary point of the Lagrangian, by one dense solve."""
    rows = np.concatenate([keys, kept])
    wanted = np.concatenate([targets, np.zeros((len(kept), targets.shape[1]))])
    zeros = np.zeros((len(rows), len(rows)))
    system = np.block([[2 * metric, rows.T], [rows, zeros]])
    right = np.concatenate([np.zeros((keys.shape[1], targets.shape[1])), wanted])
    return np.linalg.solve(system, right)[: keys.shape[1]]


@pytest.mark.parametrize("kept", [0, 1, 4])
@pytest.mark.parametrize("count", [1, 3])
def test_an_exact_change_is_the_stationary_point_of_its_lagrangian(random: Random, count: int, kept: int) -> None:
    keys, targets = random.normal(size=(count, WIDTH)), random.normal(size=(count, OUT))
    metric, rows = covariance(random), random.normal(size=(kept, WIDTH))
    found = smallest_change(keys, targets, metric=metric, basis=null_space(rows))
    np.testing.assert_allclose(found, kkt(keys, targets, metric, rows), atol=1e-9)
    np.testing.assert_allclose(keys @ found, targets, atol=1e-10)
    np.testing.assert_allclose(rows @ found, 0, atol=1e-12)


@pytest.mark.parametrize("kept", [0, 4])
def test_a_regularised_change_is_ridge_regression_among_what_is_free(random: Random, kept: int) -> None:
    keys, targets, metric = random.normal(size=(3, WIDTH)), random.normal(size=(3, OUT)), covariance(random)
    rows = random.normal(size=(kept, WIDTH))
    basis = null_space(rows)
    found = smallest_change(keys, targets, metric=metric, basis=basis, exactly=False)
    root = np.linalg.cholesky(basis.T @ metric @ basis).T  # least squares on the stacked system
    stacked = np.concatenate([keys @ basis, root])
    wanted = np.concatenate([targets, np.zeros((len(root), OUT))])
    np.testing.assert_allclose(found, basis @ np.linalg.lstsq(stacked, wanted, rcond=None)[0], atol=1e-9)
    np.testing.assert_allclose(rows @ found, 0, atol=1e-12)


def test_romes_closed_form(random: Random) -> None:
    key, residual, moment = random.normal(size=WIDTH), random.normal(size=OUT), covariance(random)
    direction = np.linalg.solve(moment, key)
    expected = np.outer(direction, residual) / (key @ direction)
    np.testing.assert_allclose(smallest_change(key, residual, metric=moment), expected, atol=1e-12)


def test_memits_closed_form(random: Random) -> None:
    keys, residuals, moment = random.normal(size=(3, WIDTH)), random.normal(size=(3, OUT)), covariance(random)
    columns = keys.T
    expected = (residuals.T @ columns.T @ np.linalg.inv(2.5 * moment + columns @ columns.T)).T
    np.testing.assert_allclose(smallest_change(keys, residuals, metric=2.5 * moment, exactly=False), expected, atol=1e-12)


def test_alphaedits_closed_form(random: Random) -> None:
    keys, residuals, earlier = random.normal(size=(3, WIDTH)), random.normal(size=(3, OUT)), random.normal(size=(2, WIDTH))
    kept = random.normal(size=(4, WIDTH))
    basis = null_space(kept)
    p, k1, kp = basis @ basis.T, keys.T, earlier.T
    expected = (residuals.T @ k1.T @ p @ np.linalg.inv(kp @ kp.T @ p + k1 @ k1.T @ p + np.eye(WIDTH))).T
    found = smallest_change(keys, residuals, metric=kp @ kp.T + np.eye(WIDTH), basis=basis, exactly=False)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_leaces_closed_form_for_several_concepts_and_few_samples(random: Random) -> None:
    """Σ of fewer samples than dimensions is singular; the concept lies within what varies, and its eraser is the pseudo-inverse's."""
    x = random.normal(size=(6, WIDTH))
    z = random.normal(size=(6, 2))
    x, z = x - x.mean(0), z - z.mean(0)
    sigma, cross = x.T @ x / 6, x.T @ z / 6
    values, vectors = np.linalg.eigh(sigma)
    kept = values > 1e-9
    white = vectors[:, kept] @ np.diag(values[kept] ** -0.5) @ vectors[:, kept].T
    colour = vectors[:, kept] @ np.diag(values[kept] ** 0.5) @ vectors[:, kept].T
    whitened = white @ cross
    expected = np.eye(WIDTH) - colour @ whitened @ np.linalg.pinv(whitened) @ white
    readers = smallest_change(cross.T, np.eye(2), metric=sigma)
    inside = x @ (np.eye(WIDTH) - readers @ cross.T)
    np.testing.assert_allclose(inside, x @ expected.T, atol=1e-10)
    np.testing.assert_allclose(inside.T @ z, 0, atol=1e-10)


def test_what_lies_within_what_is_kept_cannot_be_changed(random: Random) -> None:
    kept = random.normal(size=(3, WIDTH))
    with pytest.raises(EditError, match="what is kept"):
        smallest_change(kept.sum(0), np.ones(OUT), basis=null_space(kept))
    with pytest.raises(EditError, match="whole space"):
        smallest_change(np.ones(WIDTH), np.ones(OUT), basis=null_space(np.eye(WIDTH)))
    key = random.normal(size=WIDTH)
    with pytest.raises(EditError, match="contradict"):
        smallest_change([key, key], [np.ones(OUT), -np.ones(OUT)])


def test_the_quiet_space_is_where_kept_keys_hardly_vary(random: Random) -> None:
    rows = random.normal(size=(200, 4)) @ random.normal(size=(4, WIDTH))
    basis = quiet_space(rows.T @ rows / 200, threshold=1e-9)
    assert basis.shape == (WIDTH, WIDTH - 4)
    np.testing.assert_allclose(rows @ basis, 0, atol=1e-6)
    assert quiet_space(np.eye(WIDTH), threshold=0.5).shape == (WIDTH, 0)


@pytest.mark.parametrize(
    ("keys", "targets", "metric", "message"),
    [
        (np.ones((2, 3)), np.ones((1, 3)), None, "2 keys and 1 targets"),
        (np.ones((1, 3)), np.ones((1, 3)), np.eye(4), "metric is"),
        (np.full((1, 3), np.nan), np.ones((1, 3)), None, "keys hold NaN"),
        (np.ones((1, 3)), np.ones((1, 3)), -np.eye(3), "negative"),
    ],
)
def test_what_does_not_fit_is_refused(keys: object, targets: object, metric: object, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        smallest_change(keys, targets, metric=metric)  # type: ignore[arg-type]
