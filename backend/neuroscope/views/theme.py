"""Colours and layout for light and dark backgrounds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from neuroscope.tasks.statistics import Estimate

BLUE, ORANGE, GREEN, VIOLET, GREY = "#3f7fe8", "#e0803a", "#2fa37a", "#9067d8", "#8b95a7"
#: Background, outline and text of boxes.
PAPER, OUTLINE, INK = "#f3f5f9", "#5b6577", "#1b2230"
#: Colours of categories, in order.
PALETTE = (BLUE, ORANGE, GREEN, VIOLET, "#d05a7e", "#b59a2c", "#4aa8c0")
#: From transparent to the full colour.
AMOUNT = [[0.0, "rgba(63,127,232,0)"], [1.0, "rgba(63,127,232,1)"]]
#: Diverging: negative (orange) to positive (blue).
TOWARDS = [[0.0, "rgba(224,128,58,1)"], [0.5, "rgba(139,149,167,0.06)"], [1.0, "rgba(63,127,232,1)"]]


#: A legend below, for figures whose panels have titles above.
BELOW = {"orientation": "h", "yanchor": "top", "y": -0.2, "xanchor": "left", "x": 0}


def dressed(figure: Any, title: str, *, x: str = "", y: str = "", height: int = 440, **layout: Any) -> Any:
    """The figure with its title, axis titles and the common layout."""
    figure.update_layout(
        title={"text": title, "x": 0, "xanchor": "left", "xref": "paper", "font": {"size": 16}},
        template="plotly_white",
        height=height,
        margin={"l": 70, "r": 24, "t": 56, "b": 60},
        font={"family": "system-ui, sans-serif"},
        hoverlabel={"align": "left"},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.0, "xanchor": "right", "x": 1},
    )
    figure.update_xaxes(title=x, automargin=True)
    figure.update_yaxes(title=y, automargin=True)
    if any(trace.type == "heatmap" for trace in figure.data):
        figure.update_xaxes(showgrid=False, zeroline=False)
        figure.update_yaxes(showgrid=False, zeroline=False)
    figure.update_layout(**layout)
    return figure


def error_bars(values: Sequence[Estimate]) -> dict[str, Any]:
    """Intervals as plotly's error bars. The bar of an infinite bound is longer than every finite one."""
    ends = [end for value in values for end in (value.value, value.low, value.high) if math.isfinite(end)]
    past = 2 * (max(ends) - min(ends)) + 1 if ends else 1.0

    def length(bar: float) -> float:
        return max(bar, 0.0) if math.isfinite(bar) else past

    return {
        "type": "data",
        "symmetric": False,
        "array": [length(value.high - value.value) for value in values],
        "arrayminus": [length(value.value - value.low) for value in values],
        "thickness": 1,
    }


def labels(tokens: list[str]) -> list[str]:
    """Tokens as axis labels: numbered, so that they are unique, with visible line breaks."""
    return [f"{index} {visible(token)}" for index, token in enumerate(tokens)]


def visible(token: str) -> str:
    """A token's text with signs for line breaks and tabs, and without <, which plotly reads as a tag."""
    return token.replace("\n", "⏎").replace("\t", "⇥").replace("&", "&amp;").replace("<", "&lt;")
