"""Figures of the analyses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from neuroscope.analyses.answers import AnswerTrace
from neuroscope.analyses.stream import StreamAnalysis
from neuroscope.analyses.writing import WritingAnalysis
from neuroscope.circuits.patching import ResidualMap
from neuroscope.views.lenses import contribution_bars, head_map, lens_table
from neuroscope.views.page import figures
from neuroscope.views.theme import (
    AMOUNT,
    BELOW,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    TOWARDS,
    VIOLET,
    dressed,
    error_bars,
    labels,
    visible,
)


@figures.register
def _(result: AnswerTrace) -> Sequence[Any]:
    if result.residual_map is None or result.attribution is None:
        return [leads(result)]
    return [
        stream_map(result.residual_map),
        answer_by_layer(result),
        head_map(result.heads, "Recovery by denoising one head", "recovered"),
        mlp_bars(result),
        *([movers(result)] if any(part.to_changed is not None for part in result.components) else []),
        contribution_bars(result.attribution),
    ]


@figures.register
def _(result: StreamAnalysis) -> Sequence[Any]:
    return [growth(result), writes(result), gathering(result), norms(result), lens_table(result.lens)]


@figures.register
def _(result: WritingAnalysis) -> Sequence[Any]:
    return [
        choices(result),
        when_decided(result),
        variety(result),
        head_map(result.heads, "Direct contribution of each head to the chosen tokens", "logits"),
        looks(result),
    ]


def leads(result: AnswerTrace) -> Any:
    """The lead on clean and on corrupt prompts, if they do not differ."""
    values = [result.clean_lead, result.corrupt_lead]
    figure = go.Figure(
        go.Bar(
            x=["clean prompts", "corrupt prompts"],
            y=[value.value for value in values],
            error_y=error_bars(values),
            marker_color=[BLUE, GREY],
        )
    )
    return dressed(figure, "No effect: the answer's lead", y="logits", height=340)


def stream_map(found: ResidualMap) -> Any:
    """Recovery by denoising the residual stream, layer × token."""
    figure = go.Figure(
        go.Heatmap(
            z=found.values,
            x=labels(found.tokens),
            zmin=-1,
            zmax=1,
            colorscale=TOWARDS,
            xgap=1,
            ygap=1,
            colorbar={"title": "recovered"},
            hovertemplate="after layer %{y}, at %{x}: %{z:.2f} of the lead<extra></extra>",
        )
    )
    return dressed(
        figure,
        f"Recovery by denoising the residual stream ({found.n} pairs)",
        x="token (of the first pair)",
        y="after layer",
        height=170 + 18 * len(found.values),
        xaxis_tickangle=-40,
    )


def answer_by_layer(result: AnswerTrace) -> Any:
    """Probability and rank of the answer after each layer."""
    figure = make_subplots(specs=[[{"secondary_y": True}]])
    figure.add_scatter(x=result.layers, y=result.answer_probability, name="probability of the answer", line_color=BLUE)
    ranks = [rank + 1 for rank in result.answer_rank]
    figure.add_scatter(
        x=result.layers, y=ranks, name="mean rank (1: most likely)", line={"color": ORANGE, "dash": "dot"}, secondary_y=True
    )
    dressed(figure, "The answer after each layer", y="probability", height=360)
    figure.update_yaxes(range=[0, 1.03], secondary_y=False)
    figure.update_yaxes(
        title="rank",
        type="log",
        autorange="reversed",
        tickvals=[1, 10, 100, 1000, 10000, 100000],
        showgrid=False,
        secondary_y=True,
    )
    return figure


def mlp_bars(result: AnswerTrace) -> Any:
    """Recovery by denoising each layer's MLP."""
    colours = [BLUE if value > 0 else ORANGE for value in result.mlps]
    figure = go.Figure(go.Bar(x=list(range(len(result.mlps))), y=result.mlps, marker_color=colours))
    return dressed(figure, "Recovery by denoising one MLP", x="layer", y="share of the lead", height=320)


def movers(result: AnswerTrace) -> Any:
    """Attention of the strongest heads to the changed tokens and to others."""
    heads = [part for part in result.components if part.to_changed is not None]
    figure = go.Figure()
    for name, values, colour in (
        ("to the changed tokens", [part.to_changed for part in heads], BLUE),
        ("to an average other token", [part.elsewhere for part in heads], GREY),
    ):
        figure.add_bar(x=[part.site for part in heads], y=values, name=name, marker_color=colour)
    return dressed(figure, "Attention of the strongest heads from the last token", y="attention", height=360, barmode="group")


def growth(result: StreamAnalysis) -> Any:
    """The stream's norm and its distance to the final prediction."""
    layers = ["embedding", *map(str, range(len(result.turning)))]
    figure = make_subplots(specs=[[{"secondary_y": True}]])
    figure.add_scatter(x=layers, y=np.array(result.norms)[:, 1:].mean(1), name="norm of the stream", line_color=BLUE)
    figure.add_scatter(x=layers, y=result.kl, name="KL to the final prediction", line_color=ORANGE, secondary_y=True)
    dressed(figure, "Norm of the stream, and distance to the final prediction", x="after layer", y="norm", height=360)
    figure.update_yaxes(rangemode="tozero")
    figure.update_yaxes(title="nats", showgrid=False, secondary_y=True)
    return figure


def writes(result: StreamAnalysis) -> Any:
    """Size of attention's and the MLPs' writes relative to the stream, and their cosine with it."""
    layers = list(range(len(result.turning)))
    figure = make_subplots(
        rows=1, cols=2, subplot_titles=("size relative to the stream", "cosine with the stream"), horizontal_spacing=0.1
    )
    for name, colour, size, cosine in (
        ("attention", BLUE, result.attention_size, result.attention_cosine),
        ("MLP", ORANGE, result.mlp_size, result.mlp_cosine),
    ):
        figure.add_bar(x=layers, y=size, name=name, marker_color=colour, legendgroup=name, row=1, col=1)
        figure.add_scatter(x=layers, y=cosine, name=name, line_color=colour, legendgroup=name, showlegend=False, row=1, col=2)
    figure.add_hline(y=0, line_color=GREY, line_dash="dot", row=1, col=2)
    return dressed(figure, "What each layer writes", x="layer", height=380, barmode="group", legend=BELOW)


def gathering(result: StreamAnalysis) -> Any:
    """Dimension of the tokens, and rotation of the stream by each layer."""
    figure = make_subplots(specs=[[{"secondary_y": True}]])
    layers = ["embedding", *map(str, range(len(result.turning)))]
    figure.add_scatter(x=layers, y=result.dimensions, name="dimensions (participation ratio)", line_color=VIOLET)
    figure.add_bar(
        x=layers[1:], y=result.turning, name="turned (1 − cosine)", marker_color=GREEN, opacity=0.55, secondary_y=True
    )
    dressed(figure, "Dimension of the tokens, and rotation by each layer", x="after layer", y="dimensions", height=360)
    figure.update_yaxes(rangemode="tozero")
    figure.update_yaxes(title="1 − cosine", showgrid=False, secondary_y=True)
    return figure


def norms(result: StreamAnalysis) -> Any:
    """The stream's norm at every token, on a logarithmic scale: the first token stands out."""
    values = np.log10(np.maximum(np.array(result.norms), 1e-6))
    figure = go.Figure(
        go.Heatmap(
            z=values,
            x=labels(result.tokens),
            y=["embedding", *map(str, range(len(result.turning)))],
            customdata=np.array(result.norms),
            colorscale=AMOUNT,
            xgap=1,
            ygap=1,
            colorbar={"title": "log₁₀ norm"},
            hovertemplate="after %{y}, at %{x}: norm %{customdata:.1f}<extra></extra>",
        )
    )
    return dressed(
        figure, "Norm at every token", x="token", y="after layer", height=170 + 18 * len(values), xaxis_tickangle=-40
    )


def choices(result: WritingAnalysis) -> Any:
    """Entropy of each choice and surprise of the chosen token."""
    names = labels(result.tokens)
    figure = go.Figure()
    figure.add_bar(x=names, y=result.entropy, name="entropy of the choice", marker_color=BLUE, opacity=0.6)
    figure.add_scatter(
        x=names,
        y=result.surprise,
        name="surprise of the chosen token",
        mode="lines+markers",
        line_color=ORANGE,
        text=[visible(token) for token in result.alternatives],
        hovertemplate="%{x}: %{y:.2f} nats; the best other was %{text}<extra></extra>",
    )
    return dressed(figure, f"Entropy of each choice, after “{visible(result.prompt)}”", y="nats", xaxis_tickangle=-50)


def when_decided(result: WritingAnalysis) -> Any:
    """The layer from which on each chosen token leads."""
    drawn = len(result.layers)
    figure = go.Figure(
        go.Bar(
            x=labels(result.tokens),
            y=result.decided,
            marker_color=[GREY if row == drawn else GREEN for row in result.decided],
            hovertemplate="%{x}: row %{y}<extra></extra>",
        )
    )
    return dressed(
        figure,
        "First layer from which on each chosen token leads (grey: never)",
        y="layer",
        height=360,
        xaxis_tickangle=-50,
        yaxis={
            "tickvals": [0, *range(1, drawn, max(1, drawn // 8)), drawn],
            "ticktext": ["embedding", *(str(row - 1) for row in range(1, drawn, max(1, drawn // 8))), "never"],
        },
    )


def variety(result: WritingAnalysis) -> Any:
    """Variety and surprise by temperature, and those of the shuffled tokens."""
    temperatures = [str(sample.temperature) for sample in result.samples]
    figure = make_subplots(rows=1, cols=2, subplot_titles=("variety", "surprise (nats per token)"), horizontal_spacing=0.1)
    for name, values, colour in (
        ("distinct-1", [sample.distinct_1 for sample in result.samples], BLUE),
        ("distinct-2", [sample.distinct_2 for sample in result.samples], VIOLET),
        ("repeated", [sample.repeated for sample in result.samples], GREY),
    ):
        figure.add_scatter(x=temperatures, y=values, name=name, line_color=colour, row=1, col=1)
    for name, estimates, colour in (
        ("as written", [sample.surprise for sample in result.samples], ORANGE),
        ("the same tokens shuffled", [sample.shuffled_surprise for sample in result.samples], GREY),
    ):
        figure.add_bar(
            x=temperatures,
            y=[estimate.value for estimate in estimates],
            error_y=error_bars(estimates),
            name=name,
            marker_color=colour,
            row=1,
            col=2,
        )
    return dressed(figure, "By temperature", x="temperature", height=380, barmode="group", legend=BELOW)


def looks(result: WritingAnalysis) -> Any:
    """Each layer's attention to the prompt, the continuation and the first token."""
    figure = go.Figure()
    layers = list(range(len(result.mlps)))
    for name, values, colour in (
        ("to the prompt", result.looks_at_prompt, BLUE),
        ("to its own tokens", result.looks_at_own, GREEN),
        ("to the first token", result.looks_at_first, GREY),
    ):
        figure.add_bar(x=layers, y=values, name=name, marker_color=colour)
    return dressed(figure, "Attention of the new tokens", x="layer", y="share of attention", height=360, barmode="stack")
