"""Figures of edits of facts: what each question's two objects were and are, the rates, and the causal trace layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from neuroscope.editing.facts import FactEdit
from neuroscope.editing.measures import FactAnswer
from neuroscope.editing.tracing import FactCircuit
from neuroscope.tasks.statistics import Estimate
from neuroscope.views.page import figures
from neuroscope.views.theme import BLUE, GREEN, GREY, ORANGE, TOWARDS, dressed, error_bars, labels, visible

#: What a kind of question asks, in the order of the figure.
_KINDS = {
    "efficacy": "the statement",
    "paraphrase": "in other words",
    "specificity": "other subjects",
    "ownFacts": "the subject's other facts",
    "portability": "what follows",
}
#: Questions of a kind that a figure has room for.
_ROWS = 8


@figures.register
def _(result: FactEdit) -> Sequence[Any]:
    return [answers(result), rates(result)]


@figures.register
def _(result: FactCircuit) -> Sequence[Any]:
    if not result.exists:
        return []
    return [recovered(result, kind) for kind in ("stream", "mlp", "attention")]


def answers(edit: FactEdit) -> Any:
    """Every question's right object and the one it is compared with, each a line from its probability before to that after."""
    chosen = [one for kind in _KINDS for one in [each for each in edit.answers if each.kind == kind][:_ROWS]]
    names = [f"{at} {_KINDS[one.kind]}: {visible(one.prompt)}" for at, one in enumerate(chosen, 1)]
    figure = go.Figure()
    for after, name, colour in ((True, "right after the edit", BLUE), (False, "compared with", ORANGE)):
        shifts = [one.wanted_probability if after else one.other_probability for one in chosen]
        figure.add_scatter(
            x=[x for shift in shifts for x in (shift.before, shift.after, None)],
            y=[y for row in names for y in (row, row, None)],
            mode="lines",
            line={"color": colour, "width": 2},
            hoverinfo="skip",
            showlegend=False,
        )
        for when, symbol in (("before", "circle-open"), ("after", "circle")):
            figure.add_scatter(
                x=[getattr(shift, when) for shift in shifts],
                y=names,
                mode="markers",
                marker={"size": 9, "color": colour, "symbol": symbol},
                name=f"{name}, {when}",
                text=[_said(one, after, when) for one in chosen],
                hovertemplate="%{y}<br>%{text}<extra></extra>",
            )
    return dressed(
        figure,
        "Probability of each object, before and after",
        x="probability (of several tokens: geometric mean)",
        height=200 + 26 * len(names),
        yaxis_autorange="reversed",
        xaxis_range=[-0.02, 1.02],
    )


def rates(edit: FactEdit) -> Any:
    """The rates with their intervals, by probability and by generation, and what they were before."""
    found = {kind: getattr(edit, "own_facts" if kind == "ownFacts" else kind) for kind in _KINDS}
    there = {kind: rate for kind, rate in found.items() if rate is not None}
    figure = go.Figure()
    for name, colour, values in (
        ("before, by generation", GREY, {kind: edit.before[kind].generation for kind in there if kind in edit.before}),
        ("by probability", BLUE, {kind: rate.probability for kind, rate in there.items()}),
        ("by generation", GREEN, {kind: rate.generation for kind, rate in there.items()}),
    ):
        estimates: list[Estimate] = list(values.values())
        figure.add_bar(
            x=[_KINDS[kind] for kind in values],
            y=[one.value for one in estimates],
            error_y=error_bars(estimates),
            name=name,
            marker_color=colour,
            text=[f"{one}, n {one.n}" for one in estimates],
            textposition="none",
            hovertemplate="%{x}: %{text}<extra></extra>",
        )
    return dressed(figure, "How many questions are answered right", y="share, with 95 % interval", yaxis_range=[0, 1.02])


def recovered(circuit: FactCircuit, kind: str) -> Any:
    """What putting back one state, or the writes of a window of layers, recovers of the object's probability, by layer and token."""
    values = np.asarray(getattr(circuit, kind))
    figure = go.Figure(
        go.Heatmap(
            z=values,
            x=labels(circuit.tokens),
            y=[str(layer) for layer in range(len(values))],
            zmid=0,
            zmin=-1,
            zmax=1,
            colorscale=TOWARDS,
            colorbar={"title": "recovered"},
            hovertemplate="layer %{y}, %{x}: %{z:.3f}<extra></extra>",
        )
    )
    what = {
        "stream": "the stream",
        "mlp": "the MLPs' writes around a layer",
        "attention": "the attentions' writes around a layer",
    }[kind]
    return dressed(
        figure,
        f"Recovered of P({visible(circuit.object.strip())}) by putting back {what}",
        x="at this token",
        y="layer",
        height=180 + 22 * len(values),
    )


def _said(answer: FactAnswer, wanted: bool, when: str) -> str:
    shift, object_ = (answer.wanted_probability, answer.wanted) if wanted else (answer.other_probability, answer.other)
    return f"P({visible(object_.strip())}) = {getattr(shift, when):.3f}; the model writes {visible(getattr(answer, when))}"
