"""Figures of the lenses: the logit lens as a table of tokens, attributions as bars and a map of heads, attention as a panel."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from neuroscope.lenses.attention import AttentionPatterns
from neuroscope.lenses.attribution import LogitAttribution
from neuroscope.lenses.logit_lens import LogitLens
from neuroscope.views.page import figures
from neuroscope.views.panels import Panel
from neuroscope.views.theme import AMOUNT, BLUE, GREY, ORANGE, TOWARDS, VIOLET, dressed, error_bars, labels, visible

_BARS = 24


@figures.register
def _(result: LogitLens) -> Sequence[Any]:
    return [lens_table(result), divergence(result)]


@figures.register
def _(result: LogitAttribution) -> Sequence[Any]:
    if not result.exists:
        return []
    return [
        contribution_bars(result),
        head_map(result.heads, "Direct contribution of each head to the answer", "logits"),
        by_layer(result),
    ]


@figures.register
def _(result: AttentionPatterns) -> Sequence[Any]:
    return [attention_panel(result)]


def lens_table(lens: LogitLens) -> Any:
    """Every layer's most likely next token for every token; colour is probability."""
    figure = go.Figure(
        go.Heatmap(
            z=lens.probability,
            x=labels(lens.tokens),
            y=lens.layers,
            text=[[visible(token) for token in row] for row in lens.top],
            texttemplate="%{text}",
            textfont={"size": 11},
            customdata=np.stack([lens.final_probability, lens.kl], axis=-1),
            hovertemplate="after %{y}, at %{x}<br>would predict %{text} (p = %{z:.3f})<br>p of the final prediction "
            "%{customdata[0]:.3f}<br>KL to it %{customdata[1]:.3f} nats<extra></extra>",
            zmin=0,
            zmax=1,
            colorscale=AMOUNT,
            xgap=1,
            ygap=1,
            colorbar={"title": "probability"},
        )
    )
    return dressed(
        figure,
        "What each layer would predict next",
        x="after this token",
        y="read after layer",
        height=150 + 26 * len(lens.layers),
        width=max(900, 78 * len(lens.tokens)) if len(lens.tokens) > 14 else None,
        xaxis_tickangle=-40,
    )


def divergence(lens: LogitLens) -> Any:
    """Divergence of each layer's prediction from the final one, at the last token and on average."""
    kl = np.array(lens.kl)
    figure = go.Figure()
    figure.add_scatter(x=lens.layers, y=kl[:, -1], name=f"at the last token, {visible(lens.tokens[-1])!r}", line_color=ORANGE)
    figure.add_scatter(x=lens.layers, y=kl.mean(1), name="mean over tokens", line_color=BLUE)
    return dressed(figure, "Distance to the final prediction", x="read after layer", y="KL divergence (nats)", height=340)


def contribution_bars(result: LogitAttribution) -> Any:
    """The largest terms of the lead with their intervals."""
    parts = result.components[:_BARS][::-1]
    values = [part.value.value for part in parts]
    figure = go.Figure(
        go.Bar(
            x=values,
            y=[part.site for part in parts],
            orientation="h",
            marker_color=[BLUE if value > 0 else ORANGE for value in values],
            error_x={**error_bars([part.value for part in parts]), "color": GREY},
            hovertemplate="%{y}: %{x:+.3f} logits<extra></extra>",
        )
    )
    return dressed(
        figure,
        f"Contributions to the lead of {result.lead.value:.2f} logits (largest {len(parts)})",
        x="logits towards the answer",
        height=130 + 22 * len(parts),
    )


def head_map(heads: list[list[float]], title: str, unit: str) -> Any:
    """A value for every head, layers upwards; blue is towards the answer."""
    values = np.array(heads)
    most = float(np.abs(values).max()) or 1.0
    figure = go.Figure(
        go.Heatmap(
            z=values,
            zmin=-most,
            zmax=most,
            colorscale=TOWARDS,
            xgap=1,
            ygap=1,
            colorbar={"title": unit},
            hovertemplate="layer %{y}, head %{x}: %{z:+.3f}<extra></extra>",
        )
    )
    return dressed(
        figure,
        title,
        x="head",
        y="layer",
        height=150 + 20 * len(values),
        xaxis_dtick=1,
        yaxis_dtick=1 if len(values) < 20 else 5,
    )


def by_layer(result: LogitAttribution) -> Any:
    """Contributions of each layer's heads and MLP, and their running sum."""
    heads, mlps, biases = np.array(result.heads).sum(1), np.array(result.mlps), np.array(result.attention_biases)
    layers = list(range(len(mlps)))
    figure = go.Figure()
    figure.add_bar(x=layers, y=heads + biases, name="attention", marker_color=BLUE)
    figure.add_bar(x=layers, y=mlps, name="MLP", marker_color=ORANGE)
    total = result.embedding + result.constant + np.cumsum(heads + biases + mlps)
    figure.add_scatter(x=layers, y=total, name="written so far", line_color=VIOLET)
    return dressed(figure, "Layer by layer", x="layer", y="logits towards the answer", height=360, barmode="relative")


def attention_panel(result: AttentionPatterns) -> Panel:
    """Interactive patterns; weights are stored as bytes, in steps of 1/255."""
    weights = np.round(np.clip(result.patterns, 0, 1) * 255).astype(np.uint8)
    measures = list(result.heads[0].scores)
    most = max((head.entropy for head in result.heads), default=1.0) or 1.0
    return Panel(
        "attention",
        "Attention of every head",
        {
            "tokens": result.tokens,
            "headCount": int(weights.shape[1]),
            "patterns": base64.b64encode(weights.tobytes()).decode("ascii"),
            "measures": [*measures, "sharpness"],
            "heads": [
                {
                    "layer": head.layer,
                    "head": head.head,
                    "roles": head.roles,
                    "scores": {**head.scores, "sharpness": 1 - head.entropy / most},
                }
                for head in result.heads
            ],
        },
    )
