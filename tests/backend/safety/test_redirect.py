"""The redirect: an independent solution, what it keeps, and that random labels give nothing."""

from __future__ import annotations

import numpy as np
import pytest

from neuroscope.editing.kernel import null_space
from neuroscope.errors import EditError
from neuroscope.safety.detection import auroc, bag_of_words, calibrated, detection
from neuroscope.safety.probe import fitted
from neuroscope.safety.readings import opened
from neuroscope.safety.redirect import metric, redirect

WIDTH = 24


def planted(seed: int = 0) -> tuple[np.ndarray, ...]:
    """Harmful activations that stand out in one direction, harmless ones, those of them that are kept, and the refusal direction."""
    random = np.random.default_rng(seed)
    harmless = random.normal(size=(200, WIDTH))
    harmful = random.normal(size=(60, WIDTH)) + 3 * np.eye(WIDTH)[0]
    return harmful, harmless, harmless[:10], random.normal(size=WIDTH)


def test_the_matrix_is_that_of_an_independent_solver() -> None:
    harmful, harmless, kept, direction = planted()
    found = redirect(3, harmful, harmless, kept, direction, 2.0)
    basis = null_space(kept)
    root = np.linalg.cholesky(metric(harmful, harmless)).T @ basis
    rows = np.concatenate([harmful @ basis, root])
    targets = np.concatenate([np.tile(direction, (len(harmful), 1)), np.zeros((WIDTH, WIDTH))])
    change = basis @ np.linalg.lstsq(rows, targets, rcond=None)[0]
    assert np.abs(found.matrix - (np.eye(WIDTH) + 2 * change)).max() <= 1e-9


def test_kept_activations_stay_and_harmful_ones_move_towards_the_direction() -> None:
    harmful, harmless, kept, direction = planted()
    found = redirect(3, harmful, harmless, kept, direction, 2.0)
    assert np.abs(kept @ found.matrix - kept).max() <= 1e-10
    assert found.reached > 3 * found.moved
    moved = harmful @ found.matrix - harmful
    assert np.allclose(moved, found.step(harmful))
    assert (moved @ direction > 0).mean() > 0.95


def test_what_is_kept_may_leave_no_room() -> None:
    harmful, harmless, _, direction = planted()
    with pytest.raises(EditError, match="fills the whole space"):
        redirect(3, harmful, harmless, harmless, direction, 1.0)


def test_shuffled_labels_give_no_detector() -> None:
    """A hundred seeds: of held-out texts of noise the interval leaves out one half no more often than it may."""
    found = 0
    for seed in range(100):
        random = np.random.default_rng(seed)
        values, labels = random.normal(size=(120, WIDTH)), random.permutation(np.arange(120) < 60)
        weights, bias = fitted(values[:60], labels[:60])
        scores = values[60:] @ weights + bias
        estimate = auroc(scores[labels[60:]], scores[~labels[60:]])
        found += not estimate.low <= 0.5 <= estimate.high
    assert found <= 8


def test_a_planted_quality_is_found() -> None:
    harmful, harmless, _, _ = planted()
    weights, bias = fitted(np.concatenate([harmful[:30], harmless[:100]]), np.arange(130) < 30)
    found = detection(harmful[30:] @ weights + bias, harmless[100:] @ weights + bias, None, "rows")
    assert found.auroc.low > 0.75
    assert found.detected is None


def test_a_threshold_keeps_its_rate_on_new_scores() -> None:
    """Over many draws, as conformal thresholds do on average."""
    random, passed = np.random.default_rng(0), []
    for _ in range(300):
        threshold = calibrated(random.normal(size=99), 0.05)
        assert threshold is not None
        passed.append((random.normal(size=200) > threshold).mean())
    assert 0.04 < np.mean(passed) < 0.06
    assert calibrated(random.normal(size=9), 0.05) is None


def test_a_gate_stays_open_and_rows_are_apart() -> None:
    scores = np.array([[9.0, 0, 9, 0], [0, 9, 0, 0]])
    at = np.array([[False, True, True, False], [False, False, True, True]])
    assert opened(scores, at, 1.0).tolist() == [[False, False, True, True], [False] * 4]
    assert opened(scores, at, 1.0, np.array([False, True])).tolist()[1] == [True] * 4


def test_words_tell_what_shares_words_and_nothing_else() -> None:
    high, low = ["stab Tom", "stab Ann"] * 4, ["meet Tom", "meet Ann"] * 4
    assert bag_of_words(high, low, ["stab Bob"] * 8, ["meet Bob"] * 8).value == 1.0
    assert bag_of_words(high, low, ["poison Bob"] * 8, ["visit Bob"] * 8).value == 0.5
