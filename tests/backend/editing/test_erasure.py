"""Erasing maps, held against the paper's formula and a general solver, and what a probe finds afterwards."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from neuroscope.editing.erasure import leace, mean_difference, random_like
from neuroscope.editing.kernel import Matrix
from neuroscope.errors import ArgumentError, EditError

N, WIDTH = 400, 12


@pytest.fixture
def data() -> tuple[Matrix, Matrix]:
    """Correlated vectors whose mean depends on the class."""
    random = np.random.default_rng(5)
    z = (random.random(N) < 0.4).astype(np.float64)
    x = random.normal(size=(N, WIDTH)) @ random.normal(size=(WIDTH, WIDTH)) + np.outer(z, random.normal(size=WIDTH)) + 3
    return x, z


def covariance(x: Matrix, z: Matrix) -> Matrix:
    return (x - x.mean(0)).T @ (z - z.mean()) / len(x)


def test_without_anything_kept_it_is_leace_as_the_paper_writes_it(data: tuple[Matrix, Matrix]) -> None:
    x, z = data
    values, vectors = np.linalg.eigh(np.cov(x.T, bias=True))
    whiten, colour = (vectors * values**-0.5) @ vectors.T, (vectors * values**0.5) @ vectors.T
    direction = (whiten @ covariance(x, z))[:, None]
    projection = direction @ direction.T / float((direction**2).sum())
    expected = x - (x - x.mean(0)) @ (colour @ projection @ whiten).T
    eraser = leace(x, z)
    assert eraser is not None
    np.testing.assert_allclose(eraser(x), expected, atol=1e-9)
    assert np.abs(covariance(eraser(x), z)).max() < 1e-12


@pytest.mark.parametrize("centred", [True, False])
def test_with_kept_vectors_it_is_the_stationary_point_of_its_lagrangian(data: tuple[Matrix, Matrix], centred: bool) -> None:
    x, z = data
    kept = np.random.default_rng(6).normal(size=(3, WIDTH))
    text = np.random.default_rng(7).normal(size=(50, WIDTH))
    eraser = leace(x, z, kept=[kept], text=text, centred=centred, kept_cost=2.0, ridge=0.3)
    assert eraser is not None
    mu, s = x.mean(0), covariance(x, z)
    parts = [(x - mu).T @ (x - mu) / N, (text - mu).T @ (text - mu) / 50, 2.0 * (kept - mu).T @ (kept - mu) / 3]
    metric = sum(parts) + 0.3 * np.trace(parts[0]) / WIDTH * np.eye(WIDTH)
    rows = np.concatenate([s[None], kept - mu, *([] if centred else [mu[None]])])
    system = np.block([[metric, rows.T], [rows, np.zeros((len(rows), len(rows)))]])
    wanted = np.r_[np.zeros(WIDTH), 1, np.zeros(len(rows) - 1)]
    np.testing.assert_allclose(eraser.read, np.linalg.solve(system, wanted)[:WIDTH], atol=1e-9 * np.abs(eraser.read).max())
    assert np.abs(eraser(kept) - kept).max() < 1e-10
    assert np.abs(covariance(eraser(x), z)).max() < 1e-12
    assert (float(np.abs(eraser.constant).max()) < 1e-10) == (not centred)


def test_a_probe_finds_the_concept_before_and_not_afterwards(data: tuple[Matrix, Matrix]) -> None:
    x, z = data
    eraser = leace(x[: N // 2], z[: N // 2])
    assert eraser is not None

    def held_out(values: Matrix) -> float:
        probe = LogisticRegression(max_iter=2000).fit(values[: N // 2], z[: N // 2])
        return float(probe.score(values[N // 2 :], z[N // 2 :]))

    chance = max(z[N // 2 :].mean(), 1 - z[N // 2 :].mean())
    assert held_out(x) > chance + 0.2
    assert held_out(eraser(x)) < chance + 0.06
    random = random_like(eraser, x, np.random.default_rng(0))
    assert held_out(random(x)) > chance + 0.2
    assert random.shift(x) == pytest.approx(eraser.shift(x))


def test_only_the_leading_directions_of_what_is_kept_stay_where_so_asked(data: tuple[Matrix, Matrix]) -> None:
    x, z = data
    random = np.random.default_rng(8)
    kept = x.mean(0) + random.normal(size=(30, WIDTH)) * np.r_[50, 20, np.full(WIDTH - 2, 0.1)]
    with pytest.raises(EditError, match="fills the whole space"):
        leace(x, z, kept=[kept])
    eraser = leace(x, z, kept=[kept], exactly=2)
    assert eraser is not None
    _, _, axes = np.linalg.svd(kept - x.mean(0))
    assert np.abs(axes[:2] @ eraser.read).max() < 1e-12 * np.abs(eraser.read).max() + 1e-12
    assert abs(float(axes[2] @ eraser.read)) > 1e-6


def test_the_mean_difference_is_removed_orthogonally(data: tuple[Matrix, Matrix]) -> None:
    x, z = data
    eraser = mean_difference(x, z)
    assert eraser is not None
    erased = eraser(x)
    np.testing.assert_allclose(erased[z == 1].mean(0), erased[z == 0].mean(0), atol=1e-12)
    np.testing.assert_allclose(np.outer(eraser.written, eraser.read), np.outer(eraser.read, eraser.written), atol=1e-12)


def test_vectors_that_do_not_know_the_concept_are_left_alone() -> None:
    x = np.repeat(np.random.default_rng(9).normal(size=(6, WIDTH)), 2, axis=0)
    assert leace(x, np.tile([0.0, 1.0], 6)) is None
    assert mean_difference(np.zeros((4, 2)), np.array([0.0, 1, 0, 1])) is None


def test_bad_vectors_are_refused(data: tuple[Matrix, Matrix]) -> None:
    x, z = data
    broken = x.copy()
    broken[3, 1] = np.nan
    with pytest.raises(ArgumentError, match="NaN"):
        leace(broken, z)
    with pytest.raises(ArgumentError, match="two classes"):
        leace(x, np.ones(N))
    with pytest.raises(ArgumentError, match="do not go with"):
        leace(x, z[:-1])
    direction = np.outer(np.r_[np.ones(5), -np.ones(5)], np.eye(3)[0])
    with pytest.raises(EditError, match="without touching what is kept"):
        leace(direction, np.r_[np.ones(5), np.zeros(5)], kept=[direction])
