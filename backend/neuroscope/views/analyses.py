"""Figures of the analyses: how answers arise, how the stream grows, how a text is written."""

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
        head_map(result.heads, "What denoising one head recovers", "recovered"),
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
        head_map(result.heads, "What each head writes towards the chosen tokens", "logits"),
        looks(result),
    ]


def leads(result: AnswerTrace) -> Any:
    """The lead on clean and on corrupt prompts, where they cannot be told apart and so nothing was traced."""
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
    """What putting the clean stream into the corrupt run recovers, layer by token."""
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
        f"Where the answer's cause lies: the clean stream put into the corrupt run ({found.n} pairs)",
        x="token (of the first pair)",
        y="after layer",
        height=170 + 18 * len(found.values),
        xaxis_tickangle=-40,
    )


def answer_by_layer(result: AnswerTrace) -> Any:
    """Probability and rank of the answer as the stream holds it."""
    figure = make_subplots(specs=[[{"secondary_y": True}]])
    figure.add_scatter(x=result.layers, y=result.answer_probability, name="probability of the answer", line_color=BLUE)
    ranks = [rank + 1 for rank in result.answer_rank]
    figure.add_scatter(
        x=result.layers, y=ranks, name="mean rank (1: likeliest)", line={"color": ORANGE, "dash": "dot"}, secondary_y=True
    )
    dressed(figure, "The answer as each layer holds it", y="probability", height=360)
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
    """What denoising each layer's MLP recovers."""
    colours = [BLUE if value > 0 else ORANGE for value in result.mlps]
    figure = go.Figure(go.Bar(x=list(range(len(result.mlps))), y=result.mlps, marker_color=colours))
    return dressed(figure, "What denoising one MLP recovers", x="layer", y="share of the lead", height=320)


def movers(result: AnswerTrace) -> Any:
    """The strongest heads: do they look at what was changed?"""
    heads = [part for part in result.components if part.to_changed is not None]
    figure = go.Figure()
    for name, values, colour in (
        ("to the changed tokens", [part.to_changed for part in heads], BLUE),
        ("to an average other token", [part.elsewhere for part in heads], GREY),
    ):
        figure.add_bar(x=[part.site for part in heads], y=values, name=name, marker_color=colour)
    return dressed(figure, "Where the strongest heads look from the last token", y="attention", height=360, barmode="group")


def growth(result: StreamAnalysis) -> Any:
    """The stream's norm and its distance to the final prediction."""
    layers = ["embedding", *map(str, range(len(result.turning)))]
    figure = make_subplots(specs=[[{"secondary_y": True}]])
    figure.add_scatter(x=layers, y=np.array(result.norms)[:, 1:].mean(1), name="norm of the stream", line_color=BLUE)
    figure.add_scatter(x=layers, y=result.kl, name="KL to the final prediction", line_color=ORANGE, secondary_y=True)
    dressed(figure, "The stream grows, and the prediction settles", x="after layer", y="norm", height=360)
    figure.update_yaxes(rangemode="tozero")
    figure.update_yaxes(title="nats", showgrid=False, secondary_y=True)
    return figure


def writes(result: StreamAnalysis) -> Any:
    """How large what attention and MLPs write is beside the stream, and whether it goes along with it."""
    layers = list(range(len(result.turning)))
    figure = make_subplots(
        rows=1, cols=2, subplot_titles=("size beside the stream", "cosine with the stream"), horizontal_spacing=0.1
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
    """How many dimensions the tokens spread over, and how much each layer turns the stream."""
    figure = make_subplots(specs=[[{"secondary_y": True}]])
    layers = ["embedding", *map(str, range(len(result.turning)))]
    figure.add_scatter(x=layers, y=result.dimensions, name="dimensions (participation ratio)", line_color=VIOLET)
    figure.add_bar(
        x=layers[1:], y=result.turning, name="turned (1 − cosine)", marker_color=GREEN, opacity=0.55, secondary_y=True
    )
    dressed(figure, "How the tokens spread, and how much a layer turns them", x="after layer", y="dimensions", height=360)
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
    """At each written token, how open the choice was and how surprising what was chosen."""
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
    return dressed(figure, f"How free each choice was, after “{visible(result.prompt)}”", y="nats", xaxis_tickangle=-50)


def when_decided(result: WritingAnalysis) -> Any:
    """The layer from which on the written token leads."""
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
        "From which layer on each written token leads (grey: never, it was drawn)",
        y="layer",
        height=360,
        xaxis_tickangle=-50,
        yaxis={
            "tickvals": [0, *range(1, drawn, max(1, drawn // 8)), drawn],
            "ticktext": ["embedding", *(str(row - 1) for row in range(1, drawn, max(1, drawn // 8))), "never"],
        },
    )


def variety(result: WritingAnalysis) -> Any:
    """Variety and surprise by temperature, beside the same words shuffled."""
    temperatures = [str(sample.temperature) for sample in result.samples]
    figure = make_subplots(rows=1, cols=2, subplot_titles=("variety", "surprise (nats a token)"), horizontal_spacing=0.1)
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
    """How far each layer looks back while it writes."""
    figure = go.Figure()
    layers = list(range(len(result.mlps)))
    for name, values, colour in (
        ("at the prompt", result.looks_at_prompt, BLUE),
        ("at its own words", result.looks_at_own, GREEN),
        ("at the first token", result.looks_at_first, GREY),
    ):
        figure.add_bar(x=layers, y=values, name=name, marker_color=colour)
    return dressed(figure, "Where the written tokens look", x="layer", y="share of attention", height=360, barmode="stack")
