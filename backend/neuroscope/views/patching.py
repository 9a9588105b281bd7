"""Figures of patching maps: layer or head × token, layer × head, or the strongest sites with their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from neuroscope.circuits.maps import PatchedSite, PatchingMap
from neuroscope.engines.sites import Component
from neuroscope.views.page import figures
from neuroscope.views.theme import BLUE, GREY, ORANGE, TOWARDS, dressed, error_bars, labels, visible

_BARS = 30
_TALL = 640
#: The least share at the end of the colours: smaller maps are pale, since nothing in them matters.
_PALE = 0.1


@figures.register
def _(result: PatchingMap) -> Sequence[Any]:
    components = list(dict.fromkeys(one.site.component for one in result))
    grids = [grid for component in components if (grid := map_of(result, component)) is not None]
    bars = strongest_bars(result)
    # What matters in a tall map may be far down.
    return [bars, *grids] if any(grid.layout.height > _TALL for grid in grids) else [*grids, bars]


def map_of(result: PatchingMap, component: Component) -> Any:
    """The sites of one component as a map: rows are layers, or heads where tokens are the columns; None if they make no grid."""
    sites = [one for one in result if one.site.component is component]
    by_place: dict[tuple[Any, Any], PatchedSite] = {}
    tokens = len({one.site.position for one in sites}) > 1
    for one in sites:
        site = one.site
        unit = site.head if site.head is not None else site.neuron
        row = (site.layer, unit) if tokens else (site.layer, None)
        by_place[row, site.position if tokens else unit] = one
    rows = sorted({row for row, _ in by_place}, key=str_key)
    columns = sorted({column for _, column in by_place}, key=lambda value: -1 if value is None else value)
    if len(columns) < 2 or len(by_place) < len(rows) + 1:
        return None
    values = [[by_place[row, column].value if (row, column) in by_place else None for column in columns] for row in rows]
    most = max(_PALE, float(np.nanmax(np.abs(np.array(values, dtype=float)))))
    names = ["" if layer is None else str(layer) if unit is None else f"{layer}.{unit}" for layer, unit in rows]
    text = labels(result.tokens) if tokens else None
    figure = go.Figure(
        go.Heatmap(
            z=values,
            x=[text[column] if text is not None and column is not None else column for column in columns],
            y=names,
            zmin=-most,
            zmax=most,
            colorscale=TOWARDS,
            xgap=1,
            ygap=1 if len(rows) < 60 else 0,
            colorbar={"title": _share(result)},
            hovertemplate="%{y}, %{x}: %{z:.3f}<extra></extra>",
        )
    )
    pairs = f"{result.n} pair{'s' if result.n != 1 else ''}"
    return dressed(
        figure,
        f"{result.direction.capitalize()} {component.value} ({result.method}, {pairs})",
        x="token of the first pair" if tokens else "head" if sites[0].site.head is not None else "unit",
        y="layer" if all(unit is None for _, unit in rows) else "layer.head",
        height=180 + len(rows) * (24 if len(rows) < 30 else 9),
        xaxis_tickangle=-40 if tokens else 0,
        yaxis_type="category",
    )


def strongest_bars(result: PatchingMap) -> Any:
    """The sites with the largest shares, with their intervals where there are any."""
    shown = result.strongest(_BARS)[::-1]
    values = [one.share for one in shown]
    names = [str(one.site) if one.token is None else f"{one.site} {visible(one.token)}" for one in shown]
    figure = go.Figure(
        go.Bar(
            x=[value.value for value in values],
            y=names,
            orientation="h",
            marker_color=[BLUE if value.value > 0 else ORANGE for value in values],
            error_x={**error_bars(values), "color": GREY} if result.n > 1 else None,
            hovertemplate="%{y}: %{x:.3f}<extra></extra>",
        )
    )
    return dressed(figure, f"The strongest {len(shown)} of {len(result)} sites", x=_share(result), height=130 + 22 * len(shown))


def str_key(row: tuple[Any, Any]) -> tuple[int, int]:
    """Order of rows: by layer, then by head; the embedding first."""
    return tuple(-1 if value is None else value for value in row)  # type: ignore[return-value]


def _share(result: PatchingMap) -> str:
    return "recovered" if result.direction == "denoising" else "lost"
