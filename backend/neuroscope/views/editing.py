"""Figures of an erasure: the bias of every entity before and after, and what else became of the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from neuroscope.editing.transforms import WeightTransform
from neuroscope.tasks.statistics import Estimate
from neuroscope.views.page import figures
from neuroscope.views.theme import BLUE, GREY, ORANGE, dressed, error_bars


@figures.register
def _(result: WeightTransform) -> Sequence[Any]:
    return [bias(result), capabilities(result), controls(result)] if result.exists else []


def bias(result: WeightTransform) -> Any:
    """The bias of every held-out entity, before and after; .5 is none."""
    figure = go.Figure()
    names = [one.entity for one in result.by_entity]
    _dots(figure, names, [one.before for one in result.by_entity], "before", GREY)
    _dots(figure, names, [one.after for one in result.by_entity], "after", BLUE)
    figure.add_vline(x=0.5, line_dash="dot", line_color=ORANGE)
    return _lying(figure, f"{result.concept}, held out", "P(expected answer), with 95 % interval", len(names))


def capabilities(result: WeightTransform) -> Any:
    """Every capability on held-out items, before and after."""
    figure = go.Figure()
    names = [f"{one.capability}, {one.measure}" for one in result.kept]
    _dots(figure, names, [one.before for one in result.kept], "before", GREY)
    _dots(figure, names, [one.after for one in result.kept], "after", BLUE)
    return _lying(figure, "What was to be kept", "share right, with 95 % interval", len(names))


def controls(result: WeightTransform) -> Any:
    """Bias against capability: this edit, none, and other edits of the same components."""
    points = [
        ("before", result.bias_before, result.capability_before, GREY),
        (result.method, result.bias_after, result.capability_after, BLUE),
        *((one.method, one.bias, one.capability, ORANGE) for one in result.controls),
    ]
    figure = go.Figure()
    for name, x, y, colour in points:
        assert x is not None
        assert y is not None
        figure.add_scatter(
            x=[x.value],
            y=[y.value],
            error_x=error_bars([x]),
            error_y=error_bars([y]),
            mode="markers+text",
            text=[name],
            textposition="top center",
            marker={"size": 9, "color": colour},
            name=name,
            showlegend=False,
        )
    figure.add_vline(x=0.5, line_dash="dot", line_color=GREY)
    return dressed(figure, "Against other edits of the same components", x="bias", y="capability kept, share right")


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


def _lying(figure: Any, title: str, x: str, rows: int) -> Any:
    height = 170 + 34 * rows
    return dressed(figure, title, x=x, height=height, yaxis_autorange="reversed", xaxis_range=[-0.02, 1.02])
