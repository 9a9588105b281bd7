"""What a page shows, read out of its HTML: the figures that plotly is given, and the data of panels."""

from __future__ import annotations

import base64
import html
import json
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from neuroscope.results import Result
from neuroscope.views import page as pages

_FIGURE = re.compile(r'Plotly\.newPlot\(\s*"[0-9a-f-]+",\s*')
_PANEL = re.compile(
    r'<section class="panel [^"]*" data-panel="([^"]*)"><h2>.*?</h2><script type="application/json">(.*?)</script>'
)


@dataclass(frozen=True)
class Figure:
    """A figure's traces and layout, arrays as lists."""

    traces: list[dict[str, Any]]
    layout: dict[str, Any]

    @property
    def title(self) -> str:
        return str(self.layout["title"]["text"])

    def trace(self, name: str | None = None, kind: str | None = None) -> dict[str, Any]:
        """The first trace of that name and kind."""
        return next(
            each for each in self.traces if name in (None, each.get("name")) and kind in (None, each.get("type", "scatter"))
        )


@dataclass(frozen=True)
class Shown:
    """What a page shows."""

    heading: str
    summary: str
    figures: list[Figure]
    panels: dict[str, Any]

    def figure(self, beginning: str) -> Figure:
        """The figure whose title begins so."""
        return next(each for each in self.figures if each.title.startswith(beginning))


def shown(result: Result) -> Shown:
    """A result's page, read again."""
    text = pages.page(result)
    decoder = json.JSONDecoder()
    figures = []
    for match in _FIGURE.finditer(text):
        traces, end = decoder.raw_decode(text, match.end())
        start = re.compile(r",\s*").match(text, end)
        assert start is not None
        layout, _ = decoder.raw_decode(text, start.end())
        figures.append(Figure(_plain(traces), _plain(layout)))
    heading = re.search(r"<h1>(.*?)</h1>", text, re.DOTALL)
    summary = re.search(r"<pre>(.*?)</pre>", text, re.DOTALL)
    assert heading is not None
    assert summary is not None
    panels = {kind: json.loads(data) for kind, data in _PANEL.findall(text)}
    return Shown(html.unescape(heading[1]), html.unescape(summary[1]), figures, panels)


def _plain(value: Any) -> Any:
    """Plotly's data with its binary arrays as nested lists."""
    if isinstance(value, dict):
        if "bdata" in value:
            found = np.frombuffer(base64.b64decode(value["bdata"]), dtype=value["dtype"])
            shape = value.get("shape")
            return found.reshape([int(size) for size in str(shape).split(",")]).tolist() if shape else found.tolist()
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value
