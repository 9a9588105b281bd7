"""Pages: a result as one self-contained HTML file that needs no network."""

from __future__ import annotations

import html
import importlib
import os
import sys
import tempfile
import webbrowser
from collections.abc import Sequence
from functools import singledispatch
from pathlib import Path
from typing import Any

from neuroscope import events, places
from neuroscope.errors import ArgumentError
from neuroscope.files import save
from neuroscope.results import Result
from neuroscope.views.panels import Panel, asset, markup, scripts

#: Modules that register figures for their results, imported on first use.
_DRAWERS = tuple(
    f"neuroscope.views.{room}"
    for room in (
        "activations",
        "analyses",
        "circuits",
        "editing",
        "entanglement",
        "facts",
        "features",
        "lenses",
        "safety",
        "transfer",
        "tuning",
        "validation",
    )
)

_THEME = "theme.js"


@singledispatch
def figures(result: object) -> Sequence[Any]:
    """The plotly figures and panels of a result. Raises `ArgumentError` for a type without any."""
    raise ArgumentError(f"{type(result).__name__} has no figure.")


def has_figures(result: object) -> bool:
    """Whether `page` can draw this object."""
    _load_drawers()
    return figures.dispatch(type(result)) is not figures.dispatch(object)


def page(result: Any, note: str | None = None) -> str:
    """The page as HTML, including scripts, with an optional note above the figures."""
    _load_drawers()
    drawn = figures(result)
    panels = [item for item in drawn if isinstance(item, Panel)]
    plots = [item for item in drawn if not isinstance(item, Panel)]
    body = "\n".join(markup(item) if isinstance(item, Panel) else _plot(item, first=item is plots[0]) for item in drawn)
    title = html.escape(result.print_string())
    told = "" if note is None else f'<p role="alert"><strong>{html.escape(note)}</strong></p>\n'
    summary = result.summary() if isinstance(result, Result) else ""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{title}</title>\n'
        f"<style>{asset('page.css')}{asset('panels.css') if panels else ''}</style></head>\n"
        f"<body>\n<h1>{title}</h1>\n{told}<pre>{html.escape(summary)}</pre>\n{body}\n<footer>NeuroScope</footer>\n"
        f"{scripts(panels)}{f'<script>{asset(_THEME)}</script>' if plots else ''}</body></html>\n"
    )


def _plot(figure: Any, *, first: bool) -> str:
    import plotly.io

    config = {"displaylogo": False, "responsive": True}
    return f"<figure>{plotly.io.to_html(figure, full_html=False, include_plotlyjs=first, config=config)}</figure>"


def save_page(result: Any, path: str | Path, *, note: str | None = None) -> Path:
    """Write the page to a file that ends in `.html`, creating the folder if needed. Return its path. Raises `FileError`."""
    target = Path(path)
    target = places.to_write(target if target.suffix in (".html", ".htm") else target.with_name(target.name + ".html"), "page")
    return save(target, page(result, note), "The page")


def open_page(result: Result) -> Path:
    """Write the page to a temporary file and open it, or report its path if there is no browser."""
    places.check_display()
    folder = Path(tempfile.mkdtemp(prefix="neuroscope-"))
    target = save_page(result, folder / f"{type(result).__name__}.html")
    if not (_has_display() and webbrowser.open(target.as_uri())):
        events.notice(f"No browser here; the page is {target}")
    return target


def embedded(result: Result) -> str:
    """A result for a notebook: its page in a frame, or its summary if it has no figure."""
    if not has_figures(result):
        return f"<pre>{html.escape(result.summary())}</pre>"
    return f'<iframe srcdoc="{html.escape(page(result))}" style="width:100%;height:680px;border:0" title="{html.escape(result.print_string())}"></iframe>'


def _has_display() -> bool:
    """Whether a browser can show a window; a text browser would take over the terminal."""
    if sys.platform in ("darwin", "win32"):
        return True
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"))


def _load_drawers() -> None:
    for module in _DRAWERS:
        importlib.import_module(module)
