"""Figures of a validation: scores beside their thresholds and the baseline's, differences beside their margins, and the tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from neuroscope.tasks.statistics import Estimate
from neuroscope.validation.differences import FAIL, INCONCLUSIVE, PASS
from neuroscope.validation.outcomes import LOSS, SHARE, Measure, SuiteResult
from neuroscope.validation.report import ValidationReport
from neuroscope.views.page import figures
from neuroscope.views.theme import BLUE, GREEN, GREY, ORANGE, PALETTE, dressed, error_bars

_VERDICTS = {PASS: GREEN, INCONCLUSIVE: GREY, FAIL: PALETTE[4]}
_Named = list[tuple[str, Measure]]


@figures.register
def _(result: SuiteResult) -> Sequence[Any]:
    return _drawn({result.suite: result}, {})


@figures.register
def _(result: ValidationReport) -> Sequence[Any]:
    return _drawn(result.suites, result.thresholds)


def _drawn(suites: dict[str, SuiteResult], thresholds: dict[str, float]) -> list[Any]:
    measures = [(name, measure) for name, suite in suites.items() for measure in suite.measures]
    shares = [one for one in measures if one[1].kind.unit == SHARE]
    losses = [one for one in measures if one[1].kind.unit == LOSS]
    return [
        *([scores(shares, thresholds)] if shares else []),
        *(differences(unit, mine) for unit, mine in (("points", shares), (LOSS, losses)) if _compared(mine)),
        *(tasks(name, measure) for name, measure in measures if len(measure.tasks) > 1),
    ]


def scores(measures: _Named, thresholds: dict[str, float]) -> Any:
    """Every share with its interval, the baseline's beside it, and its threshold as a mark."""
    names = [f"{suite}: {measure.title}" for suite, measure in measures]
    figure = go.Figure()
    before = [(name, m.difference.baseline) for name, (_, m) in zip(names, measures, strict=True) if m.difference is not None]
    if before:
        _dots(figure, [name for name, _ in before], [score for _, score in before], "baseline", GREY)
    _dots(figure, names, [measure.score for _, measure in measures], "this model", BLUE)
    limits = [(name, thresholds[suite]) for name, (suite, _) in zip(names, measures, strict=True) if suite in thresholds]
    if limits:
        figure.add_scatter(
            x=[least for _, least in limits],
            y=[name for name, _ in limits],
            mode="markers",
            marker={"symbol": "line-ns", "size": 20, "line": {"width": 2, "color": ORANGE}},
            name="threshold",
        )
    return _lying(figure, "Scores", "share, with 95 % interval", len(names), xaxis_range=[-0.02, 1.02])


def differences(unit: str, measures: _Named) -> Any:
    """How much better than the baseline, in colours of the verdict, with the margins as marks."""
    compared = _compared(measures)
    figure = go.Figure()
    scale = 100 if unit == "points" else 1
    for verdict, colour in _VERDICTS.items():
        mine = [(f"{suite}: {m.title}", d) for suite, m, d in compared if d.verdict == verdict]
        if mine:
            found = [_scaled(difference.estimate, scale) for _, difference in mine]
            _dots(figure, [name for name, _ in mine], found, verdict, colour)
    figure.add_scatter(
        x=[-scale * difference.margin for *_, difference in compared],
        y=[f"{suite}: {measure.title}" for suite, measure, _ in compared],
        mode="markers",
        marker={"symbol": "line-ns", "size": 20, "line": {"width": 2, "color": ORANGE}},
        name="margin",
    )
    figure.add_vline(x=0, line_dash="dot", line_color=GREY)
    return _lying(figure, f"Better than the baseline by, in {unit}", f"{unit}, with 95 % interval", len(compared))


def tasks(suite: str, measure: Measure) -> Any:
    """The score of every task of a measure."""
    figure = go.Figure()
    _dots(figure, [task.task for task in measure.tasks], [task.score for task in measure.tasks], "this model", BLUE)
    limits = {"xaxis_range": [-0.02, 1.02]} if measure.kind.unit == SHARE else {}
    return _lying(
        figure,
        f"{suite}: {measure.title}, task by task",
        f"{measure.kind.unit}, with 95 % interval",
        len(measure.tasks),
        **limits,
    )


def _compared(measures: _Named) -> list[tuple[str, Measure, Any]]:
    return [(suite, measure, measure.difference) for suite, measure in measures if measure.difference is not None]


def _dots(figure: Any, names: Sequence[str], values: Sequence[Estimate], name: str, colour: str) -> None:
    figure.add_scatter(
        x=[value.value for value in values],
        y=list(names),
        error_x=error_bars(values),
        mode="markers",
        marker={"size": 9, "color": colour},
        name=name,
        text=[f"{value}, n {value.n}" for value in values],
        hovertemplate="%{y}: %{text}<extra></extra>",
    )


def _lying(figure: Any, title: str, x: str, rows: int, **layout: Any) -> Any:
    return dressed(figure, title, x=x, height=170 + 34 * rows, yaxis_autorange="reversed", **layout)


def _scaled(value: Estimate, scale: float) -> Estimate:
    return Estimate(scale * value.value, scale * value.low, scale * value.high, value.n)
