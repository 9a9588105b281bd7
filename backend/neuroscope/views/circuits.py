"""Figures of circuits: faithfulness against size, what each node does, and where in the stream the answer lives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from neuroscope.circuits.circuit import Circuit
from neuroscope.circuits.patching import CausalTestResults, NodeEffect, ResidualMap
from neuroscope.tasks.statistics import Estimate
from neuroscope.views.page import figures

_BLUE, _ORANGE, _GREY = "#2f6fde", "#d9772b", "#9aa3b2"
_MOST_NODES = 40


@figures.register
def _(result: Circuit) -> Sequence[Any]:
    return [faithfulness_curve(result)]


@figures.register
def _(result: CausalTestResults) -> Sequence[Any]:
    return [faithfulness_curve(result.circuit), node_effects(result), residual_heatmap(result.residual_map)]


@figures.register
def _(result: ResidualMap) -> Sequence[Any]:
    return [residual_heatmap(result)]


def faithfulness_curve(circuit: Circuit) -> Any:
    """Measured faithfulness against the share of edges, with the circuit and its random controls marked."""
    points = sorted(circuit.curve, key=lambda point: point.fraction)
    values = [point.faithfulness for point in points]
    figure = go.Figure()
    figure.add_scatter(
        x=[100 * point.fraction for point in points],
        y=[value.value for value in values],
        error_y=_bars(values),
        mode="lines+markers",
        name="best-scored edges",
        line_color=_BLUE,
    )
    share = 100 * circuit.fraction_of_edges
    figure.add_scatter(
        x=[share],
        y=[circuit.held_out_faithfulness.value],
        error_y=_bars([circuit.held_out_faithfulness]),
        mode="markers",
        name="the circuit, held-out pairs",
        marker={"color": _ORANGE, "size": 12, "symbol": "diamond"},
    )
    figure.add_scatter(
        x=[share],
        y=[circuit.random_circuit_faithfulness.value],
        mode="markers",
        name="random circuits of that size",
        marker={"color": _GREY, "size": 11, "symbol": "x"},
    )
    figure.update_layout(
        title=f"Faithfulness against size: {circuit.task}",
        xaxis={"title": "edges kept (% of the graph)", "type": "log"},
        yaxis={"title": "faithfulness", "rangemode": "tozero"},
        template="plotly_white",
    )
    return figure


def node_effects(results: CausalTestResults) -> Any:
    """Recovery and damage of the nodes with the largest effects, random other nodes beside them."""
    strongest = sorted(results.components, key=lambda e: -max(abs(e.recovered.value), abs(e.damage.value)))[:_MOST_NODES]
    shown = sorted(strongest, key=lambda effect: (effect.site.layer or 0, str(effect.site)))
    figure = go.Figure()
    for name, colour, which in (("recovered (denoising)", _BLUE, "recovered"), ("damage (noising)", _ORANGE, "damage")):
        found = [getattr(effect, which) for effect in shown]
        labels = [str(effect.site) for effect in shown]
        figure.add_bar(x=labels, y=[e.value for e in found], error_y=_bars(found), name=name, marker_color=colour)
    if results.controls:
        figure.add_hline(y=_largest(results.controls), line_dash="dot", annotation_text="largest among random others")
    figure.update_layout(
        title="What each node suffices for and is needed for",
        xaxis={"title": "node", "tickangle": -60},
        yaxis={"title": "share of the clean–corrupt gap"},
        barmode="group",
        template="plotly_white",
        height=520,
    )
    return figure


def residual_heatmap(residual: ResidualMap) -> Any:
    """Recovery from denoising the residual stream, layer × token."""
    tokens = [f"{index} {token!r}" for index, token in enumerate(residual.tokens)]
    figure = go.Figure(
        go.Heatmap(
            z=residual.values, x=tokens, zmin=-1, zmax=1, colorscale="RdBu", reversescale=True, colorbar={"title": "recovered"}
        )
    )
    figure.update_layout(
        title=f"Denoising the residual stream ({residual.n} pairs)",
        xaxis={"title": "token of the first pair", "tickangle": -60},
        yaxis={"title": "after layer"},
        template="plotly_white",
        height=620,
    )
    return figure


def _bars(values: Sequence[Estimate]) -> dict[str, Any]:
    return {
        "type": "data",
        "symmetric": False,
        "array": [max(value.high - value.value, 0.0) for value in values],
        "arrayminus": [max(value.value - value.low, 0.0) for value in values],
        "thickness": 1,
    }


def _largest(effects: Sequence[NodeEffect]) -> float:
    return max(max(abs(effect.recovered.value), abs(effect.damage.value)) for effect in effects)
