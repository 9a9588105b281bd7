"""Figures of neurons, ablation and steering."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from neuroscope.features.ablation import AblationResults
from neuroscope.features.neurons import NeuronSet
from neuroscope.steering.results import SteeringResults
from neuroscope.tasks.statistics import Estimate
from neuroscope.views.page import figures
from neuroscope.views.theme import BELOW, BLUE, GREEN, GREY, ORANGE, PALETTE, VIOLET, dressed, error_bars

_MOST_NEURONS = 30
_MODE_COLOURS = {"one_token": ORANGE, "all_tokens": BLUE, "growing": GREEN, "random_direction": GREY}


@figures.register
def _(result: NeuronSet) -> Sequence[Any]:
    return [by_layer(result), *([neuron_bars(result)] if result.neurons else [])]


@figures.register
def _(result: AblationResults) -> Sequence[Any]:
    return [damage(result)]


@figures.register
def _(result: SteeringResults) -> Sequence[Any]:
    return [doses(result), growth(result), *([density(result)] if result.density else [])]


def by_layer(result: NeuronSet) -> Any:
    """Held-out AUROC of each layer's chosen neurons, or their contribution to answers."""
    layers = list(range(len(result.by_layer)))
    colours = [ORANGE if layer == result.layer else BLUE for layer in layers]
    figure = go.Figure(go.Bar(x=layers, y=result.by_layer, marker_color=colours))
    if result.choosing == "effect":
        title = f"{result.concept}: contribution of each layer's confirmed neurons to an answer (chosen: {result.layer})"
        return dressed(figure, title, x="layer", y="log-odds (nats), judging items", height=340)
    figure.add_hline(y=0.5, line_dash="dot", line_color=GREY, annotation_text="chance")
    title = f"{result.concept}: the chosen neurons of each layer (chosen: {result.layer})"
    return dressed(figure, title, x="layer", y="mean AUROC, held out", height=340, yaxis_range=[0.4, 1.02])


def neuron_bars(result: NeuronSet) -> Any:
    """The set's strongest neurons."""
    shown = result.neurons[:_MOST_NEURONS]
    figure = go.Figure(
        go.Bar(
            x=[str(neuron.id) for neuron in shown],
            y=[neuron.strength for neuron in shown],
            marker_color=VIOLET,
            text=[neuron.top_contexts[0] for neuron in shown],
            textposition="none",
            hovertemplate="neuron %{x}: %{y:.3f}<br>strongest at %{text}<extra></extra>",
        )
    )
    figure.update_xaxes(type="category")
    effects = [neuron.effect for neuron in shown if neuron.effect is not None]
    if effects:
        figure.update_traces(error_y=error_bars(effects))
        return dressed(figure, f"Neurons of layer {result.layer}", x="neuron", y="contribution to an answer (nats)", height=340)
    return dressed(
        figure, f"Neurons of layer {result.layer}", x="neuron", y="AUROC, held out", height=340, yaxis_range=[0.4, 1.02]
    )


def damage(result: AblationResults) -> Any:
    """Damage by mode on the task, of random sets, and on another task."""
    modes = [mode.mode for mode in result.modes]
    figure = go.Figure()
    for name, colour, estimates in (
        (f"on {result.task}", BLUE, [mode.damage for mode in result.modes]),
        (f"on {result.off_target}", ORANGE, [mode.off_target_damage for mode in result.modes]),
    ):
        figure.add_bar(
            x=modes, y=[each.value for each in estimates], error_y=error_bars(estimates), name=name, marker_color=colour
        )
    figure.add_scatter(
        x=[mode.mode for mode in result.modes for _ in mode.random_damage],
        y=[value for mode in result.modes for value in mode.random_damage],
        mode="markers",
        marker={"color": GREY, "size": 6, "opacity": 0.7},
        name="random sets of the layer",
    )
    title = f"Ablating {len(result.neurons)} neurons of {result.concept} in layer {result.layer}"
    return dressed(figure, title, x="ablated by", y="damage (nats)", barmode="group", legend=BELOW)


def doses(result: SteeringResults) -> Any:
    """Effect (if a probe reads the quality), preference and fluency by strength and mode."""
    measured = [
        (title, by_mode)
        for title, by_mode in (
            ("effect (probe score)", result.effect),
            ("preference (nats per token)", result.preference),
            ("perplexity of the output", result.fluency),
        )
        if by_mode
    ]
    figure = make_subplots(rows=1, cols=len(measured), subplot_titles=[title for title, _ in measured], horizontal_spacing=0.08)
    for column, (_, by_mode) in enumerate(measured, 1):
        for number, (mode, by_strength) in enumerate(by_mode.items()):
            estimates: list[Estimate] = list(by_strength.values())
            figure.add_scatter(
                x=[float(strength) for strength in by_strength],
                y=[each.value for each in estimates],
                error_y=error_bars(estimates),
                mode="lines+markers",
                name=mode.replace("_", " "),
                legendgroup=mode,
                showlegend=column == 1,
                line_color=_MODE_COLOURS.get(mode, PALETTE[number % len(PALETTE)]),
                row=1,
                col=column,
            )
    figure.update_yaxes(type="log", row=1, col=len(measured))
    found = "" if result.exists else ": no effect"
    return dressed(figure, f"{result.vector} at {result.layer}.{result.component}{found}", x="strength", legend=BELOW)


def growth(result: SteeringResults) -> Any:
    """Growth of preference and effect per unit of strength, compared with random directions."""
    measured = [
        (title, by_mode, random)
        for title, by_mode, random in (
            ("preference (nats per token)", result.growth, result.random_growth),
            ("effect (probe score)", result.effect_growth, result.random_effect_growth),
        )
        if by_mode
    ]
    figure = make_subplots(rows=1, cols=len(measured), subplot_titles=[title for title, *_ in measured], horizontal_spacing=0.1)
    for column, (_, by_mode, random) in enumerate(measured, 1):
        steered = {mode: estimate for mode, estimate in by_mode.items() if mode != "random_direction"}
        figure.add_bar(
            x=[mode.replace("_", " ") for mode in steered],
            y=[estimate.value for estimate in steered.values()],
            error_y=error_bars(list(steered.values())),
            marker_color=[_MODE_COLOURS[mode] for mode in steered],
            showlegend=False,
            row=1,
            col=column,
        )
        figure.add_scatter(
            x=["random directions"] * len(random),
            y=random,
            mode="markers",
            marker={"color": GREY, "size": 6, "opacity": 0.7},
            showlegend=False,
            row=1,
            col=column,
        )
    title = f"Growth per unit of strength; p = {result.random_p_value:.3f} against random directions"
    return dressed(figure, title, height=360)


def density(result: SteeringResults) -> Any:
    """The quality by token position."""
    scores = [each.score for each in result.density]
    figure = go.Figure(
        go.Scatter(
            x=[each.position for each in result.density],
            y=[score.value for score in scores],
            error_y=error_bars(scores),
            mode="lines+markers",
            line_color=VIOLET,
        )
    )
    return dressed(figure, "Score by token position", x="token position", y="probe score", height=340)
