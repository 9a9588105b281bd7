"""A page of entangled features: shared units of domains, their layers, and their contexts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from neuroscope.errors import ArgumentError
from neuroscope.features.entanglement import EntangledFeatures
from neuroscope.remedies import Remedy
from neuroscope.results import plain
from neuroscope.views import page
from neuroscope.views.page import figures
from neuroscope.views.panels import Panel
from neuroscope.views.theme import AMOUNT, PALETTE, dressed
from neuroscope.vocabulary import public

_MOST_CARDS = 200


@public
class EntanglementVisualizer:
    """Shows the result of a `FeatureEntanglementAnalyzer` as one HTML page that needs no network."""

    def __init__(self, features: EntangledFeatures) -> None:
        if not isinstance(features, EntangledFeatures):
            raise ArgumentError(
                f"An EntanglementVisualizer shows EntangledFeatures, not {features!r}.",
                remedy=Remedy(
                    "FeatureEntanglementAnalyzer(model).find_entanglement(['mathematics', 'programming'])",
                    smalltalk="(FeatureEntanglementAnalyzer for: model) findEntanglement: #(#mathematics #programming)",
                ),
            )
        self._features = features

    @property
    def features(self) -> EntangledFeatures:
        return self._features

    def open_browser(self) -> str:
        """Open the page in the browser, or report its path. Return the path."""
        return str(page.open_page(self._features))

    def save_page(self, path: str) -> str:
        """Write the page. Return its path."""
        return str(page.save_page(self._features, path))

    def print_string(self) -> str:
        return f"an EntanglementVisualizer for {self._features.print_string()}"

    def __repr__(self) -> str:
        return self.print_string()


@figures.register
def _(result: EntangledFeatures) -> Sequence[Any]:
    return [shared_matrix(result), *([where_they_lie(result)] if result.units else []), unit_cards(result)]


def shared_matrix(result: EntangledFeatures) -> Any:
    """Number of units that respond in both of two domains."""
    figure = go.Figure(
        go.Heatmap(
            z=result.matrix,
            x=result.domains,
            y=result.domains,
            text=result.matrix,
            texttemplate="%{text}",
            textfont={"size": 16},
            colorscale=AMOUNT,
            zmin=0,
            zmax=max(1, *map(max, result.matrix)),
            xgap=2,
            ygap=2,
            hovertemplate="%{z} units respond in %{x} and %{y}<extra></extra>",
            colorbar={"title": "units"},
        )
    )
    return dressed(
        figure,
        f"Units that respond in both ({result.candidates} judged; {result.shuffled} found in shuffled texts)",
        height=170 + 70 * len(result.domains),
        yaxis_autorange="reversed",
        width=330 + 130 * len(result.domains),
    )


def where_they_lie(result: EntangledFeatures) -> Any:
    """Every unit by layer and by its second-best AUROC."""
    figure = go.Figure()
    for number, combination in enumerate(_combinations(result)):
        for kind, symbol in (("neuron", "circle"), ("direction", "diamond-open")):
            mine = [unit for unit in result.units if unit.domains == combination and unit.kind == kind]
            if mine:
                figure.add_scatter(
                    x=[unit.layer for unit in mine],
                    y=[unit.strength for unit in mine],
                    mode="markers",
                    marker={"size": 9, "symbol": symbol, "color": PALETTE[number % len(PALETTE)], "opacity": 0.8},
                    name=f"{' + '.join(combination)} ({kind}s)",
                    text=[unit.site for unit in mine],
                    hovertemplate="%{text}: AUROC %{y:.2f}<extra></extra>",
                )
    return dressed(
        figure,
        "Units by layer",
        x="layer",
        y="AUROC of the second-best domain",
        legend={"orientation": "v", "x": 1.02, "xanchor": "left", "y": 1, "yanchor": "top"},
    )


def unit_cards(result: EntangledFeatures) -> Panel:
    """The strongest units with their contexts."""
    shown = result.units[:_MOST_CARDS]
    units = []
    for unit in shown:
        contexts = [{**context.as_dictionary(), "peak": context.peak} for context in unit.top_contexts]
        units.append({**unit.as_dictionary(), "topContexts": contexts})
    left_out = f" (the {len(shown)} strongest of {len(result.units)})" if len(shown) < len(result.units) else ""
    return Panel("units", f"Units and their contexts{left_out}", plain({"units": units, "combinations": _combinations(result)}))


def _combinations(result: EntangledFeatures) -> list[list[str]]:
    found = {tuple(unit.domains) for unit in result.units}
    return [list(combination) for combination in sorted(found, key=lambda names: (len(names), names))]
