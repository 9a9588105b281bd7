"""Figures of installed circuits: accuracy with and without, beside the controls; and how good the map is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from neuroscope.tasks.statistics import Estimate
from neuroscope.transfer.installation import CircuitInstallation
from neuroscope.transfer.maps import StreamMap
from neuroscope.views.page import figures
from neuroscope.views.theme import BLUE, GREY, dressed, error_bars


@figures.register
def _(result: StreamMap) -> Sequence[Any]:
    return [quality(result)]


@figures.register
def _(result: CircuitInstallation) -> Sequence[Any]:
    changes = {"circuit": result.at_tried, **result.controls}
    title = f"Change of accuracy on {result.task} at gate {result.tried:g} (chosen: {result.gate:g})"
    return [_dots(title, "accuracy with it, less accuracy alone", changes), quality(result.map_r2)]


def quality(found: StreamMap) -> Any:
    """The four figures of a map, with their intervals."""
    named = {
        "R²": found.raw,
        "standardised R²": found.standardised,
        "round trip": found.round_trip,
        "source's stream instead": found.substituted,
    }
    return _dots(f"Map from layer {found.source_layer} to layer {found.target_layer}, on held-out texts", "share kept", named)


def _dots(title: str, x: str, values: Mapping[str, Estimate]) -> Any:
    figure = go.Figure()
    figure.add_scatter(
        x=[value.value for value in values.values()],
        y=list(values),
        error_x=error_bars(list(values.values())),
        mode="markers",
        marker={"size": 9, "color": BLUE},
        text=[f"{value}, n {value.n}" for value in values.values()],
        hovertemplate="%{y}: %{text}<extra></extra>",
        showlegend=False,
    )
    figure.add_vline(x=0, line_dash="dot", line_color=GREY)
    return dressed(figure, title, x=x, height=170 + 34 * len(values), yaxis_autorange="reversed")
