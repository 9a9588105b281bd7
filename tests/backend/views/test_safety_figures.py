"""Figures of probes and detections show the numbers that they are made of."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from neuroscope.safety.detection import detection
from neuroscope.safety.probe import TokenScores
from neuroscope.tasks.statistics import wilson
from neuroscope.views.page import figures, has_figures, page
from neuroscope.views.safety import refusals, roc


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


def test_the_detectors_of_every_category_are_curves_of_their_own() -> None:
    one, other = (detection(positive, [0.0, 1.5, -1.0], 1.2, "texts") for positive in ([2.0, 3.0, 1.0], [0.5, -2.0, 0.1]))
    drawn = roc({"violence": one, "violence against traps": other})
    assert [trace.name for trace in drawn.data] == [
        f"violence: {one.auroc}",
        f"violence against traps: {other.auroc}",
        "chance",
    ]
    assert list(drawn.data[0].y) != list(drawn.data[1].y)


def test_refusals_are_drawn_for_the_model_the_redirect_and_the_random_directions() -> None:
    def asked(*refused: int) -> dict[str, Any]:
        return {
            who: SimpleNamespace(refusals=wilson(n, 10))
            for who, n in zip(("alone", "redirected", "random"), refused, strict=True)
        }

    report: Any = SimpleNamespace(harmful={"plain": asked(9, 10, 8)}, harmless=asked(0, 1, 0), traps=asked(1, 2, 3))
    drawn = refusals(report)
    assert {bar.name: list(bar.y) for bar in drawn.data} == {
        "alone": [0.9, 0.0, 0.1],
        "redirected": [1.0, 0.1, 0.2],
        "random": [0.8, 0.0, 0.3],
    }
    assert list(drawn.data[0].x) == ["plain", "harmless", "traps"]
    assert drawn.data[0].error_y.array[0] == wilson(9, 10).high - 0.9
