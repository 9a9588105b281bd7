"""Panels: components other than plotly's figures. `assets/KIND.js` draws a panel's data, with `assets/panels.css`."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any


@dataclass(frozen=True)
class Panel:
    """A component. kind: the name of its script, which draws `data` (JSON-able) into the panel's element."""

    kind: str
    title: str
    data: Mapping[str, Any]


def asset(name: str) -> str:
    """The text of a file in `assets`."""
    return (resources.files("neuroscope.views") / "assets" / name).read_text(encoding="utf-8")


def markup(panel: Panel) -> str:
    """The panel's element with its data, escaped."""
    data = json.dumps(panel.data, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    return (
        f'<section class="panel {panel.kind}" data-panel="{panel.kind}"><h2>{html.escape(panel.title)}</h2>'
        f'<script type="application/json">{data}</script></section>'
    )


def scripts(panels: Iterable[Panel]) -> str:
    """The scripts that draw the panels of a page."""
    kinds = sorted({panel.kind for panel in panels})
    if not kinds:
        return ""
    drawing = """
for (const element of document.querySelectorAll("[data-panel]"))
  window.neuroscopePanels[element.dataset.panel](element, JSON.parse(element.querySelector("script").textContent));
"""
    return "\n".join(
        f"<script>{text}</script>"
        for text in ("window.neuroscopePanels = {};", *(asset(f"{kind}.js") for kind in kinds), drawing)
    )
