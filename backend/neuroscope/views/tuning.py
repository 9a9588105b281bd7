"""Figures of a training: the objectives on the way, and the task beside everything else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from neuroscope.tuning.results import CircuitTraining
from neuroscope.views.page import figures
from neuroscope.views.theme import GREY, ORANGE, PALETTE, dressed, error_bars


@figures.register
def _(result: CircuitTraining) -> Sequence[Any]:
    return [curves(result), trade(result)]


def curves(result: CircuitTraining) -> Any:
    """Each objective on training and on held-out data, and the step whose weights were kept."""
    figure = go.Figure()
    for colour, name in zip(PALETTE, result.objectives, strict=False):
        shown, points = name.replace("_", " "), result.curves
        figure.add_scatter(
            x=[p.step for p in points], y=[p.held_out[name] for p in points], name=f"{shown}, held out", line={"color": colour}
        )
        figure.add_scatter(
            x=[p.step for p in points if p.training],
            y=[p.training[name] for p in points if p.training],
            name=f"{shown}, training",
            line={"color": colour, "dash": "dot"},
        )
    figure.add_vline(x=result.circuit.best_step, line_dash="dash", line_color=GREY)
    return dressed(figure, f"Training for {result.task}", x="step", y="objective", height=380, yaxis_type="log")


def trade(result: CircuitTraining) -> Any:
    """Accuracy on the task and on the other tasks of the model before, of the circuit's training and of its controls."""
    runs = (result.circuit, *result.controls)
    task = {"before": result.before, **{one.weights: one.accuracy for one in runs}}
    others = {"before": result.others_before, **{one.weights: one.others for one in runs}}
    figure = go.Figure()
    for name, colour, found in (("the task", PALETTE[0], task), ("other tasks", ORANGE, others)):
        measured = {label: estimate for label, estimate in found.items() if estimate is not None}
        figure.add_scatter(
            x=list(measured),
            y=[estimate.value for estimate in measured.values()],
            error_y=error_bars(list(measured.values())),
            mode="markers",
            marker={"size": 9, "color": colour},
            name=name,
        )
    return dressed(
        figure, "What was learnt and what was kept", x="weights trained", y="accuracy, with 95 % interval", height=360
    )
