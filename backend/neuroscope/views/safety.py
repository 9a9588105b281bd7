"""Figures of circuits of harm and of redirects: how detectors tell requests apart, and what is refused beside the controls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from neuroscope.safety.circuits import HarmfulCircuits
from neuroscope.safety.detection import Detection
from neuroscope.safety.judging import SafetyReport
from neuroscope.safety.probe import TokenScores
from neuroscope.views.page import figures
from neuroscope.views.theme import BLUE, GREY, ORANGE, PALETTE, dressed, error_bars, labels

_WHO = {"alone": GREY, "redirected": BLUE, "random": ORANGE}


@figures.register
def _(result: Detection) -> Sequence[Any]:
    return [roc({"detector": result})]


@figures.register
def _(result: HarmfulCircuits) -> Sequence[Any]:
    found = {}
    for one in result:
        for name, judged in (("", one.detector), (" against traps", one.on_traps)):
            if judged is not None:
                found[one.category + name] = judged
    return [roc(found)] if found else []


@figures.register
def _(result: SafetyReport) -> Sequence[Any]:
    return [refusals(result), texts(result)]


@figures.register
def _(result: TokenScores) -> Sequence[Any]:
    figure = go.Figure()
    colours = [BLUE if read else GREY for read in result.read]
    figure.add_bar(x=labels(result.tokens), y=result.scores, marker_color=colours, showlegend=False)
    if result.threshold is not None:
        figure.add_hline(y=result.threshold, line={"dash": "dot", "color": ORANGE}, annotation_text="threshold")
    return [dressed(figure, f"{result.probe} along the text; read where blue", y="score")]


def roc(found: dict[str, Detection]) -> Any:
    """True against false positives at every threshold; the legend gives each AUROC with its interval."""
    figure = go.Figure()
    for number, (name, one) in enumerate(found.items()):
        limits = np.unique([*one.positive, *one.negative, np.inf])[::-1]
        rates = [[float((np.asarray(side) >= limit).mean()) for limit in limits] for side in (one.negative, one.positive)]
        figure.add_scatter(
            x=rates[0],
            y=rates[1],
            mode="lines",
            line={"shape": "hv", "color": PALETTE[number % len(PALETTE)]},
            name=f"{name}: {one.auroc}",
        )
    figure.add_scatter(x=[0, 1], y=[0, 1], mode="lines", line={"dash": "dot", "color": GREY}, name="chance")
    return dressed(figure, "Detectors on what did not train them", x="harmless requests flagged", y="harmful requests detected")


def refusals(result: SafetyReport) -> Any:
    """Refused requests by kind, of the model alone, redirected, and redirected at random."""
    kinds = {**result.harmful, "harmless": result.harmless, "traps": result.traps}
    figure = go.Figure()
    for who, colour in _WHO.items():
        rates = [one[who].refusals for one in kinds.values()]
        figure.add_bar(
            x=list(kinds), y=[rate.value for rate in rates], error_y=error_bars(rates), marker_color=colour, name=who
        )
    return dressed(figure, "Refusals", y="refused, with 95 % interval", barmode="group", yaxis_range=[0, 1.05])


def texts(result: SafetyReport) -> Any:
    """Replies to some harmful requests, alone and redirected."""
    columns = ("prompt", "begun", "alone", "redirected")
    cells = [[one[name] for one in result.examples] for name in columns]
    figure = go.Figure(go.Table(header={"values": list(columns)}, cells={"values": cells, "align": "left"}))
    return dressed(figure, "Replies, before and after", height=60 + 34 * len(result.examples))
