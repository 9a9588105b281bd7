"""Figures of circuits: faithfulness against size, effects of nodes, and denoising of the stream."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from neuroscope.circuits.circuit import Circuit
from neuroscope.circuits.comparison import GrowthAnalysis
from neuroscope.circuits.curve import SIZES, CurvePoint, FaithfulnessCurve
from neuroscope.circuits.patching import CausalTestResults, NodeEffect, ResidualMap
from neuroscope.circuits.quality import ASPECTS, QualityReport
from neuroscope.views.layered import circuit_graph
from neuroscope.views.page import figures
from neuroscope.views.theme import BLUE, GREY, ORANGE, PALETTE, TOWARDS, error_bars

_MOST_NODES = 40


@figures.register
def _(result: Circuit) -> Sequence[Any]:
    if not result.exists:
        return [effect_figure(result)]
    return [circuit_graph(result), *([faithfulness_curve(result)] if result.curve else [])]


@figures.register
def _(result: FaithfulnessCurve) -> Sequence[Any]:
    return [curve_figure(result)]


@figures.register
def _(result: GrowthAnalysis) -> Sequence[Any]:
    circuits = [side.circuit for side in (result.small, result.large) if side.circuit is not None]
    return [growth_curves(result), *map(circuit_graph, circuits)]


@figures.register
def _(result: QualityReport) -> Sequence[Any]:
    return [qualityerror_bars(result)]


@figures.register
def _(result: CausalTestResults) -> Sequence[Any]:
    if result.residual_map is None:
        return [effect_figure(result.circuit)]
    return [faithfulness_curve(result.circuit), node_effects(result), residual_heatmap(result.residual_map)]


@figures.register
def _(result: ResidualMap) -> Sequence[Any]:
    return [residual_heatmap(result)]


def curve_figure(curve: FaithfulnessCurve) -> Any:
    """Faithfulness from 0.1 to 100 % of the edges, in both orders."""
    figure = go.Figure()
    for name, points, colour in (("by |score|", curve.points, BLUE), ("by score", curve.signed_points, ORANGE)):
        values = [point.faithfulness for point in points]
        figure.add_scatter(
            x=[100 * share for share in SIZES],
            y=[value.value for value in values],
            error_y=error_bars(values),
            mode="lines+markers",
            name=name,
            line_color=colour,
        )
    figure.add_hline(y=1, line_dash="dot", line_color=GREY)
    figure.update_layout(
        title=f"{curve.task}, {curve.method}: CPR {curve.cpr:.3f}, CMD {curve.cmd:.3f}",
        xaxis={"title": "edges kept (% of the graph)", "type": "log"},
        yaxis={"title": "faithfulness on held-out pairs"},
        template="plotly_white",
    )
    return figure


def growth_curves(analysis: GrowthAnalysis) -> Any:
    """Faithfulness against circuit size in both models."""
    figure = go.Figure()
    for side, colour in ((analysis.small, BLUE), (analysis.large, ORANGE)):
        points = chosen_line(side.curve, side.edges)
        values = [point.faithfulness for point in points]
        figure.add_scatter(
            x=[100 * point.fraction for point in points],
            y=[value.value for value in values],
            error_y=error_bars(values),
            mode="lines+markers",
            name=side.model if side.exists else f"{side.model}: no circuit",
            line_color=colour,
        )
    figure.update_layout(
        title=f"Growth of the circuit for {analysis.task}",
        xaxis={"title": "edges kept (% of each model's graph)", "type": "log"},
        yaxis={"title": "faithfulness", "rangemode": "tozero"},
        template="plotly_white",
    )
    return figure


def chosen_line(curve: Sequence[CurvePoint], edges: int | None) -> list[CurvePoint]:
    """The points of the weight that gave the circuit of `edges` edges, by size; none without a circuit."""
    weights = {point.negative_weight for point in curve if point.edges == edges}
    return sorted((point for point in curve if point.negative_weight in weights), key=lambda point: point.fraction)


def effect_figure(circuit: Circuit) -> Any:
    """Clean and corrupt metric, if they do not differ and so there is no circuit."""
    values = [circuit.clean_metric, circuit.corrupt_metric]
    figure = go.Figure()
    figure.add_scatter(
        x=["clean", "corrupt"],
        y=[value.value for value in values],
        error_y=error_bars(values),
        mode="markers",
        marker={"color": BLUE, "size": 11},
    )
    figure.update_layout(
        title=f"No circuit for {circuit.task}",
        xaxis={"title": circuit.reason},
        yaxis={"title": circuit.metric},
        template="plotly_white",
    )
    return figure


def qualityerror_bars(report: QualityReport) -> Any:
    """The scores of a quality report."""
    found = [(name, getattr(report, name)) for name in ASPECTS if getattr(report, name) is not None]
    labels, scores = [name for name, _ in found], [part.score for _, part in found]
    if report.overall_score is not None:
        labels, scores = [*labels, "overall"], [*scores, report.overall_score]
    figure = go.Figure(go.Bar(x=labels, y=scores, marker_color=BLUE, text=[f"{score:.2f}" for score in scores]))
    figure.update_layout(title="Quality of the circuit", yaxis={"range": [0, 1]}, template="plotly_white")
    return figure


def faithfulness_curve(circuit: Circuit) -> Any:
    """Measured faithfulness against the share of edges, a line for each weight of negative scores, with the controls."""
    figure = go.Figure()
    weights = sorted({point.negative_weight for point in circuit.curve}, reverse=True)
    for weight, colour in zip(weights, itertools.cycle(PALETTE)):
        points = sorted((point for point in circuit.curve if point.negative_weight == weight), key=lambda one: one.fraction)
        values = [point.faithfulness for point in points]
        figure.add_scatter(
            x=[100 * point.fraction for point in points],
            y=[value.value for value in values],
            error_y=error_bars(values),
            mode="lines+markers",
            name=f"negative scores × {weight:g}",
            line_color=colour,
        )
    share = 100 * circuit.fraction_of_edges
    figure.add_scatter(
        x=[share],
        y=[circuit.held_out_faithfulness.value],
        error_y=error_bars([circuit.held_out_faithfulness]),
        mode="markers",
        name="the circuit, held-out pairs",
        marker={"color": ORANGE, "size": 12, "symbol": "diamond"},
    )
    for control, symbol in zip(circuit.controls, itertools.cycle(("x", "cross", "triangle-up"))):
        figure.add_scatter(
            x=[share],
            y=[control.faithfulness.value],
            error_y=error_bars([control.faithfulness]),
            mode="markers",
            name=f"{control.kind} circuits of that size",
            marker={"color": GREY, "size": 11, "symbol": symbol},
        )
    figure.update_layout(
        title=f"Faithfulness against size: {circuit.task}",
        xaxis={"title": "edges kept (% of the graph)", "type": "log"},
        yaxis={"title": "faithfulness", "rangemode": "tozero"},
        template="plotly_white",
    )
    return figure


def node_effects(results: CausalTestResults) -> Any:
    """Recovery and damage of the nodes with the largest effects, and of random others."""
    strongest = sorted(results.components, key=lambda e: -max(abs(e.recovered.value), abs(e.damage.value)))[:_MOST_NODES]
    shown = sorted(strongest, key=lambda effect: (effect.site.layer or 0, str(effect.site)))
    figure = go.Figure()
    for name, colour, which in (("recovered (denoising)", BLUE, "recovered"), ("damage (noising)", ORANGE, "damage")):
        found = [getattr(effect, which) for effect in shown]
        labels = [str(effect.site) for effect in shown]
        figure.add_bar(x=labels, y=[e.value for e in found], error_y=error_bars(found), name=name, marker_color=colour)
    if results.controls:
        figure.add_hline(y=_largest(results.controls), line_dash="dot", annotation_text="largest among random others")
    figure.update_layout(
        title="Recovery and damage by node",
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
        go.Heatmap(z=residual.values, x=tokens, zmin=-1, zmax=1, colorscale=TOWARDS, colorbar={"title": "recovered"})
    )
    figure.update_layout(
        title=f"Denoising the residual stream ({residual.n} pairs)",
        xaxis={"title": "token of the first pair", "tickangle": -60},
        yaxis={"title": "after layer"},
        template="plotly_white",
        height=620,
    )
    return figure


def _largest(effects: Sequence[NodeEffect]) -> float:
    return max(max(abs(effect.recovered.value), abs(effect.damage.value)) for effect in effects)
