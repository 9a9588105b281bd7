"""Figures of probes and detections show the numbers that they are made of."""

from __future__ import annotations

import numpy as np

from neuroscope.safety.detection import detection
from neuroscope.safety.probe import TokenScores
from neuroscope.views.page import figures, has_figures, page


def test_a_detection_is_a_curve_from_nothing_to_everything() -> None:
    found = detection([2.0, 3.0, 1.0], [0.0, 1.5, -1.0], 1.2, "texts")
    assert has_figures(found)
    (drawn,) = figures(found)
    x, y = np.array(drawn.data[0].x), np.array(drawn.data[0].y)
    assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)
    assert abs(np.sum(np.diff(x) * y[:-1]) - found.auroc.value) < 1e-9
    assert str(found.auroc) in drawn.data[0].name


def test_scores_along_a_text_tell_where_it_is_read() -> None:
    found = TokenScores("harm", ["How", " kill", "<?"], [0.0, 4.0, 1.0], [False, False, True], 2.0)
    (drawn,) = figures(found)
    assert list(drawn.data[0].y) == [0.0, 4.0, 1.0]
    colours = drawn.data[0].marker.color
    assert colours[0] == colours[1] != colours[2]
    assert "harm along the text" in page(found)
